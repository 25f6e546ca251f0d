"""Pieces of a response: its text and log-probabilities, cut at the first stop text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.chat.choice import Choice, Piece
from app.chat.stop_texts import StopTexts
from detector.backend import Ask, Finish, Step, TokenLogprobs
from tests.app.recorded_codec import RecordedCodec

CODEC = RecordedCodec()
ASK = Ask((1,))


def pieces_of(
    text: str, stop_texts: list[str], finish: Finish = "length", min_tokens: int = 0
) -> list[Piece]:
    """The response to a request that generates `text`, a byte a token."""
    choice = Choice(3, CODEC.stream(), stop_texts, min_tokens)
    tokens = CODEC.encode_response(text)
    pieces = []
    for n, token in enumerate(tokens, start=1):
        step = Step(
            ASK, token, finish if n == len(tokens) else None, TokenLogprobs(token, -1.0, ())
        )
        piece = choice.push(step)
        if piece is not None:
            pieces.append(piece)
            if piece.ending is not None:
                break
    assert choice.n_tokens == n
    return pieces


def logprob_bytes(piece: Piece) -> bytes:
    return b"".join(CODEC.token_bytes(logprobs.token) for logprobs in piece.logprobs)


@given(st.text("ab雪😀", min_size=1), st.lists(st.text("ab雪", min_size=1, max_size=3), max_size=3))
def test_log_probabilities_are_of_the_text_that_is_shown(text: str, stop_texts: list[str]) -> None:
    pieces = pieces_of(text, stop_texts)
    alone = StopTexts(stop_texts)
    shown = ""
    for letter in text:
        shown += alone.push(letter)
        if alone.found:
            break
    else:
        shown += alone.flush()
    assert "".join(piece.text for piece in pieces) == shown
    assert [piece.ending for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].ending == ("stop" if alone.found else "length")
    # A byte a token, so that the tokens told of are exactly those of each piece's text.
    for piece in pieces:
        assert piece.index == 3
        assert logprob_bytes(piece) == piece.text.encode()


def test_the_end_token_is_no_part_of_the_response() -> None:
    (first, last) = pieces_of("ab", [], finish="stop")
    assert (first.text, logprob_bytes(first), first.ending) == ("a", b"a", None)
    assert (last.text, last.logprobs, last.ending) == ("", (), "stop")


def test_bytes_of_an_unfinished_character_are_told_at_the_end() -> None:
    choice = Choice(0, CODEC.stream(), [], 0)
    first, second, _ = CODEC.encode_response("雪")
    assert choice.push(Step(ASK, first, None, TokenLogprobs(first, -1.0, ()))) is None
    piece = choice.push(Step(ASK, second, "length", TokenLogprobs(second, -1.0, ())))
    assert piece is not None
    assert logprob_bytes(piece) == "雪".encode()[:2]


@pytest.mark.parametrize(("min_tokens", "shown"), [(0, "a"), (1, "a"), (2, "abca"), (5, "abcabc")])
def test_stop_texts_count_only_after_min_tokens(min_tokens: int, shown: str) -> None:
    pieces = pieces_of("abcabc", ["b"], min_tokens=min_tokens)
    assert "".join(piece.text for piece in pieces) == shown


def test_what_was_held_back_stays_unsaid_when_judged() -> None:
    choice = Choice(0, CODEC.stream(), ["ab"], 0)
    (token,) = CODEC.encode_response("a")
    assert choice.push(Step(ASK, token, None, TokenLogprobs(token, -1.0, ()))) is None
    assert choice.push(Step(ASK, finish="judged")) == Piece(0, "", (), "refused")
    assert choice.n_tokens == 1


def test_a_character_that_is_cut_is_shown_at_the_end() -> None:
    """Its half as U+FFFD, as whoever decodes all tokens has it."""
    choice = Choice(0, CODEC.stream(), ["b"], 0)
    shown = [choice.push(Step(ASK, token)) for token in b"a\xe9\x9b"[:2]]
    last = choice.push(Step(ASK, 0x9B, "length"))
    assert shown == [Piece(0, "a"), None]
    assert last == Piece(0, "\ufffd", ending="length")


def test_a_stop_text_is_found_in_what_is_held_to_the_end() -> None:
    choice = Choice(0, CODEC.stream(), ["\ufffd"], 0)
    assert choice.push(Step(ASK, 0xE9, "length")) == Piece(0, "", ending="stop")
