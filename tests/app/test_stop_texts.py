"""Stop texts: what is shown before them, however the response is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.chat.stop_texts import StopTexts

LETTERS = st.text("ab", min_size=1, max_size=5)


def shown_of(pieces: list[str], texts: list[str]) -> tuple[list[str], bool]:
    stop = StopTexts(texts)
    shown = []
    for piece in pieces:
        shown.append(stop.push(piece))
        if stop.found:
            return shown, True
    return [*shown, stop.flush()], False


def before_stop(text: str, texts: list[str]) -> str | None:
    """By trying every end: the first that a stop text has, and the longest of those."""
    for end in range(len(text) + 1):
        ended = [stop for stop in texts if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))]
    return None


@given(st.lists(LETTERS, max_size=8), st.lists(LETTERS, max_size=4))
def test_a_response_ends_before_its_first_stop_text(pieces: list[str], texts: list[str]) -> None:
    shown, found = shown_of(pieces, texts)
    expected = before_stop("".join(pieces), texts)
    assert found == (expected is not None)
    assert "".join(shown) == ("".join(pieces) if expected is None else expected)
    # All that no stop text can begin with any more is shown at once.
    said = ""
    for n, piece in enumerate(pieces[: len(shown) - 1]):
        said += piece
        held = said[len("".join(shown[: n + 1])) :]
        assert held == "" or any(text.startswith(held) for text in texts)


@pytest.mark.parametrize("length", [1_000, 100_000])
def test_a_letter_costs_the_same_however_long_a_stop_text_is(length: int) -> None:
    """Looking anew for every beginning of it would take hours here."""
    stop = StopTexts(["a" * length + "b"] * 4)
    assert stop.push("a" * 2 * length) == "a" * length
    assert stop.push("b") == ""
    assert stop.found
