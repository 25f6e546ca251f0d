"""Streamed text: the pieces join to what the tokenizer decodes all tokens to, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from detector.engine.model.text import Text
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    *BYTES,
    "▁",
    "▁▁",
    "▁a",
    "a",
    "b",
    ".",
    "▁é",
    "雪",
    "\ufffd",
    "'s",
]
PLACES = {piece: place for place, piece in enumerate(PIECES)}


def fast(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_special_tokens([AddedToken("</s>", special=True), AddedToken("<x>", special=True)])
    backend.add_tokens([AddedToken("<turn>"), AddedToken("é")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE)


def llama() -> PreTrainedTokenizerFast:
    """As Llama 2 and Mistral decode: without the space that a text begins with."""
    backend = Tokenizer(
        models.BPE(vocab=PLACES, merges=[], byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return fast(backend)


def gemma() -> PreTrainedTokenizerFast:
    """A unigram model that falls back to bytes, decoded as Gemma does."""
    vocabulary = [(piece, -float(place)) for piece, place in PLACES.items()]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return fast(backend)


def metaspace() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(vocab=PLACES, merges=[]))
    backend.decoder = decoders.Metaspace()
    return fast(backend)


def byte_level() -> PreTrainedTokenizerFast:
    return fast(tiny_tokenizer().backend_tokenizer)


def words() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({piece: n for n, piece in enumerate("[U] a b .".split())}))
    return fast(backend)


TOKENIZERS = {kind.__name__: Text(kind()) for kind in (llama, gemma, metaspace, byte_level, words)}


def pieces_of(text: Text, ids: Sequence[int]) -> list[str]:
    stream = text.stream()
    return [*(stream.push(token) for token in ids), stream.flush()]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=400)
@given(ids=st.lists(st.integers(0, len(PIECES) + 5), max_size=24))
@example(ids=[PLACES[piece] for piece in ("a", "<0xE2>", "<0x82>", "▁a", "<0xAC>")])
@example(ids=[PLACES[piece] for piece in ("<0x41>", "<0x42>", "<0xFF>", "a", "<0xE9>")])
@example(ids=[PLACES[piece] for piece in ("▁", "</s>", "▁▁", "▁a")])
def test_pieces_join_to_what_is_decoded(kind: str, ids: list[int]) -> None:
    text = TOKENIZERS[kind]
    assert "".join(pieces_of(text, ids)) == text.decode(ids)


@given(st.text(st.characters(codec="utf-8", exclude_characters="▁é"), max_size=30))
def test_whole_characters_are_shown_as_they_come(said: str) -> None:
    """Not U+FFFD while a character is half there, and none held back at the end."""
    for kind in ("gemma", "byte_level"):
        text = TOKENIZERS[kind]
        ids = text.encode_response(said)
        pieces = pieces_of(text, ids)
        assert "".join(pieces) == text.decode(ids)
        if "\ufffd" not in said and "<" not in said:
            assert all("\ufffd" not in piece for piece in pieces)
    # A byte-level vocabulary never needs the token after a character to show it.
    assert pieces[-1] == ""


@pytest.mark.parametrize("kind", ["llama", "gemma", "byte_level"])
def test_a_character_that_is_cut_is_shown_at_the_end(kind: str) -> None:
    text = TOKENIZERS[kind]
    euro = [0xE2, 0x82]
    ids = (
        text.encode_response("€")[:2] if kind == "byte_level" else [PLACES[BYTES[b]] for b in euro]
    )
    *pieces, last = pieces_of(text, ids)
    assert pieces == ["", ""]
    assert last == text.decode(ids) != ""
    assert set(last) == {"\ufffd"}


def test_real_vocabularies_have_a_longest_token() -> None:
    assert TOKENIZERS["byte_level"].longest_token == len("<turn>")
    assert Text(tiny_tokenizer()).longest_token == len("<end>")
    assert TOKENIZERS["metaspace"].longest_token == len("<0x00>")
