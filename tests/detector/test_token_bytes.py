"""A token's bytes: those of a text's tokens join to the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from detector.engine.model.default_model import default_checkpoint
from detector.engine.model.token_bytes import TokenBytes
from tests.tiny import tiny_tokenizer

TEXT = "Ada's 3 naïve crabs — 雪だ 😀\n\tand <0x41> é"


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Letters of a few words, all else as bytes, spaces as U+2581."""
    letters = [*"▁adscrbnve3", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def joined(tokenizer: PreTrainedTokenizerFast, text: str) -> bytes:
    of_token = TokenBytes(tokenizer)
    return b"".join(of_token.of(i) for i in tokenizer.encode(text, add_special_tokens=False))


@given(st.text(st.characters(codec="utf-8")))
def test_byte_level_tokens_join_to_the_text(text: str) -> None:
    assert joined(tiny_tokenizer(), text) == text.encode()


@given(st.text(st.characters(codec="utf-8", exclude_characters="▁")))
def test_sentencepiece_tokens_join_to_the_text(text: str) -> None:
    assert joined(sentencepiece_like(), text) == text.encode()


@pytest.mark.default_model
def test_the_default_model_s_tokens_join_to_the_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(default_checkpoint()))
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert joined(tokenizer, TEXT) == TEXT.encode()
    assert joined(tokenizer, "<|im_start|>user") == b"<|im_start|>user"


def test_an_id_outside_the_vocabulary_has_no_bytes() -> None:
    assert TokenBytes(tiny_tokenizer()).of(5000) == b""
