"""The report as one page of HTML that asks for nothing else: no script, picture or remote request.

The same `Report` is written as text; what the page has beside it is `Details`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files

from calibration.reporting import page_explained
from calibration.reporting import page_figures as figures
from calibration.reporting import page_tables as tables
from calibration.reporting.details import Details
from calibration.reporting.explained import FALSE_ALARMS
from calibration.reporting.html import Content, Markup, joined, paragraph, tag
from calibration.reporting.result import Report


def page(
    report: Report,
    details: Details,
    requests_a_day: Sequence[int],
    next_step: str | None = None,
) -> str:
    """`next_step` is what to collect next, where there is something to say."""
    sections = [
        ("what", "What was calibrated", tables.what(details)),
        ("thresholds", "Thresholds", tables.thresholds(report, details)),
        ("false-alarms", "False alarms", _false_alarms(report, details)),
        ("curve", "Realised rate against alpha", [figures.curve(report, details)]),
        *_out_of_scope(report, details),
        ("surface", "What the surface explains", tables.confounds(report)),
        ("worst", "Worst false alarms", tables.worst(details)),
        *_explained(details),
        ("a-day", "Alarms a day", tables.a_day(report, requests_a_day)),
    ]
    contents = tag(
        "nav",
        tag("h2", "Contents", id="contents"),
        tag("ol", *(tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in sections)),
        aria_labelledby="contents",
    )
    body = [
        tag("section", tag("h2", title, id=name), *parts, aria_labelledby=name)
        for name, title, parts in sections
    ]
    notes = [] if next_step is None else [paragraph(next_step, class_="note")]
    title = f"Calibration report: {details.manifest.scope}"
    head = tag(
        "head",
        Markup('<meta charset="utf-8"/>'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1"/>'),
        Markup('<meta name="color-scheme" content="light dark"/>'),
        tag("title", title),
        tag("style", Markup(_style())),
    )
    whole = tag(
        "body",
        tag("a", "Skip to the report", href="#main", class_="skip"),
        tag(
            "header",
            paragraph("TrajGuard calibration report", class_="kind"),
            tag("h1", details.manifest.scope),
            paragraph(*tables.in_a_sentence(report), class_="lead"),
            _tiles(report, details),
            *notes,
        ),
        contents,
        tag("main", *body, id="main"),
        tag("footer", paragraph(*_footer(details))),
    )
    return f"<!doctype html>\n{tag('html', head, whole, lang='en')}\n"


def _false_alarms(report: Report, details: Details) -> Iterator[Markup]:
    yield paragraph(
        "All are of the holdout split, which neither the Gaussians nor the threshold have seen. "
        "Intervals are exact (Clopper and Pearson), at 95 %, and count ",
        tables.units(report),
        ". The line in each bar is alpha.",
    )
    title = "All, and by group" if report.groups else "All"
    yield tables.rates(title, tables.totals(report), report, headed=False)
    by = {
        "By source": report.tables["source"],
        "By how it is typed": report.tables["variation"],
        "By number of words": report.tables["length"],
        "By number of characters": details.lengths,
    }
    for title, rows in by.items():
        # One of a single row says nothing new.
        if len(rows) > 1:
            yield tag("h3", title)
            yield tables.rates(title, rows, report)
    if report.unseen_variations:
        yield tag("h3", "Ways to type that were never calibrated")
        yield tables.rates("Never calibrated", report.unseen_variations, report)
    if report.new_templates is not None:
        yield tag("h3", "Questions of new templates")
        yield paragraph(f"{report.new_templates}.")


def _out_of_scope(report: Report, details: Details) -> list[tuple[str, str, list[Markup]]]:
    parts: list[Markup] = []
    if report.ood:
        parts += [
            tables.recalled(details),
            tag("h3", "What can be told apart"),
            figures.roc(report, details),
            figures.scores(report, details),
            tag("h3", "By score"),
            tables.by_score(report),
        ]
    found = [("ood", "Power out of scope", parts)] if parts else []
    if report.power is not None:
        found.append(("kinds", "Power on kinds left out", tables.kinds_left_out(report.power)))
    return found


def _explained(details: Details) -> list[tuple[str, str, list[Markup]]]:
    if not details.explained:
        return []
    parts = [paragraph(*page_explained.lead(details.explained))]
    for name in dict.fromkeys(each.of for each in details.explained):
        rows = [each for each in details.explained if each.of == name]
        title = "Of the worst false alarms" if name == FALSE_ALARMS else f"Of {name}"
        parts += [tag("h3", title), page_explained.rows(rows)]
    return [("why", "Why they are flagged", parts)]


def _tiles(report: Report, details: Details) -> Markup:
    holdout = report.holdout
    facts: list[tuple[str, Content]] = [
        ("target rate alpha", f"{report.alpha:g}"),
        (
            "false alarms on holdout",
            joined(
                f"{100 * holdout.rate_by_unit:.1f} %",
                tag("small", f"{100 * holdout.low:.1f} to {100 * holdout.high:.1f} %"),
            ),
        ),
        ("threshold", f"{report.threshold:.4f}"),
    ]
    guards = [row for row in report.ood if row.recall is not None]
    if guards:
        least = min(guards, key=lambda row: row.recall or 0)
        name = "flagged out of scope"
        shown = joined(
            f"{100 * (least.recall or 0):.1f} %",
            tag(
                "small", least.name if len(guards) == 1 else f"least of {len(guards)}: {least.name}"
            ),
        )
        facts.append((name, shown))
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", what)) for name, what in facts),
        class_="tiles",
    )


def _footer(details: Details) -> list[Content]:
    return [
        "Written by ",
        tag("code", "trajguard report --html"),
        " of artifact ",
        tag("code", details.artifact_id),
        ". The page is whole: it asks for nothing else, and runs no script.",
    ]


def _style() -> str:
    return (files("calibration.reporting") / "page.css").read_text(encoding="utf-8")
