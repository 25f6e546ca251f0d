"""What is asked and in what measure: order of sentences, options, money and units."""

from __future__ import annotations

import random
import re

from calibration.rewriting.layout import sentences

_NUMBER = re.compile(r"(?<![\w.,/:^\\-])[0-9]{1,5}(?![\w%/:^-]|[.,]\d)")
_LISTED = re.compile(r"(?m)^\s*\(?[A-D][).:]")
_COINS = re.compile(r"(?i)\b(?:penn(?:y|ies)|nickels?|dimes?|quarters?|cents?|euros?|pounds?)\b")
_PAST = dict(
    pair.split(":")
    for pair in (
        "bring:brought buy:bought catch:caught cost:cost cut:cut do:did drive:drove eat:ate "
        "find:found get:got give:gave go:went grow:grew have:had hit:hit lose:lost make:made "
        "pay:paid put:put read:read ride:rode run:ran see:saw sell:sold send:sent spend:spent "
        "swim:swam take:took throw:threw win:won write:wrote"
    ).split()
)
_REGULAR = (
    "add answer bake collect cook earn finish gain jump learn need pick plant play pour pull "
    "receive save score serve share start travel use visit walk want wash watch work"
).split()
_ASKED = re.compile(
    r"(?P<many>[Hh]ow (?:many|much)\b[\w\s-]*?)\s+"
    r"(?:(?P<do>did|does|do|will|can|should|must|would|could)\s+"
    r"(?P<who>[A-Z]\w+|he|she|they|it|we)\s+(?P<also>(?:now|still|also)\s+)?(?P<verb>[a-z]+)"
    r"|(?P<be>is|are|were|was)\s+(?P<there>there|left|needed))\b(?P<rest>[^?]*?)\s*\?"
)


def question_first(text: str, draw: random.Random) -> str:
    """The question, then the facts."""
    *facts, last = sentences(text)
    if not facts or not last.endswith("?") or any(fact.endswith("?") for fact in facts):
        return text
    return " ".join([last[:1].upper() + last[1:], *facts])


def imperative(text: str, draw: random.Random) -> str:
    """As in "Find how many apples Dan ate." for "How many apples did Dan eat?"."""
    *facts, last = sentences(text)
    match = _ASKED.fullmatch(last)
    if match is None:
        return text
    if match["be"]:
        pair = [match["be"], match["there"]]
        stated = " ".join(reversed(pair) if match["there"] == "there" else pair)
    else:
        stated = f"{match['who']} {match['also'] or ''}{_stated(match['do'], match['verb'])}"
    order = draw.choice(["Find", "Find", "Find out", "Calculate", "Compute"])
    asked = f"{order} h{match['many'][1:]} {stated}{match['rest']}."
    return " ".join([*facts, asked])


def _stated(do: str, verb: str) -> str:
    """The verb of a statement, where the question has "do" or the like."""
    if do == "do":
        return verb
    if do == "did":
        regular = verb + ("d" if verb.endswith("e") else "ed")
        return regular if verb in _REGULAR else _PAST.get(verb, f"did {verb}")
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


# A unit, what it becomes, and what else would have to be converted with it.
_METERS = r"(?:kilo|centi)?meters?|km|cm"
_METRIC = (
    ("mile", "kilometer", rf"feet|foot|yards?|inch(?:es)?|{_METERS}|mph|laps?"),
    ("pound", "kilogram", r"ounces?|oz|tons?|(?:kilo)?grams?|kgs?"),
    ("gallon", "liter", r"quarts?|pints?|cups?|ounces?|lit(?:er|re)s?"),
    ("yard", "meter", rf"feet|foot|miles?|inch(?:es)?|{_METERS}|(?:the|a|h\w+|front|back)\s+yard"),
)


def metric_units(text: str, draw: random.Random) -> str:
    """Where a unit is the only one of its sort: nothing has to be converted."""
    for unit, metric, others in _METRIC:
        measured = re.search(rf"(?i)(?:\d|how many|per|an?|of) ?(?:more )?{unit}s?\b", text)
        if measured and not re.search(rf"(?i)\b(?:{others})\b|£", text):
            text = re.sub(rf"\b{unit}(s?)\b", rf"{metric}\1", text)
    return text
