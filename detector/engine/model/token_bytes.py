"""The bytes that a single token stands for, which need not be whole characters."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerFast

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "▁"


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: the printable ones stand for themselves, the others follow
    from U+0100 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + n): byte for n, byte in enumerate(others)
    }


class TokenBytes:
    """Gives the bytes of a tokenizer's tokens; those of a response's tokens join to its text.

    Knows byte-level vocabularies and the SentencePiece kind (spaces as U+2581, bytes as
    <0xE2>).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.added_tokens_decoder
        decoder = tokenizer.backend_tokenizer.decoder
        byte_level = "ByteLevel" in repr(decoder)
        self._alphabet = _byte_level_alphabet() if byte_level else {}

    def of(self, token: int) -> bytes:
        """Empty for an id that the vocabulary does not have, as padded ones."""
        if token in self._added:
            return str(self._added[token].content).encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return b""
        assert isinstance(piece, str)
        if self._alphabet.keys() >= set(piece):
            return bytes(self._alphabet[letter] for letter in piece)
        if fallback := _BYTE_FALLBACK.fullmatch(piece):
            return bytes.fromhex(fallback[1])
        return piece.replace(_SPACE, " ").encode()
