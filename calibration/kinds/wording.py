"""How problems are said: numbers as text, sentences in several orders, a pupil's way of asking."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

from calibration.kinds.words import CURRENCIES, PEOPLE

Problem = tuple[str, str]
"""A question and its answer."""
Kind = Callable[[random.Random], Problem]
Number = int | Fraction

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()

_COMMAS_FROM = 10_000
_FIND = (
    "Find",
    "Find",
    "Calculate",
    "Work out",
    "Determine",
    "Compute",
    "Tell me",
    "Please find",
    "Figure out",
)
_BEFORE = (
    "Question: ",
    "Q: ",
    "Problem: ",
    "Solve: ",
    "Solve this: ",
    "Please help: ",
    "pls help me with this one. ",
    "Can you help me with my homework? ",
    "I'm stuck on this. ",
    "Hi! ",
    "Hello, ",
    "My daughter got this problem at school: ",
    "Can you solve this? ",
    "Answer this: ",
    "Here's my question. ",
    "Try this one: ",
)
_AFTER = (
    " Show your working.",
    " Explain your answer.",
    " Please explain step by step.",
    " Thanks!",
    " Show the steps.",
    " Give only the number.",
    " Write the answer.",
    " I don't know how to start.",
    " Thank you.",
    " Let's think step by step.",
)


def spread(draw: random.Random, low: int, high: int) -> int:
    """A whole number from `low` to `high`, small ones more often: even in its logarithm."""
    return min(high, int(math.exp(draw.uniform(math.log(low), math.log(high + 1)))))


def decimal(draw: random.Random, low: int, high: int, places: int) -> Fraction:
    """A number with up to `places` decimals."""
    return Fraction(draw.randint(low * 10**places, high * 10**places), 10**places)


def plain(value: Number) -> str:
    """A number as its shortest text: whole, decimal if it ends soon, else a fraction."""
    exact = Fraction(value)
    if exact.denominator == 1:
        return str(exact.numerator)
    for places in range(1, 16):
        if (exact * 10**places).denominator == 1:
            sign, digits = ("-" if exact < 0 else ""), str(abs(int(exact * 10**places)))
            digits = digits.rjust(places + 1, "0")
            return f"{sign}{digits[:-places]}.{digits[-places:]}"
    return f"{exact.numerator}/{exact.denominator}"


def shown(draw: random.Random, value: Number) -> str:
    """A number as a problem may write it: in digits, with commas, a small one in words."""
    if isinstance(value, int) and 0 <= value < len(NUMBER_WORDS) and draw.random() < 0.25:
        return NUMBER_WORDS[value]
    if isinstance(value, int) and value >= 1000:
        return (
            f"{value:,}" if draw.random() < (0.7 if value >= _COMMAS_FROM else 0.4) else f"{value}"
        )
    return plain(value)


def rounded(value: Number, places: int) -> Fraction:
    """Rounded half up, as at school."""
    unit = Fraction(10) ** -places
    return math.floor(value / unit + Fraction(1, 2)) * unit


class Money:
    """One currency, and how it writes amounts."""

    def __init__(self, draw: random.Random) -> None:
        self.before, self.after = draw.choice(CURRENCIES)

    def __call__(self, value: Number) -> str:
        whole = Fraction(value).denominator == 1
        digits = f"{int(value):,}" if whole and value >= _COMMAS_FROM else plain(value)
        if not whole and len(digits.partition(".")[2]) == 1:
            digits += "0"
        return f"{self.before}{digits}{self.after}"


def price(draw: random.Random, low: int, high: int) -> Fraction:
    """An amount, half of the time whole, else with cents."""
    if draw.random() < 0.5:
        return Fraction(spread(draw, low, high))
    return Fraction(spread(draw, low, high)) + Fraction(
        draw.choice((25, 50, 75, 99, 20, 5, 40)), 100
    )


def article(noun: str) -> str:
    """The noun with a or an."""
    return (
        f"an {noun}" if noun[0] in "aeiou" and not noun.startswith(("uku", "uni")) else f"a {noun}"
    )


def plural(noun: str) -> str:
    """More than one of them."""
    irregular = {"scarf": "scarves", "knife": "knives", "yo-yo": "yo-yos", "piano": "pianos"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "x", "ch", "sh", "potato", "tomato", "mango")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def lower_first(text: str) -> str:
    """Without its capital, unless a name or "I" starts it."""
    first = text.split(maxsplit=1)[0].removesuffix("'s")
    keep = first in PEOPLE or first in (
        "I",
        "I'm",
        "Mr.",
        "Mrs.",
        "Ms.",
        "Aunt",
        "Uncle",
        "Grandma",
        "Grandpa",
    )
    return (
        text
        if keep or not first[0].isupper() or (first.isupper() and len(first) > 1)
        else text[0].lower() + text[1:]
    )


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def story(draw: random.Random, facts: Sequence[str], question: str, find: str) -> str:
    """Sentences and what is asked of them, in one of several orders.

    `question` is "How many are left", `find` the same as "the number that is left".
    """
    facts = [upper_first(fact) for fact in facts]
    facts = [fact[:-1] if fact.endswith("..") else fact for fact in facts]
    told = " ".join(facts)
    form = draw.random()
    if form < 0.48:
        return f"{told} {question}?"
    if form < 0.60:
        return f"{question}? {told}"
    if form < 0.78:
        return f"{told} {draw.choice(_FIND)} {find}."
    if form < 0.84:
        return f"{draw.choice(_FIND)} {find}. {told}"
    clauses = " and ".join(lower_first(fact.removesuffix(".")) for fact in facts)
    if len(facts) > 2 or ". " in clauses or "\n" in clauses:
        return f"{told} {draw.choice(('So', 'Now,', 'Then'))} {lower_first(question)}?"
    if form < 0.93:
        return f"If {clauses}, {lower_first(question)}?"
    return f"{draw.choice(_FIND)} {find} if {clauses}."


Case = tuple[Sequence[str], str, str, Number | str]
"""Facts, a question, the same as something to find, and the answer."""


def told(draw: random.Random, *cases: Case) -> Problem:
    """One of the cases as a story."""
    facts, question, find, answer = draw.choice(cases)
    text = story(draw, facts, question, find)
    return text, answer if isinstance(answer, str) else plain(answer)


def as_pupils_ask(kind: Kind) -> Kind:
    """The kind with a sixth of its questions as pupils type them: greetings, no capitals."""

    def asked(draw: random.Random) -> Problem:
        question, answer = kind(draw)
        question = question.strip()
        form = draw.random()
        if form < 0.06:
            question = draw.choice(_BEFORE) + question
        elif form < 0.10:
            question += draw.choice(_AFTER) if question[-1] in ".?!" else ""
        elif form < 0.14:
            question = question.lower().rstrip(".?")
        elif form < 0.16:
            question = f"{draw.randint(1, 20)}{draw.choice(')).:')} {question}"
        elif form < 0.17:
            question = question.replace(". ", ".\n")
        return question.strip(), answer

    return asked
