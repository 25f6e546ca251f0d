"""The section of a report's page that says why questions are flagged."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.reporting.explained import N_LAYERS, Explained
from calibration.reporting.html import Content, Markup, joined, table, tag

_N_NEAREST = 3


def lead(explained: Sequence[Explained]) -> list[Content]:
    first = explained[0]
    said: list[Content] = [
        f"At the look that decided, the {N_LAYERS} layers that speak against a question most, by "
        "what each adds to its score"
    ]
    if first.usual is None:
        return [*said, f". Of questions that it lies near nothing is known: {first.note}."]
    return [
        *said,
        ", and what its trajectory lies near: calibration questions, and the kind out of scope "
        "whose middle is nearest. Half of all calibration questions are within "
        f"{first.usual:.2f} of another one.",
    ]


def rows(caption: str, explained: Sequence[Explained]) -> Markup:
    """One a flagged question."""
    with_texts = any(each.text is not None for each in explained)
    head = ["question", "score", "look", "layers against it"]
    is_near = any(each.neighbours for each in explained)
    head += ["nearest calibration questions", "nearest kind out of scope"] * is_near
    body: list[list[Content]] = []
    for each in explained:
        name: Content = tag("code", each.key)
        if with_texts:
            name = joined(name, tag("span", each.text or "", class_="text"))
        cells: list[Content] = [name, f"{each.score:.2f}", f"{each.look}: {each.name}"]
        body.append([*cells, tag("span", each.against), *([_near(each), _kind(each)] * is_near)])
    return table(caption, head, body, words=[2, 3, 4, 5], headed=True)


def _near(each: Explained) -> Markup:
    return joined(
        *(
            tag(
                "span",
                f"{near.distance:.2f}  ",
                near.text if near.text is not None else tag("code", near.id),
                tag("small", f" {', '.join(filter(None, [near.file, near.kind]))}"),
                class_="text",
            )
            for near in each.neighbours[:_N_NEAREST]
        )
    )


def _kind(each: Explained) -> Content:
    return "none" if each.kind is None else f"{each.kind.name} ({each.kind.distance:.2f})"
