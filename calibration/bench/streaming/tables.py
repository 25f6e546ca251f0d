"""What was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.bench.scope.tables import heading, line
from calibration.bench.streaming.sequential import Delay, Measured, Spread
from detector import conformal

GUARDS = {"prompt": ("prompt",), "response": ("response",), "both": ("prompt", "response")}
"""At which stages a guard looks."""

POOLED = "all"
"""The name of all files out of scope together."""


def markdown(
    streamed: Mapping[str, Sequence[Measured | None]],
    changed: Sequence[Measured | None],
    alphas: Sequence[float],
    at: int,
) -> str:
    parts = [
        "## The question is out of scope",
        "",
        *_summary(streamed, alphas),
        "",
        f"## By file, looks at both, alpha = {alphas[len(alphas) // 2]:g}",
        "",
        *_by_file(streamed["both"][len(alphas) // 2]),
        "",
    ]
    if changed:
        parts += [
            f"## The response changes over to another question's after {at} tokens",
            "",
            *_changed(changed, alphas),
            "",
        ]
    return "\n".join(parts)


def _summary(
    streamed: Mapping[str, Sequence[Measured | None]], alphas: Sequence[float]
) -> list[str]:
    head = [
        "alpha",
        "looks at",
        "false alarms",
        "dealt anew",
        "power",
        "dealt anew",
        "at the prompt",
        "delay, share of the response",
        "tokens until the flag",
        "expected tokens",
        "tokens saved",
    ]
    rows = [*heading(head)]
    for place, alpha in enumerate(alphas):
        for guard in GUARDS:
            if (found := streamed[guard][place]) is not None:
                delay = found.delays[POOLED]
                rows.append(
                    line(
                        [
                            f"{alpha:g}",
                            guard,
                            *alarms(found),
                            power(delay),
                            spread(found.drawn_power[POOLED]),
                            f"{delay.at_prompt:.1%}",
                            "-" if delay.share is None else f"{delay.share:.2f}",
                            *delayed(delay),
                        ]
                    )
                )
    return rows


def _by_file(found: Measured | None) -> list[str]:
    if found is None:
        return ["Calibration cannot carry it."]
    head = ["file", "n", "power", "at the prompt", "tokens until the flag", "expected tokens"]
    rows = [*heading([*head, "tokens saved"])]
    for name, delay in found.delays.items():
        n, prompt = str(delay.n), f"{delay.at_prompt:.1%}"
        rows.append(line([name, n, power(delay), prompt, *delayed(delay)]))
    return rows


def _changed(changed: Sequence[Measured | None], alphas: Sequence[float]) -> list[str]:
    head = [
        "alpha",
        "second half",
        "false alarms",
        "dealt anew",
        "flagged before",
        "power after",
        "dealt anew",
        "tokens since the change",
        "expected tokens",
        "tokens saved",
    ]
    rows = [*heading(head)]
    for alpha, found in zip(alphas, changed, strict=True):
        if found is None:
            continue
        for whose, delay in found.delays.items():
            since = [before(delay), power(delay), spread(found.drawn_power[whose])]
            rows.append(line([f"{alpha:g}", whose, *alarms(found), *since, *delayed(delay)]))
    return rows


def before(delay: Delay) -> str:
    """The share flagged before anything was wrong, with its interval."""
    low, high = conformal.proportion_interval(delay.n_before, delay.n)
    return f"{delay.n_before / delay.n:.1%} ({low:.1%} to {high:.1%})"


def alarms(found: Measured) -> list[str]:
    """The rate of false alarms with its interval, and when questions are dealt anew."""
    once = found.false_alarms
    return [spread((once.rate_by_unit, once.low, once.high)), spread(found.drawn_alarms)]


def power(delay: Delay) -> str:
    return spread((delay.power, *delay.interval))


def spread(of: Spread) -> str:
    mean, low, high = of
    return f"{mean:.1%} ({low:.1%} to {high:.1%})"


def delayed(delay: Delay) -> list[str]:
    """Quartiles of the tokens until the flag, those expected and those saved."""
    found = "-"
    if delay.tokens is not None:
        low, median, high = delay.tokens
        found = f"{median:g} ({low:g} to {high:g})"
    return [found, f"{delay.expected:.1f}", f"{delay.saved:.1%}"]
