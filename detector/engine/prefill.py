"""What a prefill runs for a request: its sequences, and the looks to take on each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from detector.engine.run import Run
from detector.trajectory import (
    END,
    PROMPT,
    PROMPT_LOOKS,
    PROMPT_MEAN,
    QUESTION,
    Look,
    in_order,
    left_out,
    taken_at,
)

if TYPE_CHECKING:
    from detector.engine.collector import Span


@dataclass(frozen=True)
class Row:
    """One sequence of a prefill, and the looks to take on it: each look's place in `spans`.

    `spans[0]` is always the last prompt token, which a starting response sums up from. A row
    that is `kept` is a prompt whose response starts later, without prefilling it again.
    """

    run: Run
    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    looks: dict[Look, int]
    starts_response: bool
    kept: bool = False

    @classmethod
    def of(
        cls,
        run: Run,
        prompt: tuple[int, ...],
        looks: Collection[Look],
        *,
        question: Span | None = None,
        response: tuple[int, ...] = (),
        starts: bool = False,
    ) -> Row:
        last = len(prompt) - 1
        spans: list[Span] = [(last, last + 1)]
        places: dict[Look, int] = {}
        for look in in_order(looks):
            if look == PROMPT:
                places[look] = 0
            elif look == PROMPT_MEAN:
                places[look] = len(spans)
                spans.append((0, len(prompt)))
            elif look == QUESTION:
                places[look] = len(spans)
                spans.append(question or (0, len(prompt)))
            else:
                n_tokens = len(response) if look == END else taken_at(look)
                if 0 < n_tokens <= len(response):
                    places[look] = len(spans)
                    spans.append((last + left_out(look), last + n_tokens))
        return cls(run, prompt + response, tuple(spans), places, starts)


def rows_of(run: Run, looks: frozenset[Look]) -> list[Row]:
    """The sequences to prefill for a request: its question, if that is other tokens than its
    prompt, and its prompt.
    """
    ask, rows = run.ask, []
    question = ask.question
    span = None if question is None else question.span
    if ask.first is not None or run.is_judged:
        looks -= PROMPT_LOOKS
    if question is not None and question.tokens != ask.prompt and looks & PROMPT_LOOKS:
        rows.append(Row.of(run, question.tokens, looks & PROMPT_LOOKS, question=span))
        looks -= PROMPT_LOOKS
    if ask.response is None:
        rows.append(Row.of(run, ask.prompt, looks & PROMPT_LOOKS, question=span, starts=True))
    elif looks or not rows:
        rows.append(Row.of(run, ask.prompt, looks, question=span, response=ask.response))
    return rows


def row_ahead(run: Run, looks: frozenset[Look]) -> Row | None:
    """The sequence that a request is judged on at its prompt, to be prefilled while it waits;
    None for one that is not refused there, or was judged already.
    """
    if run.ask.response is not None or run.is_judged or not run.ask.refusable:
        return None
    row = rows_of(run, looks)[0]
    if not row.looks:
        return None
    return replace(row, starts_response=False, kept=row.starts_response)
