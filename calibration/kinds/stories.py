"""Stories of three to six sentences and several steps."""

from __future__ import annotations

import random
from fractions import Fraction

from calibration.kinds.wording import Money, Problem, plain, shown, spread, story
from calibration.kinds.words import ADULTS, CONTAINERS, GOODS, PEOPLE, PLACES, THINGS

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_GAINS = (
    "{who} finds {n} more.",
    "{friend} gives {who} {n} {thing}.",
    "Then {who} buys another {n}.",
    "{who} gets {n} as a present.",
    "The next day {n} more arrive.",
    "{who} wins {n} {thing} in a game.",
    "{adult} adds {n} {thing}.",
    "Later {n} more are delivered.",
)
_LOSSES = (
    "{who} loses {n} of them.",
    "{who} gives {n} to {friend}.",
    "{n} of the {thing} break or go bad.",
    "{who} sells {n} at the {place}.",
    "{friend} takes {n} {thing} home.",
    "{n} are given away at the {place}.",
    "{adult} borrows {n} {thing}.",
)
_FILLERS = (
    "It is a sunny {day}.",
    "{who} is in grade {grade}.",
    "{friend} is {who}'s best friend.",
    "The {place} is near {who}'s home.",
    "{who} likes {thing} very much.",
    "The whole family is there.",
    "It all happens on a {day} afternoon.",
)


def keeping_count(draw: random.Random) -> Problem:
    """Something grows and shrinks from sentence to sentence."""
    who, friend = draw.sample(PEOPLE, 2)
    thing, boxes = draw.choice(THINGS), draw.choice(CONTAINERS)
    words = {
        "who": who,
        "friend": friend,
        "thing": thing,
        "place": draw.choice(PLACES),
        "adult": draw.choice(ADULTS),
        "day": draw.choice(_DAYS),
        "grade": draw.randint(1, 8),
    }
    top = draw.choice((20, 100, 1000, 20_000))
    a, b = draw.randint(2, 12), spread(draw, 2, top)
    total = b
    facts = [f"{who} has {shown(draw, b)} {thing}."]
    if draw.random() < 0.4:
        total = a * b
        facts = [f"{who} has {shown(draw, a)} {boxes} with {shown(draw, b)} {thing} in each."]
    for _ in range(draw.randint(2, 4)):
        form = draw.random()
        if form < 0.4:
            n = spread(draw, 2, top)
            total += n
            facts.append(draw.choice(_GAINS).format(n=shown(draw, n), **words))
        elif form < 0.8 and total > 3:
            n = spread(draw, 2, total - 1)
            total -= n
            facts.append(draw.choice(_LOSSES).format(n=shown(draw, n), **words))
        elif total % 2 == 0 and total > 2:
            total //= 2
            facts.append(f"Then {who} gives half of all the {thing} to {friend}.")
        else:
            total *= 2
            facts.append(f"After that {who} doubles the number of {thing}.")
    if draw.random() < 0.35:
        facts.insert(draw.randint(0, len(facts) - 1), draw.choice(_FILLERS).format(**words))
    asked = (
        (f"How many {thing} does {who} have now", f"how many {thing} {who} has now"),
        (f"How many {thing} does {who} have at the end", f"the number of {thing} at the end"),
        (f"How many {thing} are there in the end", f"how many {thing} there are in the end"),
    )
    return story(draw, facts, *draw.choice(asked)), str(total)


def plans(draw: random.Random) -> Problem:
    """Days of saving, selling, travelling or cooking, added up."""
    who, friend = draw.sample(PEOPLE, 2)
    money, place, thing = Money(draw), draw.choice(PLACES), draw.choice(THINGS)
    (good, goods), (_, others) = draw.sample(GOODS, 2)
    day, next_day, third = draw.sample(_DAYS, 3)
    a, b, c = (spread(draw, 2, 200) for _ in range(3))
    k, n = draw.randint(2, 6), draw.randint(2, 12)
    km, price = spread(draw, 2, 80), spread(draw, 1, 40)
    boys, girls = draw.randint(5, 30), draw.randint(5, 30)
    number = shown(draw, k)
    cases: tuple[tuple[list[str], str, str, int | Fraction], ...] = (
        (
            [
                f"On {day} {who} sold {a} {thing}.",
                f"On {next_day} {who} sold {b} more than on {day}.",
                f"On {third} {who} sold {number} times as many as on {day}.",
            ],
            f"How many {thing} did {who} sell on the three days",
            "the number sold on the three days",
            2 * a + b + k * a,
        ),
        (
            [
                f"{who} wants to buy {good} for {money(a + b + n)}.",
                f"{who} has already saved {money(a)}.",
                f"{who}'s aunt gives {who} {money(b)}.",
            ],
            "How much is still missing",
            "the amount that is still missing",
            n,
        ),
        (
            [
                f"A class of {boys} boys and {girls} girls goes to the {place}.",
                f"A ticket costs {money(price)}.",
                f"The bus costs {money(c)} for the whole class.",
            ],
            "How much does the trip cost",
            "the cost of the trip",
            (boys + girls) * price + c,
        ),
        (
            [
                f"{who} buys {n} {goods} at {money(price)} each.",
                f"{friend} buys {k} {others} at {money(km)} each.",
                "They pay together.",
                f"They hand over {money(n * price + k * km + a)}.",
            ],
            "How much change do they get",
            "their change",
            a,
        ),
        (
            [
                f"{who} lives {km} km from the {place}.",
                f"{who} goes there and back {number} times a week.",
                f"{friend} lives {n} km farther away and goes once a week.",
            ],
            "How many km do the two travel in a week",
            "the km that both travel in a week",
            2 * km * k + 2 * (km + n),
        ),
        (
            [
                f"A baker makes {a * k} rolls in the morning.",
                f"They go into bags of {k}.",
                f"Every bag is sold for {money(price)}.",
                f"The flour for them cost {money(n)}.",
            ],
            "How much does the baker earn when all are sold and the flour is paid",
            "what the baker earns after paying for the flour",
            a * price - n,
        ),
        (
            [
                f"There are {n} rows of {km} seats in the hall.",
                f"All seats are taken, and {boys} people stand.",
                f"Everybody paid {money(price)}.",
            ],
            "How much money was taken",
            "the money taken",
            (n * km + boys) * price,
        ),
        (
            [
                f"{who} reads {n} pages on {day}.",
                f"On {next_day} it is twice as many.",
                f"The book has {3 * n + a} pages.",
                f"{who} wants to finish it on {third}.",
            ],
            f"How many pages does {who} have to read on {third}",
            f"the pages for {third}",
            a,
        ),
        (
            [
                f"A farmer has {a + 6} hens.",
                f"Each hen lays {k} eggs a week.",
                f"The family eats {n} eggs a week.",
                "The other eggs are sold in boxes of six.",
            ],
            "How many full boxes are sold in a week",
            "the number of full boxes",
            ((a + 6) * k - n) // 6,
        ),
        (
            [
                f"{who} earns {money(price)} an hour.",
                f"Last week {who} worked {n} hours on {day} and {k} hours on {next_day}.",
                f"{who} gave half of the money to {friend}.",
            ],
            f"How much did {who} keep",
            f"what {who} kept",
            Fraction(price * (n + k), 2),
        ),
        (
            [
                f"A box has {boys + 10} chocolates.",
                f"{who} opens {number} boxes.",
                f"{girls} friends come and each of them eats one.",
            ],
            "How many chocolates are left",
            "the chocolates that are left",
            (boys + 10) * k - girls,
        ),
    )
    facts, question, find, answer = draw.choice(cases)
    return story(draw, facts, question, find), plain(answer)
