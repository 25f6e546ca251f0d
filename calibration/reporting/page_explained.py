"""The section of a report's page that says why questions are flagged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from calibration.reporting.explained import N_LAYERS, Explained, usual_distances
from calibration.reporting.html import Content, Markup, joined, listed, tag
from detector.explanation import NearQuestion

_N_NEAREST = 3


def lead(explained: Sequence[Explained]) -> list[Content]:
    said: list[Content] = [
        f"At the look that decided, the {N_LAYERS} layers that speak against a question most, by "
        "what each adds to its score"
    ]
    if not (usual := usual_distances(explained)):
        return [*said, f". Of questions that it lies near nothing is known: {explained[0].note}."]
    return [
        *said,
        ", and what its trajectory lies near: calibration questions, and the kind out of scope "
        "whose middle is nearest. Calibration questions are from their nearest, in the median: "
        f"{usual}.",
    ]


def rows(explained: Sequence[Explained]) -> Markup:
    """One a flagged question, beneath each other: a table would be wider than the page."""
    return joined(*(tag("div", listed(_facts(each)), class_="why") for each in explained))


def _facts(each: Explained) -> Iterator[tuple[str, Content]]:
    name: Content = tag("code", each.key)
    if each.text is not None:
        name = joined(name, tag("span", each.text, class_="text"))
    yield "Question", name
    yield "Score", f"{each.score:.2f}, at the look {each.look} ({each.name})"
    if each.layers:
        yield "Layers against it", each.against
    if each.neighbours:
        yield "Nearest in scope", joined(*map(_near, each.neighbours[:_N_NEAREST]))
    if each.kind is not None:
        yield "Nearest kind out", f"{each.kind.distance:.2f} from {each.kind.name}"


def _near(near: NearQuestion) -> Markup:
    of = ", ".join(filter(None, [near.file, near.kind]))
    said = tag("code", near.id) if near.text is None else near.text
    return tag("span", f"{near.distance:.2f} from ", said, tag("small", f" {of}"), class_="text")
