"""Counting the things of a list, and those of one sort in it."""

from __future__ import annotations

import random

from calibration.kinds.wording import NUMBER_WORDS, Problem, article, listed, plural
from calibration.kinds.words import CATEGORIES, PEOPLE

_LISTS = (
    "I have {things}. How many {sort} do I have?",
    "I have {things}. How many {sort} do I have in total?",
    "I have {things}. How many {sort} are there altogether?",
    "{who} has {things}. How many {sort} does {who} have?",
    "How many {sort} do I have if I have {things}?",
    "There are {things} here. Count the {sort}.",
    "{who} bought {things}. How many {sort} is that?",
    "If {who} owns {things}, how many {sort} does {who} own in all?",
    "In the room I can see {things}. How many {sort} can I see?",
    "On the table there are {things}. What is the number of {sort}?",
    "{who} draws {things}. How many {sort} are in the picture?",
    "We packed {things}. Find the total number of {sort}.",
    "Count the {sort}: {things}.",
    "How many {sort} are in this list: {things}?",
    "My list says: {things}. How many {sort} altogether?",
    "{who} counts {things}. Tell me how many {sort} {who} counted.",
    "At home we have {things}. How many {sort} is that in all?",
    "Our school got {things}. How many {sort} did it get?",
)
_NEAR = ({"fruits", "vegetables"}, {"toys", "vehicles"}, {"toys", "animals"})
"""Categories of which a thing may be in both."""


def _counted(draw: random.Random, noun: str, n: int, in_words: bool) -> str:
    if n == 1:
        return (
            draw.choice((article(noun), article(noun), f"one {noun}")) if in_words else f"1 {noun}"
        )
    return f"{NUMBER_WORDS[n] if in_words else n} {plural(noun)}"


def object_counting(draw: random.Random) -> Problem:
    """Two to nine sorts of things, of one category or with others among them."""
    sort = draw.choice(tuple(CATEGORIES))
    n = draw.choice((2, 3, 3, 4, 4, 5, 6, 7, 8, 9))
    nouns = draw.sample(CATEGORIES[sort], min(n, len(CATEGORIES[sort])))
    alone = draw.random() < 0.35
    top = draw.choice((1, 3, 5, 12, 20))
    counts = [1 if alone else draw.randint(1, top) for _ in nouns]
    how = draw.random()
    parts = [
        (noun, count, how < 0.55 or (how < 0.75 and draw.random() < 0.5))
        for noun, count in zip(nouns, counts, strict=True)
    ]
    total = sum(counts)
    if draw.random() < 0.25 and sort != "objects" and len(parts) < 8:
        near = {sort, "objects"}.union(*(pair for pair in _NEAR if sort in pair))
        other = draw.choice([name for name in CATEGORIES if name not in near])
        strangers = set(draw.sample(CATEGORIES[other], draw.randint(1, 3))) - set(nouns)
        parts += [(noun, draw.randint(1, 4), True) for noun in sorted(strangers)]
        draw.shuffle(parts)
    elif sort not in ("fruits", "animals") and draw.random() < 0.15:
        sort = draw.choice(("things", "items", "objects"))
    texts = [_counted(draw, noun, count, words) for noun, count, words in parts]
    things = listed(texts) if draw.random() < 0.75 else ", ".join(texts[:-1]) + ", and " + texts[-1]
    question = draw.choice(_LISTS).format(things=things, sort=sort, who=draw.choice(PEOPLE))
    return question, str(total)
