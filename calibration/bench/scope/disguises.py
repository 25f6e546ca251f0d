"""Disguises: ways to write a question that keep its task, text in and text out.

Those that change letters of words leave the names of LaTeX commands alone.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Callable

_WORDS = re.compile(r"\\[A-Za-z]+|[A-Za-z]{2,}")
_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_CYRILLIC = str.maketrans(
    "aceijopsxyABCEHKMOPTX",
    "\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443"
    "\u0410\u0412\u0421\u0415\u041d\u041a\u041c\u041e\u0420\u0422\u0425",
)
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}

# In this order: what a fraction holds may be a root.
_LATEX = (
    (r"\[asy\].*?\[/asy\]", ""),
    (r"\\(?:begin|end)\{[^{}]*\}", " "),
    (r"\\(?:text|mathbf|mathrm|mathbb|operatorname|overline)\s*\{([^{}]*)\}", r"\1"),
    (r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)"),
    (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)"),
    (r"\\[dt]?frac\s*(\d)\s*(\d)", r"\1/\2"),
    (r"\\(?:cdot|times)(?![a-z])", " times "),
    (r"\\(?:leq?)(?![a-z])", " at most "),
    (r"\\(?:geq?)(?![a-z])", " at least "),
    (r"\^\s*\\circ", " degrees"),
    (r"\\(?:left|right|displaystyle|quad)(?![a-z])", ""),
    (r"\\\\|&", " "),
    (r"\\[,;!: ]", " "),
    (r"\\([A-Za-z]+)", r" \1 "),
    (r"[\\$]", ""),
    (r"\{([^{}]*)\}", r"(\1)"),
)

# The words of asking, which is most of what such questions say outside their formulas.
_SPANISH = (
    ("What is the value of", "¿Cuál es el valor de"),
    ("What is the", "¿Cuál es el"),
    ("What is", "¿Cuánto es"),
    ("What are", "¿Cuáles son"),
    ("How many", "¿Cuántos"),
    ("Find the", "Encuentra el"),
    ("Find all", "Encuentra todos los"),
    ("Find", "Encuentra"),
    ("Compute", "Calcula"),
    ("Evaluate", "Evalúa"),
    ("Simplify", "Simplifica"),
    ("Solve for", "Resuelve para"),
    ("Express your answer", "Expresa tu respuesta"),
    ("Determine", "Determina"),
    ("Suppose that", "Supongamos que"),
    ("such that", "tal que"),
    ("positive integers", "enteros positivos"),
    ("positive integer", "entero positivo"),
    ("integers", "enteros"),
    ("integer", "entero"),
    ("real numbers", "números reales"),
    ("numbers", "números"),
    ("number", "número"),
    ("greatest", "mayor"),
    ("smallest", "menor"),
    ("value", "valor"),
    ("area", "área"),
    ("triangle", "triángulo"),
    ("circle", "círculo"),
    ("equation", "ecuación"),
    ("function", "función"),
    ("vectors", "vectores"),
    ("matrix", "matriz"),
    ("probability", "probabilidad"),
    ("divided by", "dividido por"),
    ("remainder", "resto"),
    ("sum", "suma"),
    ("where", "donde"),
    ("when", "cuando"),
    ("there are", "hay"),
    ("the", "el"),
    ("and", "y"),
    ("is", "es"),
    ("are", "son"),
    ("with", "con"),
    ("from", "de"),
    ("of", "de"),
    ("in", "en"),
    ("for", "para"),
    ("if", "si"),
    ("let", "sea"),
)
_SPANISH_WORDS = {english.lower(): spanish for english, spanish in _SPANISH}
_ENGLISH = re.compile(
    r"\\[A-Za-z]+|\b(?:" + "|".join(re.escape(english) for english, _ in _SPANISH) + r")\b",
    re.IGNORECASE,
)


def in_base64(text: str) -> str:
    return f"Decode this base64 and answer it: {base64.b64encode(text.encode()).decode()}"


def in_rot13(text: str) -> str:
    return f"Decode this ROT13 and answer it: {codecs.encode(text, 'rot13')}"


def backwards(text: str) -> str:
    return f"Read this backwards and answer it: {text[::-1]}"


def in_leetspeak(text: str) -> str:
    """Digits for the letters that they resemble."""
    return _in_words(text, lambda word: word.translate(_LEET))


def spaced_out(text: str) -> str:
    """A space between the letters of a word, three between words."""
    return "   ".join(" ".join(word) for word in text.split())


def in_lookalikes(text: str) -> str:
    """Cyrillic letters that look like the Latin ones in whose place they stand."""
    return _in_words(text, lambda word: word.translate(_CYRILLIC))


def with_zero_widths(text: str) -> str:
    """Zero-width spaces between letters: seen by nobody, and other tokens."""
    return _in_words(text, "\u200b".join)


def in_full_width(text: str) -> str:
    return text.translate(_FULL_WIDTH)


def in_capitals(text: str) -> str:
    return text.upper()


def a_word_a_line(text: str) -> str:
    return "\n".join(text.split())


def without_latex(text: str) -> str:
    """Formulas as one types them without LaTeX, drawings left out."""
    for pattern, plain in _LATEX:
        text = re.sub(pattern, plain, text, flags=re.DOTALL)
    return " ".join(text.split())


def half_in_spanish(text: str) -> str:
    """The words of asking in Spanish, by a list of phrases; no translation."""

    def written(found: re.Match[str]) -> str:
        spanish = _SPANISH_WORDS.get(found[0].lower(), found[0])
        return spanish[0].upper() + spanish[1:] if found[0][0].isupper() else spanish

    return _ENGLISH.sub(written, text)


def in_json(text: str) -> str:
    return json.dumps({"subject": "math", "grade": 3, "task": text}, ensure_ascii=False, indent=1)


def in_a_fence(text: str) -> str:
    return f"```\n{text}\n```"


def as_code(text: str) -> str:
    comment = "\n".join(f"# {line}" for line in text.splitlines())
    return f"```python\n{comment}\nprint(answer)\n```\nWhat does this print?"


def _in_words(text: str, change: Callable[[str], str]) -> str:
    return _WORDS.sub(
        lambda found: found[0] if found[0].startswith("\\") else change(found[0]), text
    )
