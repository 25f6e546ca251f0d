"""The bytes that a single token stands for, which need not be whole characters."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerFast

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
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
    <0xE2>). `longest` is the most bytes that one token stands for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        backend = tokenizer.backend_tokenizer
        decoder = repr(backend.decoder)
        self.is_byte_level = "ByteLevel" in decoder
        self._has_byte_fallback = "ByteFallback" in decoder
        self._alphabet = _byte_level_alphabet() if self.is_byte_level else {}
        self._piece_of = backend.id_to_token
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.longest = max((len(self._bytes_of(piece)) for piece in vocabulary), default=1) or 1

    def of(self, token: int) -> bytes:
        """Empty for an id that the vocabulary does not have, as padded ones."""
        piece = self._piece_of(token)
        return b"" if piece is None else self._bytes_of(piece)

    def is_single_byte(self, token: int) -> bool:
        """Whether it is one that a vocabulary falls back to, whose text is that of the run of
        such tokens that it stands in.
        """
        piece = self._piece_of(token) if self._has_byte_fallback else None
        return piece is not None and _BYTE_FALLBACK.fullmatch(piece) is not None

    def _bytes_of(self, piece: str) -> bytes:
        if self._alphabet.keys() >= set(piece):
            return bytes(self._alphabet[letter] for letter in piece)
        if fallback := _BYTE_FALLBACK.fullmatch(piece):
            return bytes.fromhex(fallback[1])
        return piece.replace(_SPACE, " ").encode()
