"""So much for each: ratio, unit price, average."""

from __future__ import annotations

import random
from fractions import Fraction

from calibration.kinds.wording import (
    Money,
    Problem,
    decimal,
    listed,
    plain,
    price,
    rounded,
    spread,
    told,
)
from calibration.kinds.words import BY_WEIGHT, GOODS, PEOPLE, PLACES, THINGS


def ratio(draw: random.Random) -> Problem:
    """Shares in a ratio, scaling, proportion."""
    who, friend = draw.sample(PEOPLE, 2)
    thing, other = draw.sample(THINGS, 2)
    a, b, k = draw.randint(1, 9), draw.randint(1, 9), spread(draw, 1, 60)
    total, money = (a + b) * k, Money(draw)
    food = draw.choice(BY_WEIGHT)
    return told(
        draw,
        (
            [f"The ratio of {thing} to {other} is {a}:{b}.", f"There are {a * k} {thing}."],
            f"How many {other} are there",
            f"the number of {other}",
            b * k,
        ),
        (
            [f"{who} and {friend} share {money(total)} in the ratio {a}:{b}."],
            f"How much does {who} get",
            f"{who}'s share",
            a * k,
        ),
        (
            [f"{total} {thing} are divided between {who} and {friend} in the ratio {a} to {b}."],
            f"How many {thing} does {friend} receive",
            f"{friend}'s share",
            b * k,
        ),
        (
            [f"In a class there are {a * k} boys and {b * k} girls."],
            "What is the ratio of boys to girls in lowest terms",
            "the ratio of boys to girls in simplest form",
            f"{Fraction(a, b).numerator}:{Fraction(a, b).denominator}",
        ),
        (
            [f"A recipe for {a} people needs {b * a * 10} g of {food}."],
            f"How many grams are needed for {a + k} people",
            f"the grams of {food} for {a + k} people",
            b * 10 * (a + k),
        ),
        (
            [f"{a} {thing} weigh {a * k} grams."],
            f"How much do {b} {thing} weigh",
            f"the weight of {b} {thing} in grams",
            b * k,
        ),
        (
            [f"On a map 1 cm stands for {k} km.", f"Two towns are {a}.5 cm apart on the map."],
            "How far apart are they",
            "the real distance in km",
            Fraction(2 * a + 1, 2) * k,
        ),
        (
            [f"For every {a + 1} {thing} that {who} sells, {friend} sells {b}."],
            f"How many does {friend} sell when {who} sells {(a + 1) * k}",
            f"how many {friend} sells when {who} sells {(a + 1) * k}",
            b * k,
        ),
        (
            [
                f"Paint is mixed from {a} parts of blue and {b} parts of white.",
                f"{who} needs {total} litres.",
            ],
            "How many litres of blue are needed",
            "the litres of blue paint",
            a * k,
        ),
    )


def unit_price(draw: random.Random) -> Problem:
    """The price of one, of many, of a weight; the better buy."""
    who, money, food = draw.choice(PEOPLE), Money(draw), draw.choice(BY_WEIGHT)
    good, goods = draw.choice(GOODS)
    n, m, each = draw.randint(2, 30), draw.randint(2, 30), price(draw, 1, 60)
    weight = decimal(draw, 1, 12, 1)
    cheap = each + Fraction(draw.randint(1, 50), 100)
    return told(
        draw,
        (
            [f"{n} {goods} cost {money(n * each)}."],
            f"How much does {good} cost",
            f"the price of {good}",
            each,
        ),
        (
            [f"{n} {goods} cost {money(n * each)}."],
            f"What do {m} {goods} cost",
            f"the cost of {m} {goods}",
            m * each,
        ),
        (
            [f"One kg of {food} costs {money(each)}.", f"{who} buys {plain(weight)} kg."],
            f"How much does {who} pay",
            "the price",
            rounded(weight * each, 2),
        ),
        (
            [f"{who} paid {money(m * each)} for {m} kg of {food}."],
            "What is the price per kilogram",
            "the price of one kilogram",
            each,
        ),
        (
            [
                f"A pack of {n} {goods} costs {money(n * each)}.",
                f"A pack of {m} costs {money(m * cheap)}.",
            ],
            "Which pack is cheaper for each piece",
            "the better buy",
            f"the pack of {n}",
        ),
        (
            [f"{good} is {money(each)}."],
            f"How many can {who} buy with {money(n * each)}",
            f"how many {who} can buy with {money(n * each)}",
            n,
        ),
        (
            [f"{who} buys {n} {goods} for {money(each)} each."],
            "What is the total cost",
            "the total cost",
            n * each,
        ),
        (
            [f"A bottle of {n * 100} ml costs {money(n * each)}."],
            "What is the price of 100 ml",
            "the price per 100 ml",
            each,
        ),
    )


def averages(draw: random.Random) -> Problem:
    """Mean, median, mode, range, and a missing value from the mean."""
    who = draw.choice(PEOPLE)
    n, top = draw.randint(3, 7), draw.choice((10, 20, 100, 500))
    values = [draw.randint(1, top) for _ in range(n)]
    row = ", ".join(map(str, values))
    mean, ordered = Fraction(sum(values), n), sorted(values)
    middle = Fraction(ordered[(n - 1) // 2] + ordered[n // 2], 2)
    often = draw.choice(values)
    thing, place = draw.choice(THINGS), draw.choice(PLACES)
    return told(
        draw,
        ([f"The numbers are {row}."], "What is their average", "the average", mean),
        (
            [f"{who} scored {row} in {n} tests."],
            f"What is {who}'s average score",
            f"{who}'s mean score",
            mean,
        ),
        (
            [f"Over {n} days the {place} sold {listed([str(v) for v in values])} {thing}."],
            f"How many {thing} is that a day on average",
            "the average per day",
            mean,
        ),
        ([f"Here are some numbers: {row}."], "What is the median", "the median", middle),
        (
            [f"Look at the data {row}, {often}, {often}, {often}."],
            "What is the mode",
            "the mode",
            often,
        ),
        (
            [f"The temperatures were {row} degrees."],
            "What is the range",
            "the range of the temperatures",
            ordered[-1] - ordered[0],
        ),
        (
            [f"The average of {n} numbers is {plain(mean)}."],
            "What is their sum",
            "the sum of the numbers",
            sum(values),
        ),
        (
            [
                f"The mean of {n} numbers is {plain(mean)}.",
                f"All but one of them are {listed([str(v) for v in values[1:]])}.",
            ],
            "What is the missing number",
            "the missing number",
            values[0],
        ),
        (
            [f"{who} ran {row} km on {n} days."],
            f"How many km did {who} run a day on average",
            "the average distance per day",
            mean,
        ),
    )
