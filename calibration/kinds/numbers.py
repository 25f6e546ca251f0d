"""Questions about numbers themselves: digits, rounding, order, factors, missing numbers."""

from __future__ import annotations

import math
import random
from fractions import Fraction

from calibration.kinds.wording import Problem, decimal, plain, rounded, shown, spread
from calibration.kinds.words import PEOPLE

_DIGITS = ("ones", "tens", "hundreds", "thousands", "ten thousands", "hundred thousands")
_PLACES = ("tenth", "hundredth", "thousandth")


def rounding(draw: random.Random) -> Problem:
    """To tens, hundreds, whole numbers or decimals."""
    if draw.random() < 0.5:
        places = draw.randint(0, 2)
        value = decimal(draw, 0, draw.choice((10, 100, 1000)), places + draw.randint(1, 2))
        to = (
            draw.choice(("the nearest whole number", "the nearest integer", "the nearest one")),
            draw.choice(("one decimal place", "one decimal", "1 d.p", "the nearest tenth")),
            draw.choice(("two decimal places", "2 decimals", "2 d.p", "the nearest hundredth")),
        )[places]
        answer = plain(rounded(value, places))
    else:
        zeros = draw.randint(1, 4)
        value = Fraction(spread(draw, 10**zeros, 10 ** (zeros + 4)))
        to = f"the nearest {('ten', 'hundred', 'thousand', 'ten thousand')[zeros - 1]}"
        if draw.random() < 0.3:
            to = f"the nearest {10**zeros}"
        answer = plain(rounded(value, -zeros))
    x = plain(value)
    return draw.choice(
        (
            f"round {x} to {to}",
            f"Round {x} to {to}.",
            f"What is {x} rounded to {to}?",
            f"Round off {x} to {to}",
            f"{x} rounded to {to}",
            f"Give {x} correct to {to}.",
            f"Write {x} to {to}.",
            f"What do you get when you round {x} to {to}?",
            f"{draw.choice(PEOPLE)} rounds {x} to {to}. What number is that?",
            f"To {to}, what is {x}?",
        )
    ), answer


def digits(draw: random.Random) -> Problem:
    """Place value, expanded form, words and digits."""
    n = draw.randint(3, 6)
    number = draw.randint(10 ** (n - 1), 10**n - 1)
    at = draw.randrange(n)
    digit = number // 10**at % 10
    word = _DIGITS[at]
    total = sum(int(d) for d in str(number))
    expanded = " + ".join(
        str(int(d) * 10 ** (n - 1 - i)) for i, d in enumerate(str(number)) if d != "0"
    )
    value = decimal(draw, 1, 99, 3)
    place = draw.randrange(3)
    tens, ones = draw.randint(1, 99), draw.randint(0, 9)
    return draw.choice(
        (
            (f"What is the {word} digit of {number}?", str(digit)),
            (f"Which digit is in the {word} place in {number:,}?", str(digit)),
            (f"In the number {number}, what digit is in the {word} place?", str(digit)),
            (f"Name the digit in the {word} place of {number}.", str(digit)),
            (f"{number}: which digit stands for the {word}?", str(digit)),
            (f"What is the sum of the digits of {number}?", str(total)),
            (f"add up the digits of {number}", str(total)),
            (f"How many digits does {number} have?", str(n)),
            (f"Write {number} in expanded form.", expanded),
            (f"What number is {expanded}?", str(number)),
            (f"Which number has {tens} tens and {ones} ones?", str(tens * 10 + ones)),
            (f"How many tens are there in {tens * 10}?", str(tens)),
            (
                f"What digit is in the {_PLACES[place]}s place of {float(value):.3f}?",
                f"{float(value):.3f}"[place - 3],
            ),
            (f"What is 1 more than {number}?", str(number + 1)),
            (f"Which number comes just before {number}?", str(number - 1)),
            (f"What is {10**at} less than {number}?", str(number - 10**at)),
        )
    )


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, math.isqrt(n) + 1))


def factors(draw: random.Random) -> Problem:
    """Primes, factors, multiples, odd and even, common factors and multiples."""
    n = spread(draw, 2, 200)
    k = draw.randint(2, 12)
    a, b = draw.randint(2, 12) * k, draw.randint(2, 12) * k
    yes = {True: "yes", False: "no"}
    divides, m = yes[n % k == 0], draw.randint(2, 9)
    return draw.choice(
        (
            (f"is {n} prime?", yes[_is_prime(n)]),
            (f"Is {n} a prime number?", yes[_is_prime(n)]),
            (f"Prime or not: {n}", yes[_is_prime(n)]),
            (f"is {n} odd or even", "odd" if n % 2 else "even"),
            (f"Is {n} an even number?", yes[n % 2 == 0]),
            (f"Is {n} divisible by {k}?", divides),
            (f"can {n} be divided by {k} without remainder?", divides),
            (f"Is {k} a factor of {n}?", divides),
            (
                f"List all the factors of {n}.",
                ", ".join(str(d) for d in range(1, n + 1) if n % d == 0),
            ),
            (f"How many factors does {n} have?", str(sum(n % d == 0 for d in range(1, n + 1)))),
            (f"What is the greatest common factor of {a} and {b}?", str(math.gcd(a, b))),
            (f"HCF of {a} and {b}", str(math.gcd(a, b))),
            (f"Find the GCD of {a} and {b}.", str(math.gcd(a, b))),
            (f"What is the least common multiple of {k} and {m}?", str(math.lcm(k, m))),
            (f"LCM of {a} and {m}", str(math.lcm(a, m))),
            (f"Write the first five multiples of {n}.", ", ".join(str(n * i) for i in range(1, 6))),
            (
                f"What is the {m}th multiple of {k * 3}?" if m > 3 else f"Double {n}",
                str(m * k * 3 if m > 3 else 2 * n),
            ),
            (f"What is the remainder when {n + a} is divided by {k}?", str((n + a) % k)),
        )
    )


def ordering(draw: random.Random) -> Problem:
    """Which is larger, smallest first, less than or greater than."""
    if draw.random() < 0.4:
        under = draw.choice((2, 3, 4, 5, 8, 10))
        a, b = Fraction(draw.randint(1, 9), 10), Fraction(draw.randint(1, under - 1), under)
        left, right = plain(a), str(b)
    elif draw.random() < 0.5:
        a, b = (decimal(draw, 0, 3, draw.randint(1, 3)) for _ in range(2))
        left, right = plain(a), plain(b)
    else:
        a, b = (Fraction(draw.randint(-50, 5000)) for _ in range(2))
        left, right = plain(a), plain(b)
    sign = "<" if a < b else ">" if a > b else "="
    larger, smaller = (left, right) if a >= b else (right, left)
    more = {plain(decimal(draw, -2, 10, draw.randint(0, 2))) for _ in range(draw.randint(3, 6))}
    row = sorted(more, key=Fraction)
    mixed = draw.sample(row, len(row))
    written = ", ".join(mixed)
    return draw.choice(
        (
            (f"compare {left} and {right}", f"{left} {sign} {right}"),
            (f"Which is bigger, {left} or {right}?", larger),
            (f"Which is larger: {left} or {right}?", larger),
            (f"Which number is smaller, {left} or {right}?", smaller),
            (f"Fill in <, > or =: {left} __ {right}", sign),
            (f"{left} ? {right}  (<, > or =)", sign),
            (f"is {left} greater than {right}", "yes" if a > b else "no"),
            (f"Put these numbers in order from smallest to largest: {written}", ", ".join(row)),
            (f"Order from greatest to least: {written}", ", ".join(reversed(row))),
            (f"Arrange in ascending order: {written}.", ", ".join(row)),
            (f"What is the largest of {written}?", row[-1]),
            (f"Find the smallest number: {written}", row[0]),
        )
    )


def missing_numbers(draw: random.Random) -> Problem:
    """Number sentences with a gap, and a number found from what was done to it."""
    top = draw.choice((12, 50, 100, 1000))
    x, a = draw.randint(1, top), draw.randint(2, top)
    if draw.random() < 0.12:
        x, a = -x, a
    if draw.random() < 0.15 and x > 0:
        y = Fraction(x, 10)
        b = Fraction(a, 10)
    else:
        y, b = Fraction(x), Fraction(a)
    gap = draw.choice(("___", "?", "□", "_", "[ ]", "x", "n", "__"))
    p, q, s, d = plain(y), plain(b), plain(y + b), plain(y - b)
    k = draw.randint(2, 12)
    z = draw.randint(1, 40)
    who = draw.choice(PEOPLE)
    word = shown(draw, k)
    head = draw.choice(
        (
            "",
            "",
            "",
            "Fill in the blank: ",
            "Find the missing number: ",
            "Solve: ",
            "What goes in the gap? ",
        )
    )
    return draw.choice(
        (
            (f"{head}{gap} + {q} = {s}", p),
            (f"{head}{q} + {gap} = {s}", p),
            (f"{head}{gap} - {q} = {d}", p),
            (f"{head}{s} - {gap} = {q}", p),
            (f"{head}{s} = {gap} + {q}", p),
            (f"{head}{k} x {gap if gap != 'x' else '?'} = {k * z}", plain(z)),
            (f"{head}{gap if gap != 'x' else '?'} × {k} = {k * z}", plain(z)),
            (f"{head}{k * z} ÷ {gap} = {k}", plain(z)),
            (f"{head}{gap} ÷ {k} = {z}", plain(k * z)),
            (f"What number plus {q} is {s}?", p),
            (f"What number minus {q} is {d}?", p),
            (f"A number increased by {q} is {s}. Find the number.", p),
            (f"A number decreased by {q} is {d}. What is the number?", p),
            (f"{word} times a number is {k * z}. What is the number?".capitalize(), plain(z)),
            (
                f"If you multiply a number by {k} and add {a}, you get {k * z + a}. What is it?",
                plain(z),
            ),
            (
                f"I think of a number, double it and add {a}. I get {2 * z + a}. Which one?",
                plain(z),
            ),
            (f"{who} thinks of a number. {q} more than it is {s}. Find {who}'s number.", p),
            (f"The sum of two numbers is {s}. One of them is {q}. Find the other.", p),
            (
                f"{q} less than a number is {d}. What is the number?",
                p,
            ),
            (f"The product of {k} and what number is {k * z}?", plain(z)),
            (f"What must be added to {q} to make {s}?", p),
            (f"How much must be taken from {s} to leave {q}?", p),
            (
                f"When a number is divided by {k}, the answer is {z}. Which number is it?",
                plain(k * z),
            ),
            (f"Half of a number is {z}. What's the number?", plain(2 * z)),
            (f"find the value of n: n + {q} = {s}", p),
            (f"Solve for x: x + {q} = {s}", p),
            (f"if {k}n = {k * z}, what is n", plain(z)),
            (f"Which number makes this true? {q} + {gap} = {s}", p),
            (f"{who} had to fill in {q} + __ = {s}. What is the missing number?", p),
            (
                f"The sum of two consecutive numbers is {2 * x + 1}. What are they?",
                f"{x} and {x + 1}",
            ),
        )
    )
