"""What is asked and in what measure: order of sentences, options, money and units."""

from __future__ import annotations

import random
import re

from calibration.rewriting.layout import sentences

_NUMBER = re.compile(r"(?<![\w.,/:^\\-])\d{1,5}(?![\w%/:^-]|[.,]\d)")
_LISTED = re.compile(r"(?m)^\s*\(?[A-D][).:]")
_COINS = re.compile(r"(?i)\b(?:penn(?:y|ies)|nickels?|dimes?|quarters?|cents?|euros?|pounds?)\b")
_PAST = {
    "buy": "bought", "eat": "ate", "find": "found", "get": "got", "give": "gave", "have": "had",
    "make": "made", "pay": "paid", "read": "read", "sell": "sold", "spend": "spent",
    "take": "took", "use": "used", "pick": "picked", "plant": "planted", "earn": "earned",
    "run": "ran", "lose": "lost", "win": "won", "save": "saved", "walk": "walked",
    "need": "needed", "go": "went", "see": "saw", "put": "put", "drive": "drove", "bake": "baked",
    "collect": "collected", "receive": "received", "catch": "caught", "start": "started",
}  # fmt: skip


def question_first(text: str, draw: random.Random) -> str:
    """The question, then the facts."""
    *facts, last = sentences(text)
    if not facts or not last.endswith("?") or any(fact.endswith("?") for fact in facts):
        return text
    return " ".join([last[:1].upper() + last[1:], *facts])


def find(text: str, draw: random.Random) -> str:
    """ "Find how many apples Dan ate." for "How many apples did Dan eat?"."""
    *facts, last = sentences(text)
    match = re.fullmatch(
        r"(?P<many>how (?:many|much)\b[\w\s-]*?)\s+"
        r"(?:(?P<do>did|does|do|will|can|should|must|would|could)\s+(?P<who>[A-Z]\w+|he|she|they|it|we)\s+"
        r"(?P<more>(?:now|still|also)\s+)?(?P<verb>[a-z]+)|(?P<is>is|are|were|was)\s+(?P<there>there|left|needed))\b"
        r"(?P<rest>[^?]*?)\s*\?",
        last,
        re.IGNORECASE,
    )
    if match is None:
        return text
    order = draw.choice(["Find", "Find", "Find out", "Calculate", "Compute"])
    many = match["many"][:1].lower() + match["many"][1:]
    if match["is"]:
        pair = (
            (match["there"], match["is"])
            if match["there"] == "there"
            else (match["is"], match["there"])
        )
        asked = f"{many} {' '.join(pair)}{match['rest']}"
    else:
        asked = f"{many} {match['who']} {match['more'] or ''}{_stated(match['do'].lower(), match['verb'])}{match['rest']}"
    return " ".join([*facts, f"{order} {asked}."])


def _stated(do: str, verb: str) -> str:
    """The verb of a statement where the question has "do" or the like."""
    if do == "do":
        return verb
    if do == "did":
        return _PAST.get(verb, f"did {verb}")
    if do != "does":
        return f"{do} {verb}"
    if verb == "have":
        return "has"
    return verb + ("es" if re.search(r"(?:ch|sh|ss|x|z|o)$", verb) else "s")


def options(text: str, draw: random.Random) -> str:
    """Four answers to choose from, a line each; the last is that none of them is right."""
    values = _values(text, draw)
    if not values:
        return text
    last = draw.choice(["none of these", "None of the above", "another number"])
    mark = draw.choice(["{}) ", "{}. ", "({}) ", "{}: "])
    lines = [mark.format("ABCD"[n]) + value for n, value in enumerate([*values, last])]
    return "\n".join([text.rstrip(), *lines])


def options_inline(text: str, draw: random.Random) -> str:
    """Answers to choose from in a sentence."""
    values = _values(text, draw)
    if not values:
        return text
    a, b, c = values
    asked = draw.choice(
        [
            f"Is it {a}, {b}, {c} or something else?",
            f"Choose: {a} / {b} / {c} / other.",
            f"(1) {a} (2) {b} (3) {c} (4) none of them",
        ]
    )
    return f"{text.rstrip()} {asked}"


def _values(text: str, draw: random.Random) -> list[str]:
    """Three values that a wrong or a right step may come to, in order of size."""
    found = [int(number) for number in _NUMBER.findall(text)]
    if len(found) < 2 or _LISTED.search(text):
        return []
    a, b = found[0], found[1]
    values = {a + b, abs(a - b), a * b, *([a // b] if b and a % b == 0 else [])}
    values |= {sum(found), found[-1], a + b + draw.randint(1, 9), a + b + 10}
    return [str(value) for value in sorted(draw.sample(sorted(values), 3))]


def other_currency(text: str, draw: random.Random) -> str:
    return _paid_in(text, *draw.choice([("€", "euros", "euro"), ("£", "pounds", "pound")]))


def currency_from_elsewhere(text: str, draw: random.Random) -> str:
    kinds = [("₹", "rupees", "rupee"), ("¥", "yen", "yen"), ("R$", "reais", "real")]
    return _paid_in(text, *draw.choice(kinds))


def _paid_in(text: str, sign: str, many: str, one: str) -> str:
    """Dollars become another money; not where there are coins, or LaTeX."""
    if "\\" in text or _COINS.search(text) or re.search(r"\$(?!\s*[\d.])", text):
        return text
    text = re.sub(r"\$(?=\s*[\d.])", sign, text)
    text = re.sub(r"\b([Dd])ollars\b", lambda m: many.capitalize() if m[1] == "D" else many, text)
    return re.sub(r"\b([Dd])ollar\b", lambda m: one.capitalize() if m[1] == "D" else one, text)


_METRIC = (
    (
        "mile",
        "kilometer",
        r"(?i)\b(?:feet|foot|yards?|inch(?:es)?|(?:kilo|centi)?meters?|km|laps?)\b",
    ),
    ("pound", "kilogram", r"(?i)\b(?:ounces?|oz|tons?|(?:kilo)?grams?|kgs?)\b|£"),
    ("gallon", "liter", r"(?i)\b(?:quarts?|pints?|cups?|ounces?|lit(?:er|re)s?)\b"),
    (
        "yard",
        "meter",
        r"(?i)\b(?:feet|foot|miles?|inch(?:es)?|(?:kilo|centi)?meters?|(?:in|the|a|his|her|their|front|back) yard)\b",
    ),
)


def metric_units(text: str, draw: random.Random) -> str:
    """Where a unit is the only one of its sort: nothing has to be converted."""
    for unit, metric, others in _METRIC:
        measured = re.search(rf"(?i)(?:\d|how many|per|an?|of)\s*(?:more )?{unit}s?\b", text)
        if measured and not re.search(others, text):
            text = re.sub(rf"\b{unit}(s?)\b", rf"{metric}\1", text)
    return text
