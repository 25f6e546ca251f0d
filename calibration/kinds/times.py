"""Clock, calendar and ages."""

from __future__ import annotations

import random
from datetime import date, timedelta

from calibration.kinds.wording import Problem, shown, told
from calibration.kinds.words import ADULTS, CITIES, PEOPLE, PLACES

_EVENTS = (
    "A film",
    "The lesson",
    "A football match",
    "The concert",
    "A bus ride",
    "The meeting",
    "A swimming lesson",
    "The party",
    "A flight",
    "The show",
    "The test",
    "A train journey",
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY_MINUTES = 24 * 60


def _clock(minutes: int, half_days: bool) -> str:
    hour, minute = divmod(minutes % _DAY_MINUTES, 60)
    if half_days:
        return f"{(hour + 11) % 12 + 1}:{minute:02} {'a.m.' if hour < 12 else 'p.m.'}"
    return f"{hour}:{minute:02}"


def _lasting(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    parts = [f"{hours} hour{'s' * (hours > 1)}"] * (hours > 0)
    parts += [f"{rest} minute{'s' * (rest > 1)}"] * (rest > 0)
    return " and ".join(parts)


def durations(draw: random.Random) -> Problem:
    """When something ends, when it began, how long it takes."""
    who = draw.choice(PEOPLE)
    event, place = draw.choice(_EVENTS), draw.choice(PLACES)
    here, there = draw.sample(CITIES, 2)
    half_days = draw.random() < 0.4
    step = draw.choice((1, 5, 5, 15))
    start = step * draw.randint(360 // step, 1200 // step)
    length = step * draw.randint(10 // step + 1, 230 // step)
    pause = 5 * draw.randint(1, 9)
    end = start + length
    begins, ends = _clock(start, half_days), _clock(end, half_days)
    lasts = draw.choice((f"{length} minutes", _lasting(length)))
    late = _clock(end + pause, half_days)
    early = _clock(start - pause, half_days)
    n = draw.randint(2, 7)
    return told(
        draw,
        (
            [f"{event} starts at {begins} and lasts {lasts}."],
            "When does it end",
            "the time when it ends",
            ends,
        ),
        (
            [f"{event} begins at {begins} and ends at {ends}."],
            "How long is it",
            "how long it lasts",
            _lasting(length),
        ),
        (
            [f"{event} ended at {ends}.", f"It had lasted {lasts}."],
            "At what time did it start",
            "the starting time",
            begins,
        ),
        (
            [f"{who} leaves {here} at {begins} and reaches {there} {lasts} later."],
            f"What time does {who} arrive",
            "the time of arrival",
            ends,
        ),
        (
            [f"A train should arrive at {ends}.", f"It is {pause} minutes late."],
            "When does it arrive",
            "the time when it arrives",
            late,
        ),
        (
            [f"{who} has to be at the {place} at {begins}.", f"The way takes {pause} minutes."],
            f"When does {who} have to leave at the latest",
            f"the time when {who} has to leave",
            early,
        ),
        (
            [f"{who} practises {length} minutes a day."],
            f"How many minutes is that in {n} days",
            f"the minutes in {n} days",
            length * n,
        ),
        (
            [
                f"{event} starts at {begins}.",
                f"The first part takes {lasts}, then there is a break of {pause} minutes.",
            ],
            "When does the second part start",
            "the time when the second part starts",
            late,
        ),
        (
            [f"It is {begins} now."],
            f"What time will it be in {lasts}",
            f"the time {lasts} from now",
            ends,
        ),
        (
            [f"{who} went to the {place} at {begins} and came home at {ends}."],
            f"How many minutes was {who} away",
            "the time away in minutes",
            length,
        ),
        (
            [f"A bus comes every {pause} minutes.", f"The last one came at {begins}."],
            "When does the next one come",
            "when the next bus comes",
            _clock(start + pause, half_days),
        ),
    )


def calendar(draw: random.Random) -> Problem:
    """Days of the week, dates, weeks and months."""
    who, place = draw.choice(PEOPLE), draw.choice(PLACES)
    n, day = draw.randint(2, 60), draw.randrange(7)
    first = date(draw.randint(2001, 2029), 1, 1) + timedelta(draw.randrange(365))
    last = first + timedelta(n)
    started, ended = (f"{d.day} {d:%B}" for d in (first, last))
    weeks, rest = draw.randint(2, 20), draw.randint(1, 6)
    each = draw.randint(1, 12)
    return told(
        draw,
        (
            [f"Today is {_DAYS[day]}."],
            f"What day will it be in {n} days",
            f"the day of the week {n} days from now",
            _DAYS[(day + n) % 7],
        ),
        (
            [f"It is {_DAYS[day]}."],
            f"What day was it {n} days ago",
            f"the day of the week {n} days ago",
            _DAYS[(day - n) % 7],
        ),
        (
            [
                f"{who}'s holiday starts on {started} {first.year}.",
                f"{who} comes home {n} days later.",
            ],
            f"On what date does {who} come home",
            "the date of coming home",
            ended,
        ),
        (
            [f"The {place} closes on {started} {first.year} and opens on {ended} {last.year}."],
            "How many days are there between the two dates",
            "the number of days from the first date to the second",
            n,
        ),
        (
            [f"{who} goes to the {place} for {weeks} weeks and {rest} days."],
            "How many days is that",
            "the number of days",
            weeks * 7 + rest,
        ),
        (
            [f"{who} reads {each} pages every day."],
            f"How many pages does {who} read in {weeks} weeks",
            f"the pages read in {weeks} weeks",
            each * 7 * weeks,
        ),
        (
            [f"{who} goes swimming every {each + 1} days, today as well."],
            f"In how many days will {who} have gone {rest + 1} more times",
            f"in how many days {who} has gone {rest + 1} more times",
            (each + 1) * (rest + 1),
        ),
        (
            [f"A plant is {weeks * 7} days old."],
            "How many weeks old is it",
            "its age in weeks",
            weeks,
        ),
        (
            [f"The {place} was opened in {1900 + n}."],
            f"How many years ago was that in {1980 + n + each}",
            f"how many years ago that was in {1980 + n + each}",
            80 + each,
        ),
    )


def ages(draw: random.Random) -> Problem:
    """How old someone is, was or will be."""
    who, friend = draw.sample(PEOPLE, 2)
    adult = draw.choice([adult for adult in ADULTS if adult[0].isupper()])
    a, years, times = draw.randint(3, 16), draw.randint(1, 20), draw.randint(2, 5)
    older = draw.randint(1, 9)
    old, word = shown(draw, a), shown(draw, years)
    return told(
        draw,
        (
            [f"{who} is {old} years old.", f"{friend} is {older} years older."],
            f"How old is {friend}",
            f"{friend}'s age",
            a + older,
        ),
        (
            [f"{who} is {a + older}.", f"{friend} is {older} years younger than {who}."],
            f"How old is {friend}",
            f"the age of {friend}",
            a,
        ),
        (
            [f"{who} is {old} years old now."],
            f"How old will {who} be in {word} years",
            f"{who}'s age in {word} years",
            a + years,
        ),
        (
            [f"{who} is {a + years} years old today."],
            f"How old was {who} {word} years ago",
            f"how old {who} was {word} years ago",
            a,
        ),
        (
            [f"{adult} is {times} times as old as {who}.", f"{who} is {a}."],
            f"How old is {adult}",
            f"the age of {adult}",
            times * a,
        ),
        (
            [f"{adult} is {times * a} and is {times} times as old as {who}."],
            f"How old is {who}",
            f"{who}'s age",
            a,
        ),
        (
            [f"{who} and {friend} are {2 * a + older} years old together.", f"{who} is {a}."],
            f"How old is {friend}",
            f"{friend}'s age",
            a + older,
        ),
        (
            [f"In {word} years {who} will be {a + years}."],
            f"How old is {who} now",
            f"how old {who} is now",
            a,
        ),
        (
            [f"{who} was born in {2000 + years}."],
            f"How old is {who} in {2000 + years + a}, after the birthday",
            f"{who}'s age at the end of {2000 + years + a}",
            a,
        ),
        (
            [f"{adult} was {20 + older} when {who} was born.", f"Now {who} is {a}."],
            f"How old is {adult} now",
            f"{adult}'s age now",
            20 + older + a,
        ),
    )
