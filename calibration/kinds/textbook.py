"""Rupees, kilograms, litres: the manner of textbooks."""

from __future__ import annotations

import random
from fractions import Fraction

from calibration.kinds.wording import (
    Problem,
    decimal,
    plain,
    spread,
    told,
)
from calibration.kinds.words import BY_VOLUME, BY_WEIGHT, PEOPLE


def textbook(draw: random.Random) -> Problem:
    """Rupees, kilograms, litres and metres, in the manner of textbooks."""
    who, seller = (
        draw.choice(PEOPLE),
        draw.choice(("shopkeeper", "milkman", "farmer", "trader", "fruit seller", "tailor")),
    )
    food, liquid = draw.choice(BY_WEIGHT), draw.choice(BY_VOLUME)
    rupees = draw.choice(("Rs. {}", "Rs {}", "₹{}", "{} rupees", "Rs. {}/-"))
    a, n = spread(draw, 5, 900), draw.randint(2, 60)
    kg, more = decimal(draw, 1, 60, draw.choice((0, 1, 2))), decimal(draw, 1, 20, 1)
    day = draw.randint(2, 30)
    left = kg + more
    cost, higher = rupees.format(f"{a:,}"), rupees.format(f"{a + n:,}")
    grams = 50 * draw.randint(1, 19)
    return told(
        draw,
        (
            [f"The cost of 1 kg of {food} is {cost}."],
            f"What is the cost of {n} kg of {food}",
            f"the cost of {n} kg of {food}",
            a * n,
        ),
        (
            [f"A {seller} had {plain(left)} kg of {food}.", f"He sold {plain(kg)} kg of it."],
            "What quantity is left",
            f"the quantity of {food} left",
            more,
        ),
        (
            [f"A {seller} sells {plain(kg)} litres of {liquid} in a day."],
            f"How many litres will he sell in {day} days",
            f"the litres sold in {day} days",
            kg * day,
        ),
        (
            [f"{n} metres of cloth cost {rupees.format(f'{a * n:,}')}."],
            "What is the cost of one metre",
            "the cost of one metre of cloth",
            a,
        ),
        (
            [f"{who} bought {n} kg {grams} g of {food} and {day} kg {grams} g of rice."],
            "What is the total weight in kg",
            "the total weight in kg",
            n + day + Fraction(2 * grams, 1000),
        ),
        (
            [f"A {seller} bought goods for {cost} and sold them for {higher}."],
            "What is his profit",
            "his profit",
            n,
        ),
        (
            [f"A {seller} buys an article at {higher} and sells it at {cost}."],
            "What is his loss",
            "the loss",
            n,
        ),
        (
            [
                f"The monthly salary of {who}'s father is {rupees.format(f'{100 * a:,}')}.",
                f"He spends {rupees.format(f'{60 * a:,}')}.",
            ],
            f"How much does he save in {day} months",
            f"his savings in {day} months",
            40 * a * day,
        ),
        (
            [
                f"A vessel contains {plain(left)} litres of {liquid}.",
                f"{plain(more)} litres are taken out.",
            ],
            "How much remains in the vessel",
            "the quantity that remains",
            kg,
        ),
        (
            [f"One bag of {food} weighs {plain(kg)} kg."],
            f"What is the weight of {n} such bags",
            f"the weight of {n} such bags",
            kg * n,
        ),
    )
