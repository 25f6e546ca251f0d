"""Ciphers (arXiv 2408.00114's decryption task), each letter by itself; letters a to z alone.

Each maps the alphabet onto itself, so that of letters drawn alike it gives letters drawn alike.
"""

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def shift(text: str, by: int) -> str:
    return "".join(ALPHABET[(ALPHABET.index(letter) + by) % 26] for letter in text)


def atbash(text: str) -> str:
    return "".join(ALPHABET[25 - ALPHABET.index(letter)] for letter in text)


def affine(text: str, by: int) -> str:
    """`by` has no divisor in common with 26."""
    return "".join(ALPHABET[ALPHABET.index(letter) * by % 26] for letter in text)


def vigenere(text: str, key: str) -> str:
    shifts = [ALPHABET.index(letter) for letter in key]
    return "".join(
        ALPHABET[(ALPHABET.index(letter) + shifts[place % len(shifts)]) % 26]
        for place, letter in enumerate(text)
    )
