"""Sharing with a remainder, comparing, and large numbers."""

from __future__ import annotations

import random

from calibration.kinds.wording import Problem, shown, spread, told
from calibration.kinds.words import CITIES, CONTAINER, CONTAINERS, PEOPLE, PLACES, THINGS


def sharing(draw: random.Random) -> Problem:
    """Equal shares, and what is left over."""
    who, thing = draw.choice(PEOPLE), draw.choice(THINGS)
    at = draw.randrange(len(CONTAINER))
    one, many = CONTAINER[at], CONTAINERS[at]
    n, each = draw.randint(2, 30), spread(draw, 2, 80)
    rest = draw.randrange(n)
    total, groups = shown(draw, n * each + rest), shown(draw, n)
    seats = draw.randint(3, 60)
    vehicle = draw.choice(("boat", "van", "bus", "minibus", "cable car"))
    children = seats * draw.randint(1, 12) + draw.randint(1, seats - 1)
    return told(
        draw,
        (
            [f"{who} shares {total} {thing} equally among {groups} children."],
            f"How many {thing} are left over",
            "the remainder",
            rest,
        ),
        (
            [f"{total} {thing} are shared by {groups} friends, as many as possible for each."],
            "How many does each get and how many are left",
            "each share and the remainder",
            f"{each} each, {rest} left",
        ),
        (
            [f"{who} packs {total} {thing} into {many} of {n}."],
            f"How many full {many} are there",
            f"the number of full {many}",
            each,
        ),
        (
            [
                f"A {vehicle} takes {seats} people.",
                f"{children} people want to go.",
            ],
            "How many trips are needed",
            "the number of trips needed",
            -(-children // seats),
        ),
        (
            [f"{who} has {total} {thing} and puts {groups} in every {one}."],
            f"How many {thing} do not fit in a full {one}",
            f"how many {thing} are left over",
            rest,
        ),
        (
            [f"{n * each} {thing} are put in {groups} equal rows."],
            "How many are in each row",
            "the number in each row",
            each,
        ),
        (
            [f"Each child gets {n} {thing}.", f"There are {total} {thing}."],
            "How many children can get theirs",
            "how many children can get theirs",
            each,
        ),
        (
            [f"{who} cuts a ribbon of {total} cm into pieces of {n} cm."],
            "How many whole pieces are there, and how much is left",
            "the number of pieces and what is left",
            f"{each} pieces, {rest} cm left",
        ),
        (
            [f"{who} needs {total} {thing}.", f"They come in packs of {n}."],
            f"How many packs does {who} have to buy",
            "the number of packs to buy",
            each + (rest > 0),
        ),
    )


def comparing(draw: random.Random) -> Problem:
    """How many more, how many fewer, how many times."""
    who, friend = draw.sample(PEOPLE, 2)
    thing, other = draw.sample(THINGS, 2)
    place, here = draw.choice(PLACES), draw.choice(CITIES)
    low = spread(draw, 2, 900)
    more = spread(draw, 1, 500)
    k = draw.randint(2, 9)
    a, b, d = shown(draw, low + more), shown(draw, low), shown(draw, more)
    return told(
        draw,
        (
            [f"{who} has {a} {thing}.", f"{friend} has {b} {thing}."],
            f"How many more {thing} does {who} have than {friend}",
            f"how many more {thing} {who} has",
            more,
        ),
        (
            [f"There are {a} {thing} and {b} {other} at the {place}."],
            f"How many fewer {other} than {thing} are there",
            f"the difference between {thing} and {other}",
            more,
        ),
        (
            [f"{who} has {b} {thing}.", f"{friend} has {d} more than {who}."],
            f"How many {thing} does {friend} have",
            f"the number of {friend}'s {thing}",
            low + more,
        ),
        (
            [f"{who} has {a} {thing}, which is {d} more than {friend} has."],
            f"How many {thing} does {friend} have",
            f"how many {thing} {friend} has",
            low,
        ),
        (
            [f"{who} collected {k} times as many {thing} as {friend}.", f"{friend} collected {b}."],
            f"How many {thing} do they have together",
            "how many they have together",
            low * (k + 1),
        ),
        (
            [f"{who} has {low * k} {thing} and {friend} has {b}."],
            f"How many times as many does {who} have",
            f"how many times as many {who} has",
            k,
        ),
        (
            [f"A tree in {here} is {a} cm tall.", f"A bush is {d} cm shorter."],
            "How tall is the bush",
            "the height of the bush in cm",
            low,
        ),
        (
            [f"{who} jumped {a} cm and {friend} {b} cm."],
            "Who jumped further, and by how much",
            "the difference of the two jumps",
            f"{who}, by {more} cm",
        ),
        (
            [f"The {place} had {b} visitors on Saturday and {a} on Sunday."],
            "How many more came on Sunday",
            "how many more came on Sunday",
            more,
        ),
        (
            [f"It is {k + 5} degrees in {here} by day and {-k} degrees at night."],
            "By how many degrees does the temperature fall",
            "the difference in temperature",
            2 * k + 5,
        ),
    )


def large_numbers(draw: random.Random) -> Problem:
    """Populations, factories and budgets: thousands to millions."""
    here, there = draw.sample(CITIES, 2)
    who, thing, place = draw.choice(PEOPLE), draw.choice(THINGS), draw.choice(PLACES)
    a, b = spread(draw, 10_000, 9_000_000), spread(draw, 1000, 900_000)
    k, days = draw.randint(2, 12), draw.choice((7, 30, 100, 365))
    high, low = max(a, b) + 1, min(a, b)
    x, y = shown(draw, high), shown(draw, low)
    m = draw.randint(11, 95)
    return told(
        draw,
        (
            [f"{here} has {x} inhabitants and {there} has {y}."],
            f"How many more people live in {here}",
            "the difference",
            high - low,
        ),
        (
            [f"A factory made {x} {thing} last year and {y} this year."],
            f"How many {thing} is that in both years",
            "the number made in both years",
            high + low,
        ),
        (
            [f"A factory makes {shown(draw, b)} {thing} a day."],
            f"How many {thing} does it make in {days} days",
            f"the number made in {days} days",
            b * days,
        ),
        (
            [f"The {place} had {x} visitors in {k} years, {y} of them children."],
            "How many were adults",
            "the number of adults",
            high - low,
        ),
        (
            [f"{here} has {m / 10:g} million people.", f"In {there} there are {k} million more."],
            f"How many million people live in {there}",
            f"the population of {there} in millions",
            f"{m / 10 + k:g} million",
        ),
        (
            [
                f"A company in {here} earned ${shown(draw, k * b)}.",
                f"It is split equally among {k} owners.",
            ],
            "How much does each get",
            "the share of each in dollars",
            b,
        ),
        (
            [f"A star is {x} km away and a comet {y} km."],
            "How much farther away is the star",
            "how much farther away the star is",
            high - low,
        ),
        (
            [f"{who} wins {shown(draw, a * 2)} in a game and gives half of it away."],
            f"How much does {who} keep",
            f"what {who} keeps",
            a,
        ),
        (
            [f"A stadium has {shown(draw, b)} seats.", f"It was full for {k} matches."],
            "How many people came to the matches in all",
            "the number of visitors of all matches",
            b * k,
        ),
    )
