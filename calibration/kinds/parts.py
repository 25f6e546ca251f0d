"""Parts of a whole in words: fractions and percent."""

from __future__ import annotations

import random
from fractions import Fraction

from calibration.kinds.wording import Money, Problem, plain, rounded, shown, spread, told
from calibration.kinds.words import BY_WEIGHT, CITIES, PEOPLE, PLACES, THINGS

_FRACTION_WORDS = {
    Fraction(1, 2): "half",
    Fraction(1, 3): "one third",
    Fraction(2, 3): "two thirds",
    Fraction(1, 4): "a quarter",
    Fraction(3, 4): "three quarters",
    Fraction(1, 5): "one fifth",
    Fraction(3, 5): "three fifths",
    Fraction(1, 10): "a tenth",
}


def _share(draw: random.Random) -> tuple[Fraction, str]:
    """A fraction below one, and how it is written."""
    if draw.random() < 0.5:
        value = draw.choice(tuple(_FRACTION_WORDS))
        return value, draw.choice((_FRACTION_WORDS[value], str(value)))
    under = draw.choice((3, 4, 5, 6, 7, 8, 9, 10, 12, 20))
    value = Fraction(draw.randint(1, under - 1), under)
    return value, str(value)


def fractions(draw: random.Random) -> Problem:
    """What a fraction of something is, what is left, and the whole from a part."""
    who, friend = draw.sample(PEOPLE, 2)
    thing, place, food = draw.choice(THINGS), draw.choice(PLACES), draw.choice(BY_WEIGHT)
    part, written = _share(draw)
    n = part.denominator * spread(draw, 1, 60)
    count = shown(draw, n)
    taken = part * n
    other = Fraction(draw.randint(1, 3), draw.choice((4, 5, 6, 8)))
    more = Fraction(draw.randint(1, 5), draw.choice((2, 3, 4, 8)))
    money = Money(draw)
    pieces = draw.choice((6, 8, 10, 12))
    eaten = draw.randint(1, pieces - 2)
    also = draw.randint(1, pieces - eaten - 1)
    return told(
        draw,
        (
            [f"{who} has {count} {thing}.", f"{who} gives {written} of them to {friend}."],
            f"How many {thing} does {friend} get",
            f"the number of {thing} that {friend} gets",
            taken,
        ),
        (
            [f"{who} had {count} {thing}.", f"{who} lost {written} of the {thing}."],
            f"How many {thing} are left",
            f"how many {thing} are left",
            n - taken,
        ),
        (
            [f"There are {count} children at the {place}.", f"{written} of them are girls."],
            "How many boys are there",
            "the number of boys",
            n - taken,
        ),
        (
            [
                f"{written} of the {thing} in a box are red.",
                f"There are {plain(taken)} red {thing}.",
            ],
            f"How many {thing} are in the box",
            f"the number of {thing} in the box",
            n,
        ),
        (
            [f"{who} spent {written} of {money(n)} at the {place}."],
            f"How much money did {who} spend",
            "the amount spent",
            taken,
        ),
        (
            [f"A recipe needs {other} cup of {food}.", f"{who} makes it {count} times."],
            f"How many cups of {food} are needed",
            f"the cups of {food} needed",
            other * n,
        ),
        (
            [f"{who} walked {more} km in the morning.", f"In the evening {who} walked {other} km."],
            f"How far did {who} walk in total",
            "the total distance in km",
            more + other,
        ),
        (
            [
                f"A pizza is cut into {pieces} equal slices.",
                f"{who} eats {eaten} and {friend} eats {also}.",
            ],
            "What fraction of the pizza is left",
            "the fraction that is left",
            Fraction(pieces - eaten - also, pieces),
        ),
        (
            [f"A tank holds {count} litres.", f"It is {written} full."],
            "How many litres of water are in it",
            "how much water is in the tank",
            taken,
        ),
        (
            [f"{who} read {written} of a book of {count} pages."],
            f"How many pages does {who} still have to read",
            "the number of pages still to read",
            n - taken,
        ),
        (
            [f"A ribbon is {count} m long.", f"It is cut into pieces of {other} m."],
            "How many pieces are there, as a number or a fraction",
            "the length of the ribbon divided by that of a piece",
            n / other,
        ),
    )


def percent(draw: random.Random) -> Problem:
    """What percent of something is, and what percent something is."""
    who = draw.choice(PEOPLE)
    thing, place, city = draw.choice(THINGS), draw.choice(PLACES), draw.choice(CITIES)
    if draw.random() < 0.5:
        n, rate = 100 * spread(draw, 1, 300), draw.randint(1, 99)
    else:
        n, rate = 20 * spread(draw, 1, 100), 5 * draw.randint(1, 19)
    count, part = shown(draw, n), Fraction(rate * n, 100)
    right, total = draw.randint(1, 20), draw.choice((20, 25, 40, 50))
    return told(
        draw,
        (
            [f"There are {count} people at the {place}.", f"{rate}% of them are children."],
            "How many of them are children",
            "the number of children",
            part,
        ),
        (
            [f"A school in {city} has {count} pupils.", f"{rate} percent come by bus."],
            "How many pupils do not come by bus",
            "how many do not come by bus",
            n - part,
        ),
        (
            [f"{who} answered {right} of {total} questions correctly."],
            f"What percent of the questions did {who} answer correctly",
            "the score as a percentage",
            f"{plain(rounded(Fraction(100 * right, total), 2))}%",
        ),
        (
            [f"{who} has {count} {thing} and sells {rate}% of them."],
            f"How many {thing} does {who} sell",
            f"the number of {thing} sold",
            part,
        ),
        (
            [f"The population of a town was {count}.", f"It grew by {rate}%."],
            "What is the population now",
            "the new population",
            n + part,
        ),
        (
            [f"{rate}% of a number is {plain(part)}."],
            "What is the number",
            "the number",
            n,
        ),
        (
            [
                f"Last year the {place} had {count} visitors.",
                f"This year there were {rate}% fewer.",
            ],
            "How many visitors came this year",
            "the number of visitors this year",
            n - part,
        ),
        (
            [f"{who} saved {plain(part)} of {count} coins."],
            f"What percentage of the coins did {who} save",
            "the percentage saved",
            f"{rate}%",
        ),
        (
            [f"A phone battery of {count} mAh is at {rate}%."],
            "How many mAh are left",
            "the charge that is left in mAh",
            part,
        ),
    )
