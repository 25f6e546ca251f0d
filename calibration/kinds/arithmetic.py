"""Bare arithmetic with the four signs: what is typed into a tutor as into a calculator."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

from calibration.kinds.wording import Problem, decimal, plain, shown, spread

_ASKED = (
    "{}",
    "{}",
    "{}",
    "{} =",
    "{}=",
    "{} = ?",
    "{}=?",
    "{}?",
    "What is {}?",
    "What is {}?",
    "what's {}",
    "What's {}?",
    "Calculate {}",
    "calculate {}",
    "Calculate: {}",
    "Compute {}.",
    "Work out {}.",
    "Evaluate {}",
    "Evaluate: {}",
    "Solve {}",
    "Find the value of {}.",
    "Simplify {}",
    "How much is {}?",
    "how much is {}",
    "{} equals what?",
    "{} is",
    "Can you do {}?",
    "Tell me {}",
    "What does {} equal?",
    "Give me the answer to {}.",
    "Please work out {}",
    "answer: {}",
)
_WORDS = {
    "+": ("plus", "added to", "and"),
    "-": ("minus", "take away", "less"),
    "*": ("times", "multiplied by"),
    "/": ("divided by", "over"),
}
SIGNS = {
    "+": ("+",),
    "-": ("-", "-", "−"),
    "*": ("*", "*", "x", "×", "×"),
    "/": ("/", "÷", "÷", ":"),
}


def asked(draw: random.Random, expression: str) -> str:
    """An expression as a question, or as it stands."""
    return draw.choice(_ASKED).format(expression)


def _number(draw: random.Random) -> Fraction:
    """Tiny to millions, sometimes decimal, sometimes negative."""
    form = draw.random()
    if form < 0.6:
        value = Fraction(spread(draw, 1, 100))
    elif form < 0.75:
        value = Fraction(spread(draw, 100, 9_999_999))
    elif form < 0.9:
        value = decimal(draw, 0, draw.choice((1, 10, 100)), draw.choice((1, 1, 2, 3)))
    else:
        value = Fraction(draw.randint(0, 12))
    return -value if draw.random() < 0.12 else value


def apply(sign: str, a: Fraction, b: Fraction) -> Fraction:
    """One of a + b, a - b, a * b and a / b."""
    if sign == "+":
        return a + b
    if sign == "-":
        return a - b
    return a * b if sign == "*" else a / b


def _join(draw: random.Random, numbers: Sequence[str], signs: Sequence[str]) -> str:
    """Numbers and signs in one manner: signs of one choice each, with spaces or without."""
    gap = draw.choice((" ", " ", ""))
    chosen = {sign: draw.choice(SIGNS[sign]) for sign in SIGNS}
    if not gap:
        chosen = {sign: text if text != ":" else "/" for sign, text in chosen.items()}
    text = numbers[0]
    for sign, number in zip(signs, numbers[1:], strict=True):
        right = f"({number})" if number.startswith("-") and draw.random() < 0.6 else number
        text += f"{gap}{chosen[sign]}{gap}{right}"
    return text


def two_terms(draw: random.Random) -> Problem:
    """One sum, difference, product or quotient, in signs or in words."""
    sign = draw.choice("++--**/")
    a, b = _number(draw), _number(draw)
    if sign == "/":
        b = Fraction(draw.randint(2, 25))
        a = b * draw.choice((draw.randint(1, 20), spread(draw, 1, 9999), decimal(draw, 0, 20, 1)))
    if draw.random() < 0.25 and a >= 0 and b >= 0:
        word = draw.choice(_WORDS[sign])
        if word == "less" and b.denominator > 1:
            word = "minus"
        left, right = (shown(draw, int(v)) if v.denominator == 1 else plain(v) for v in (a, b))
        return asked(draw, f"{left} {word} {right}"), plain(apply(sign, a, b))
    return asked(draw, _join(draw, [plain(a), plain(b)], [sign])), plain(apply(sign, a, b))


def _sum_of(numbers: list[Fraction], signs: list[str]) -> Fraction:
    """By the usual order: products and quotients first."""
    terms = [numbers[0]]
    for sign, number in zip(signs, numbers[1:], strict=True):
        if sign in "*/":
            terms[-1] = apply(sign, terms[-1], number)
        else:
            terms.append(number if sign == "+" else -number)
    return sum(terms, Fraction(0))


def chains(draw: random.Random) -> Problem:
    """Expressions of three to five terms, with brackets or without."""
    n = draw.choice((3, 3, 4, 5))
    top = draw.choice((10, 20, 100, 1000))
    numbers = [Fraction(draw.randint(1, top)) for _ in range(n)]
    if draw.random() < 0.3:
        numbers = [-number if draw.random() < 0.4 else number for number in numbers]
    signs = [draw.choice("++--*") for _ in range(n - 1)]
    if draw.random() < 0.35:
        at = draw.randrange(1, n)
        divisor = draw.choice((2, 4, 5, 10))
        numbers[at - 1], numbers[at] = Fraction(divisor * draw.randint(1, 30)), Fraction(divisor)
        signs[at - 1] = "/"
    if draw.random() < 0.55:
        text = _join(draw, [plain(number) for number in numbers], signs)
        return asked(draw, text), plain(_sum_of(numbers, signs))
    a, b, c = (abs(number) for number in numbers[:3])
    inner, outer = draw.choice("+-"), draw.choice("*+-")
    within = apply(inner, a, b)
    bracket = "(" + _join(draw, [plain(a), plain(b)], [inner]) + ")"
    if draw.random() < 0.5:
        gap = draw.choice((" ", ""))
        text = f"{bracket}{gap}{draw.choice(SIGNS[outer])}{gap}{plain(c)}"
        return asked(draw, text), plain(apply(outer, within, c))
    text = f"{plain(c)} {draw.choice(SIGNS[outer])} {bracket}"
    return asked(draw, text), plain(apply(outer, c, within))


def big_numbers(draw: random.Random) -> Problem:
    """Long whole numbers and decimals with many digits."""
    if draw.random() < 0.5:
        a, b = (Fraction(draw.randint(10**k, 10 ** (k + 1))) for k in (draw.randint(3, 9), 4))
    else:
        a, b = (decimal(draw, 0, 100, draw.randint(2, 6)) for _ in range(2))
    sign = draw.choice("+-*") if max(a, b) < 10**6 else draw.choice("++--*")
    written = [plain(a), plain(b)]
    if a.denominator == 1 and draw.random() < 0.4:
        written = [f"{int(a):,}", f"{int(b):,}" if b.denominator == 1 else plain(b)]
    return asked(draw, _join(draw, written, [sign])), plain(apply(sign, a, b))
