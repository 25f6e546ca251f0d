"""Distance, speed and time; work at a steady rate."""

from __future__ import annotations

import random
from fractions import Fraction

from calibration.kinds.wording import (
    Problem,
    plain,
    shown,
    spread,
    told,
)
from calibration.kinds.words import ADULTS, CITIES, PEOPLE, THINGS


def speed(draw: random.Random) -> Problem:
    """Distance, speed and time."""
    who, friend = draw.sample(PEOPLE, 2)
    here, there = draw.sample(CITIES, 2)
    vehicle = draw.choice(("car", "train", "bus", "truck", "motorbike", "plane", "ship", "van"))
    v, t = draw.choice((spread(draw, 3, 120), 5 * draw.randint(2, 180))), draw.randint(1, 12)
    unit = draw.choice(("km", "km", "miles"))
    half = Fraction(2 * t + 1, 2)
    pace, w = draw.randint(2, 20), draw.randint(2, 60)
    hours = "1 hour" if t == 1 else f"{shown(draw, t)} hours"
    return told(
        draw,
        (
            [f"A {vehicle} travels {v} {unit} an hour."],
            f"How far does it go in {hours}",
            f"the distance after {hours}",
            v * t,
        ),
        (
            [f"A {vehicle} goes {v * t} {unit} in {hours}."],
            "What is its average speed",
            f"its speed in {unit} per hour",
            v,
        ),
        (
            [
                f"{here} and {there} are {v * t} {unit} apart.",
                f"A {vehicle} travels at {v} {unit} per hour.",
            ],
            "How many hours does the trip take",
            "the time of the trip in hours",
            t,
        ),
        (
            [f"{who} walks {pace} metres every second."],
            f"How many metres does {who} walk in {w} seconds",
            f"the distance in {w} seconds",
            pace * w,
        ),
        (
            [f"{who} cycles at {pace} km/h for {plain(half)} hours."],
            "How many kilometres is that",
            "the distance",
            pace * half,
        ),
        (
            [
                f"Two {vehicle}s leave the same place in opposite directions.",
                f"One goes {v} {unit} per hour and the other {pace}.",
            ],
            f"How far apart are they after {hours}",
            f"the distance between them after {hours}",
            (v + pace) * t,
        ),
        (
            [f"{who} runs {w * pace} m in {w} seconds and {friend} runs {pace + 1} m each second."],
            "Who is faster",
            "the faster runner",
            friend,
        ),
        (
            [f"A {vehicle} travels {v} {unit} in the first hour and {w} in the second."],
            "What is the average speed of the two hours",
            "the average speed",
            Fraction(v + w, 2),
        ),
        (
            [f"It takes {who} {w} minutes to walk {w * 60} metres."],
            f"How many metres does {who} walk in one minute",
            "the metres walked in a minute",
            60,
        ),
    )


def work(draw: random.Random) -> Problem:
    """Machines and people at a steady rate."""
    who, adult = draw.choice(PEOPLE), draw.choice(ADULTS)
    thing = draw.choice(THINGS)
    rate, t, n = spread(draw, 2, 200), draw.randint(2, 12), draw.randint(2, 10)
    a, b = draw.choice(((3, 6), (2, 2), (4, 12), (6, 12), (10, 15), (20, 30), (4, 4), (12, 24)))
    return told(
        draw,
        (
            [f"A machine makes {rate} {thing} an hour."],
            f"How many {thing} does it make in {t} hours",
            f"how many {thing} it makes in {t} hours",
            rate * t,
        ),
        (
            [f"{n} workers pack {n * rate} {thing} in one day."],
            f"How many {thing} does one worker pack in {t} days",
            f"how many {thing} one worker packs in {t} days",
            rate * t,
        ),
        (
            [f"{who} needs {a} hours to paint a fence.", f"{adult} needs {b} hours for it."],
            "How long do they need together",
            "the hours they need together",
            Fraction(a * b, a + b),
        ),
        (
            [f"{n} people can do a job in {t} days."],
            "How many days does one person need",
            "the days one person would need",
            n * t,
        ),
        (
            [f"One tap fills a pool in {a} hours and another in {b} hours."],
            "How many hours does it take with both taps open",
            "the time with both taps open",
            Fraction(a * b, a + b),
        ),
        (
            [f"A printer prints {rate} pages per minute."],
            f"How many minutes does it need for {rate * t} pages",
            f"the minutes for {rate * t} pages",
            t,
        ),
        (
            [f"{who} types {rate} words in {n} minutes."],
            f"How many words does {who} type in {n * t} minutes at this rate",
            f"the words typed in {n * t} minutes",
            rate * t,
        ),
        (
            [f"{adult} prepares {rate} {thing} before lunch and {n} times as many later."],
            f"How many {thing} is that in a day",
            f"the number of {thing} in a day",
            rate * (1 + n),
        ),
    )
