"""Shopping: change, several prices, two prices at once."""

from __future__ import annotations

import random
from fractions import Fraction

from calibration.kinds.wording import (
    Money,
    Problem,
    price,
    shown,
    told,
)
from calibration.kinds.words import BY_WEIGHT, DEAR, GOODS, PEOPLE, PLACES

_NOTES = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def change(draw: random.Random) -> Problem:
    """What is paid, what comes back, what is missing."""
    who, friend = draw.sample(PEOPLE, 2)
    money, place = Money(draw), draw.choice(PLACES)
    (good, goods), (other, _) = draw.sample(GOODS, 2)
    a, b, n = price(draw, 1, 80), price(draw, 1, 80), draw.randint(2, 8)
    total = n * a + b
    note = next((note for note in _NOTES if note >= total), _NOTES[-1])
    item, dear = draw.choice(DEAR), price(draw, 100, 3000)
    saved = Fraction(draw.randint(5, 99))
    number = shown(draw, n)
    return told(
        draw,
        (
            [f"{who} buys {good} for {money(a)} and pays with {money(note)}."],
            f"How much change does {who} get",
            "the change",
            note - a,
        ),
        (
            [f"{good} costs {money(a)} and {other} costs {money(b)}.", f"{who} buys both."],
            f"How much does {who} pay",
            "the total price",
            a + b,
        ),
        (
            [
                f"{who} has {money(note)}.",
                f"{who} buys {number} {goods} at {money(a)} each and {other} for {money(b)}.",
            ],
            "How much money is left",
            "the money that is left",
            note - total,
        ),
        (
            [f"{item} costs {money(dear)}.", f"{who} has saved {money(saved)}."],
            f"How much more does {who} need",
            f"how much {who} still needs",
            dear - saved,
        ),
        (
            [f"At the {place}, {goods} are {money(a)} each."],
            f"How much do {number} of them cost",
            f"the cost of {number} {goods}",
            n * a,
        ),
        (
            [
                f"{who} paid {money(total)} for {number} {goods} and {other}.",
                f"The price of {other} was {money(b)}.",
            ],
            f"How much did {good} cost",
            f"the price of {good}",
            a,
        ),
        (
            [
                f"{who} earns {money(a)} for each of {number} jobs.",
                f"{friend} gives {who} {money(b)}.",
            ],
            f"How much money does {who} have",
            "the whole amount",
            total,
        ),
        (
            [
                f"{goods} for {money(n * a)} are a present from {n} friends.",
                "Each of them pays the same.",
            ],
            "How much does each of them pay",
            "what each of them pays",
            a,
        ),
        (
            [f"{who} gave the cashier {money(note)} and got {money(note - a)} back."],
            f"How much did {who} spend",
            "what was spent",
            a,
        ),
    )


def cents(draw: random.Random) -> Problem:
    """Coins, cents and prices with two decimals."""
    who = draw.choice(PEOPLE)
    coins, worth, sign = draw.choice(
        (
            ("nickels", 5, "$"),
            ("dimes", 10, "$"),
            ("quarters", 25, "$"),
            ("pennies", 1, "£"),
            ("20p coins", 20, "£"),
            ("5p coins", 5, "£"),
            ("50-cent coins", 50, "€"),
            ("10-cent coins", 10, "€"),
        )
    )
    n, m = draw.randint(2, 40), draw.randint(1, 99)
    a, b, c = (Fraction(draw.randint(25, 3000), 100) for _ in range(3))
    value = n * worth
    (good, _), (other, others) = draw.sample(GOODS, 2)
    dot = [f"{float(x):.2f}" for x in (a, b, c)]
    return told(
        draw,
        (
            [f"{who} has {n} {coins}."],
            "How many cents or pence is that",
            "their value in cents or pence",
            value,
        ),
        (
            [f"{who} has {n} {coins} and {m} pennies."],
            f"How much money does {who} have",
            "the value of all the coins",
            f"{sign}{(value + m) / 100:.2f}",
        ),
        (
            [f"{good} costs {sign}{dot[0]}, {other} {sign}{dot[1]} and a drink {sign}{dot[2]}."],
            "How much is it altogether",
            "the total",
            a + b + c,
        ),
        (
            [f"{who} had {sign}{dot[0]} and got {sign}{dot[1]}."],
            f"How much does {who} have now",
            f"how much {who} has now",
            a + b,
        ),
        (
            [f"One of the {others} costs {sign}{dot[0]}."],
            f"How much do {n} cost",
            f"the price of {n}",
            n * a,
        ),
        (
            [f"{who} needs {sign}{value / 100:.2f} in {coins}."],
            f"How many coins does {who} need",
            "the number of coins",
            n,
        ),
        (
            [f"A pencil is {m} cents and an eraser {worth} cents."],
            f"How much are {n} pencils and one eraser",
            f"the price of {n} pencils and one eraser in cents",
            n * m + worth,
        ),
    )


def two_prices(draw: random.Random) -> Problem:
    """Two sorts at two prices, and simple mixtures."""
    who, money, place = draw.choice(PEOPLE), Money(draw), draw.choice(PLACES)
    a, b = sorted((draw.randint(2, 60), draw.randint(2, 60)))
    b += b == a
    m, n = draw.randint(2, 60), draw.randint(2, 60)
    food, other = draw.sample(BY_WEIGHT, 2)
    total = m * a + n * b
    dearer, cheaper = money(b), money(a)
    return told(
        draw,
        (
            [
                f"Tickets to the {place} cost {dearer} for adults and {cheaper} for children.",
                f"{n} adults and {m} children go.",
            ],
            "How much do they pay in all",
            "the price of all tickets",
            total,
        ),
        (
            [
                f"The {place} sold {m + n} tickets for {money(total)}.",
                f"A child pays {cheaper} and an adult {dearer}.",
            ],
            "How many adults came",
            "the number of adults",
            n,
        ),
        (
            [
                f"{who} mixes {m} kg of {food} and {n} kg of {other}.",
                f"The {food} costs {cheaper} a kg and the {other} {dearer}.",
            ],
            "What does a kilogram of the mixture cost",
            "the price of a kilogram of the mixture",
            Fraction(total, m + n),
        ),
        (
            [
                f"{who} buys {m} kg of {food} for {cheaper} a kg.",
                f"{n} kg of {other} for {dearer} a kg are added to the bill.",
            ],
            "What is the total bill",
            "the total bill",
            total,
        ),
        (
            [
                f"{who} sells small cakes at {cheaper} and large ones at {dearer}.",
                f"Today {who} sold {m} small and {n} large ones.",
            ],
            f"How much money did {who} take",
            "the day's takings",
            total,
        ),
        (
            [f"A pen costs {cheaper} and a book {dearer}."],
            f"How much more do {n} books cost than {n} pens",
            f"the difference between {n} books and {n} pens",
            n * (b - a),
        ),
        (
            [
                f"{m + n} coins are worth {m + 2 * n} dollars.",
                "They are one-dollar and two-dollar coins.",
            ],
            "How many two-dollar coins are there",
            "the number of two-dollar coins",
            n,
        ),
        (
            [f"A farm has {m + n} chickens and cows with {2 * m + 4 * n} legs in all."],
            "How many cows are there",
            "the number of cows",
            n,
        ),
    )
