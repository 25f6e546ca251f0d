"""Who the question is about: other names, or whoever asks or is asked."""

from __future__ import annotations

import random
import re

# Given names that are no other word, and for which the pronoun is known.
_SHE = (
    "Abby Abigail Alexa Alice Alicia Allison Alyssa Amanda Amara Amelia Amy Andrea Angela Anna "
    "Annie Ashley Audrey Ava Barbara Bella Beth Bianca Brenda Bridget Brittany Carly Carol "
    "Caroline Carolyn Cassandra Catherine Charlotte Chloe Christine Cindy Claire Clara Courtney "
    "Cynthia Daisy Dalia Danielle Debby Deborah Diana Diane Donna Dorothy Edna Eleanor "
    "Elizabeth Ella Ellen Emily Emma Erica Evelyn Farah Fiona Gina Gloria Gwen Haley Hana "
    "Hannah Heather Helen Isabel Isabella Jane Janet Janice Jasmine Jenna Jennifer Jenny "
    "Jessica Jill Joan Joyce Judy Julia Julie Karen Katherine Kathy Katie Kayla Kimberly "
    "Kristen Laura Lauren Lena Linda Lisa Lucy Lydia Maggie Margaret Maria Marie Marilyn Martha "
    "Mary Megan Melanie Melissa Mia Michelle Molly Monica Nadia Nancy Natalie Nicole Nina Norma "
    "Olivia Paige Pamela Patricia Paula Priya Rachel Rebecca Rosa Roxanne Ruth Sally Samantha "
    "Sandra Sandy Sara Sarah Sharon Sheila Shirley Sophia Sophie Stephanie Susan Sylvia Tammy "
    "Tara Teresa Tiffany Tina Uma Valerie Vanessa Veronica Victoria Wanda Wendy Ximena Zoe"
).split()
_HE = (
    "Aaron Adam Adrian Alan Albert Andrew Anthony Arthur Barry Ben Benjamin Bob Bobby Brad "
    "Brandon Brian Bruce Bryan Bryce Calvin Cameron Carl Charles Charlie Chris Christopher Cody "
    "Connor Craig Dan Daniel Danny Dave David Dennis Derek Dominic Donald Doug Douglas Dylan "
    "Edward Edwin Emil Eric Erik Ernest Ethan Evan Felix Fred Gary George Gerald Goran Greg "
    "Gregory Harold Harry Henry Howard Hugo Ian Isaac Ivan Ivo Jacob Jake James Jared Jason "
    "Jeff Jeffrey Jeremy Jerry Jim Jimmy Joe Joel John Johnny Jonathan Jorge Jose Joseph Josh "
    "Joshua Juan Justin Keith Kenneth Kevin Kofi Kyle Larry Leo Leonard Logan Louis Lucas Luis "
    "Luke Manuel Marco Marcus Martin Marvin Mateo Matt Matthew Max Michael Miguel Mike Mohamed "
    "Nathan Neil Nicholas Noah Oliver Omar Oscar Paco Patrick Paul Pedro Peter Philip Ralph "
    "Raymond Ricardo Richard Robert Roger Ronald Roy Russell Ryan Sam Samuel Scott Sean Sergio "
    "Seth Simon Stan Stephen Steve Steven Stuart Ted Thomas Tim Timothy Todd Tom Tommy Tony "
    "Travis Trevor Tyler Vernon Victor Viktor Vincent Walter Wayne William Yusuf Zach Zachary"
).split()
_SHE_ELSEWHERE = (
    "Adaeze Aiko Ayşe Beatriz Fatoumata Freja Guðrún Ingrid Lakshmi Malia Ngozi Nguyệt "
    "Oluwaseun Saoirse Svetlana Thandiwe Ximena Xiuying Yuki Zainab"
).split()
_HE_ELSEWHERE = (
    "Abdullah Bjørn Chukwuemeka Dmitri Hiroshi João Kaleo Krzysztof Kwabena Mamadou Mehmet Minh "
    "Rajesh Siddharth Sipho Tadhg Tariq Wei Zoltán Łukasz"
).split()

_PERSON = re.compile(r"(?<![\w'’-])(" + "|".join({*_SHE, *_HE}) + r")(?!\w|-\w)")
_VERBS = {"has": "have", "does": "do", "goes": "go"}
_NO_VERBS = {"always", "sometimes", "is", "was", "plus", "this", "his", "as", "less", "us", "its"}
# Before a subject, and not before an object.
_SUBJECT_AFTER = re.compile(
    r"(?i)(?:^|[.?!,;:\n]|\b(?:and|or|if|when|while|after|before|that|because|did|does|do|will|can|"
    r"could|should|would|must|was|is|has|had|then|as|so|since|once|until))[\s\"“*_>-]*$"
)
_SPEAKS = re.compile(r"(?i)\b(?:i|me|my|mine|you|your|yours|him|hers|himself|herself|who|whose)\b")
_RELATIVE = re.compile(
    r"(?i)\b(?:(?:grand)?(?:mother|father|son|daughter)|mom|dad|sister|brother|aunt|uncle|wife"
    r"|husband|girl|boy|woman|women|man|men|teacher|boss|neighbor|cousin|friend)(?:['’]?s)?\b"
)
_OBJECT = re.compile(
    r"(?i)\bher(?:\s+(?:\d|an?|the|some|to|for|and|with|in|on|from|at|by|how)\b|\s*[.,?!])"
)
_STRANGER = re.compile(r"(?<=[\w,;] )[A-Z]\w+|\b[A-Z]\w+(?= (?:has|had)\b)(?<!e)(?<!It)(?<!They)")
_DATES = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May "
    "June July August September October November December Christmas Halloween"
).split()


def other_names(text: str, draw: random.Random) -> str:
    return _renamed(text, draw, _SHE, _HE)


def names_from_elsewhere(text: str, draw: random.Random) -> str:
    return _renamed(text, draw, _SHE_ELSEWHERE, _HE_ELSEWHERE)


def _renamed(text: str, draw: random.Random, she: list[str], he: list[str]) -> str:
    """Each known name becomes one for which the same pronouns are right."""
    new: dict[str, str] = {}
    for name in dict.fromkeys(_PERSON.findall(text)):
        free = [other for other in (she if name in _SHE else he) if other not in text]
        free = [other for other in free if other not in new.values()]
        new[name] = draw.choice(free or [name])
    return _PERSON.sub(lambda match: new[match[0]], text)


def first_person(text: str, draw: random.Random) -> str:
    """As in "I have" for "Dan has", where Dan is the only one with a name."""
    return _told(text, "I", "me", "my", "am", "was")


def second_person(text: str, draw: random.Random) -> str:
    """As in "You have" for "Dan has", where Dan is the only one with a name."""
    return _told(text, "you", "you", "your", "are", "were")


def _told(text: str, subject: str, other: str, owned: str, now: str, past: str) -> str:
    names = set(_PERSON.findall(text))
    if len(names) != 1 or _SPEAKS.search(text):
        return text
    (name,) = names
    he, his, she = ("she", "her", "he|his|him") if name in _SHE else ("he", "his", "she|her|hers")
    pronouns = re.search(rf"(?i)\b(?:{he}|{his})\b", text)
    # A pronoun may mean somebody else, and "her" may be no possessive.
    if re.search(rf"(?i)\b(?:{she})\b", text) or (
        pronouns and (_RELATIVE.search(text) or _strangers(text, name) or _OBJECT.search(text))
    ):
        return text

    def tell(match: re.Match[str]) -> str:
        before, verb = text[: match.start()], match["verb"] or ""
        if match["owner"] or match["who"].lower() == his:
            told = owned + verb
        elif match["who"].lower() != he and not verb and not _SUBJECT_AFTER.search(before[-40:]):
            told = other
        else:
            told = subject + _agreeing(verb, now, past)
        starts = not before.strip() or re.search(r"[.?!]\s*[\"“]?$", before[-9:]) is not None
        return told[:1].upper() + told[1:] if starts else told

    text = re.sub(
        rf"(?<![\w'’-])(?P<who>(?i:{name}|{he}|{his}))(?![\w-])(?P<owner>\s?['’]s\b)?"
        r"(?P<verb>\s+[a-z]+(?:s|d)\b)?",
        tell,
        text,
    )
    # Verbs at some distance: before the subject, and after "and".
    for third, first in {"does": "do", "has": "have", "is": now, "was": past}.items():
        text = re.sub(rf"\b{third}(?= {subject}\b)", first, text)
        text = text.replace(f"{third.capitalize()} {subject} ", f"{first.capitalize()} {subject} ")
        text = re.sub(
            rf"(?i)(\b{subject} \w+[^.?!,]{{0,80}} (?:and|but) (?:also |then |now )?){third}\b",
            rf"\g<1>{first}",
            text,
        )
    return text


def _strangers(text: str, name: str) -> bool:
    """Whether there is a name that is not known: a capital inside a sentence, or before "has"."""
    names = {*_DATES, name, name + "s", "I"}
    return any(match[0] not in names for match in _STRANGER.finditer(text))


def _agreeing(verb: str, now: str, past: str) -> str:
    """The verb after "he" as it is after "I" or "you"."""
    word = verb.strip()
    space = verb[: len(verb) - len(word)]
    if word in ("is", "was"):
        return space + {"is": now, "was": past}[word]
    if word in _VERBS:
        return space + _VERBS[word]
    if word in _NO_VERBS or not word.endswith("s") or word.endswith("ss"):
        return verb
    if word.endswith("ies"):
        return space + word[:-3] + "y"
    return space + word[: -2 if re.search(r"(?:ch|sh|x|ss|zz|o)es$", word) else -1]
