"""Bare arithmetic beyond the four signs: fractions, percent, powers, a calculator's other keys."""

from __future__ import annotations

import math
import random
from fractions import Fraction

from calibration.kinds.arithmetic import SIGNS, apply, asked
from calibration.kinds.wording import Problem, decimal, plain, rounded, spread


def _fraction(draw: random.Random) -> Fraction:
    below = draw.choice((2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 20))
    return Fraction(draw.randint(1, below - 1 if draw.random() < 0.8 else 2 * below), below)


def _over(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def fractions(draw: random.Random) -> Problem:
    """Sums and products of fractions, lowest terms, mixed numbers."""
    a, b = _fraction(draw), _fraction(draw)
    form = draw.randrange(8)
    if form < 4:
        sign = draw.choice("+-*/")
        text = {"+": "+", "-": "-", "*": draw.choice("*×x"), "/": "÷"}[sign]
        return asked(draw, f"{_over(a)} {text} {_over(b)}"), str(apply(sign, a, b))
    if form == 4:
        k = draw.randint(2, 12)
        top, under = a.numerator * k, a.denominator * k
        texts = (
            f"Simplify {top}/{under}",
            f"Write {top}/{under} in lowest terms.",
            f"Reduce the fraction {top}/{under}.",
            f"What is {top}/{under} in simplest form?",
        )
        return draw.choice(texts), str(a)
    if form == 5:
        n = a.denominator * draw.randint(1, 40)
        texts = (
            f"What is {_over(a)} of {n}?",
            f"{_over(a)} of {n}",
            f"Find {_over(a)} of {n}.",
            f"how much is {_over(a)} of {n}",
        )
        return draw.choice(texts), plain(a * n)
    if form == 6:
        whole, under = draw.randint(1, 12), draw.choice((2, 3, 4, 5, 8))
        part = draw.randint(1, under - 1)
        mixed = f"{whole} {part}/{under}"
        value = f"{whole * under + part}/{under}"
        both = (
            (f"Write {mixed} as an improper fraction.", value),
            (f"Convert {value} to a mixed number", mixed),
            (f"What is {value} as a mixed number?", mixed),
            (f"change {mixed} into an improper fraction", value),
        )
        return draw.choice(both)
    n = draw.randint(2, 30)
    sign = draw.choice("+-*")
    return asked(draw, f"{n} {draw.choice(SIGNS[sign])} {_over(a)}"), str(
        apply(sign, Fraction(n), a)
    )


def percents(draw: random.Random) -> Problem:
    """Percent of a number, and between percent, fraction and decimal."""
    rate = draw.choice(
        (5, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 80, 90, 100, 120, draw.randint(1, 99))
    )
    n = draw.choice((spread(draw, 4, 5000), 20 * draw.randint(1, 100)))
    part = Fraction(rate * n, 100)
    share = _fraction(draw)
    hundredth = decimal(draw, 0, 2, draw.choice((1, 2, 3)))
    forms = (
        (f"what's {rate}% of {n}", plain(part)),
        (f"What is {rate}% of {n}?", plain(part)),
        (f"{rate}% of {n}", plain(part)),
        (f"Find {rate} percent of {n}.", plain(part)),
        (f"calculate {rate} % of {n}", plain(part)),
        (f"Increase {n} by {rate}%.", plain(n + part)),
        (f"Decrease {n} by {rate}%", plain(n - part)),
        (f"{plain(part)} is what percent of {n}?", f"{rate}%"),
        (f"What percentage of {n} is {plain(part)}?", f"{rate}%"),
        (f"{plain(part)} is {rate}% of what number?", plain(n)),
        (f"convert {_over(share)} to a percentage", f"{plain(rounded(share * 100, 2))}%"),
        (f"Write {rate}% as a fraction in its simplest form.", str(Fraction(rate, 100))),
        (f"Write {rate}% as a decimal", plain(Fraction(rate, 100))),
        (f"Write {plain(hundredth)} as a percent.", f"{plain(hundredth * 100)}%"),
        (f"Express {plain(hundredth)} as a fraction.", str(hundredth)),
        (f"What is {_over(share)} as a decimal?", plain(share)),
    )
    return draw.choice(forms)


def powers(draw: random.Random) -> Problem:
    """Squares, cubes, powers and roots."""
    a = spread(draw, 2, 120)
    small, high = draw.randint(2, 20), draw.randint(2, 6)
    tenth = plain(decimal(draw, 0, 9, 1))
    squares = (
        f"{a} squared",
        f"What is {a} squared?",
        f"{a}^2",
        f"{a}²",
        f"what is the square of {a}",
        f"{a} to the power of 2",
        f"Find the square of {a}.",
    )
    roots = (
        f"sqrt({a * a})",
        f"√{a * a}",
        f"What is the square root of {a * a}?",
        f"square root of {a * a}",
        f"Find √{a * a}",
        f"which number times itself is {a * a}?",
    )
    high_powers = (
        f"{small}^{high}",
        f"{small}**{high}",
        f"{small} ^ {high} =",
        f"What is {small} to the power of {high}?",
        f"Evaluate {small}^{high}.",
        f"{small} to the {('2nd', '3rd', '4th', '5th', '6th')[high - 2]} power",
    )
    cubes = (f"{small} cubed", f"What is {small} cubed?", f"{small}³", f"the cube of {small}")
    mixed = (
        f"{a}^2 + {small}^2",
        f"{small}² + {a}",
        f"{a}^2 - {small}",
        f"sqrt({a * a}) + {small}",
    )
    values = (a * a + small * small, small * small + a, a * a - small, a + small)
    at = draw.randrange(4)
    return draw.choice(
        (
            (draw.choice(squares), plain(a * a)),
            (draw.choice(roots), plain(a)),
            (draw.choice(high_powers), plain(small**high)),
            (draw.choice(high_powers), plain(small**high)),
            (draw.choice(cubes), plain(small**3)),
            (f"∛{small**3}", plain(small)),
            (f"What is {tenth} squared?", plain(Fraction(tenth) ** 2)),
            (f"What is the cube root of {small**3}?", plain(small)),
            (asked(draw, mixed[at]), plain(values[at])),
        )
    )


def calculator_keys(draw: random.Random) -> Problem:
    """The functions on a calculator that a pupil tries."""
    n, k = draw.randint(3, 9), draw.randint(1, 6)
    angle = draw.choice((0, 30, 45, 60, 90))
    name = draw.choice(("sin", "cos"))
    value = math.sin(math.radians(angle)) if name == "sin" else math.cos(math.radians(angle))
    power, base = draw.randint(1, 5), draw.randint(2, 40)
    forms = (
        (f"{name}({angle})", f"{value:.4g}"),
        (f"{name} {angle} degrees", f"{value:.4g}"),
        (f"log10({10**k})", plain(k)),
        (f"log({10**k})", plain(k)),
        (f"e^{power}", f"{math.exp(power):.4g}"),
        (f"{n}!", plain(math.factorial(n))),
        (f"{n} factorial", plain(math.factorial(n))),
        (f"pi * {base}", f"{math.pi * base:.4g}"),
        (f"ln({base})", f"{math.log(base):.4g}"),
        (f"|{-base}|", plain(base)),
        (f"abs({-base})", plain(base)),
        (f"{base * n + k} mod {n}", plain((base * n + k) % n)),
        (f"1/{base}", f"{1 / base:.4g}"),
        (f"10^{k} * {base}", plain(10**k * base)),
    )
    typed, answer = draw.choice(forms)
    return draw.choice(("{}", "{}", "{} =", "what is {}", "calculate {}", "What's {}?")).format(
        typed
    ), answer
