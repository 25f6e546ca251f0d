"""Who the question is about: other names, or whoever asks or is asked."""

from __future__ import annotations

import random
import re

# Given names that are no other word of English.
_SHE = (
    "Abby Abigail Alexa Alice Alicia Allison Alyssa Amanda Amelia Amy Andrea Angela Anna Annie "
    "Ashley Audrey Barbara Bella Beth Bianca Brenda Bridget Brittany Caroline Carly Carol Carolyn "
    "Cassandra Catherine Charlotte Chloe Christine Cindy Claire Clara Courtney Cynthia Daisy "
    "Danielle Debby Deborah Diana Diane Donna Dorothy Edna Eleanor Elizabeth Ella Ellen Emily Emma "
    "Erica Evelyn Fiona Gina Gloria Gwen Haley Hannah Heather Helen Isabel Isabella Jackie Jane "
    "Janet Jasmine Jenna Jennifer Jenny Jessica Jill Joan Joyce Judy Julia Julie Karen Katherine "
    "Kathy Katie Kayla Kelly Kim Kimberly Kristen Laura Lauren Linda Lisa Lucy Lydia Maggie Margaret "
    "Maria Marie Marilyn Martha Mary Megan Melanie Melissa Michelle Molly Monica Nancy Natalie "
    "Nicole Nina Norma Olivia Paige Pamela Patricia Paula Priya Rachel Rebecca Robin Rosa Roxanne "
    "Ruth Sally Samantha Sandra Sandy Sara Sarah Shannon Sharon Sheila Shirley Sophia Sophie "
    "Stephanie Susan Sylvia Tammy Tara Teresa Tiffany Tina Valerie Vanessa Veronica Victoria Wendy "
    "Zoe Nadia Hana Amara Dalia Farah Lena Uma Wanda Ximena Janice Paige Kira Mia Ava"
).split()
_HE = (
    "Aaron Adam Adrian Alan Albert Alex Andrew Anthony Arthur Barry Ben Benjamin Bob Bobby Brad "
    "Brandon Brian Bruce Bryan Bryce Calvin Cameron Carl Charles Charlie Chris Christopher Cody "
    "Connor Craig Dan Daniel Danny Dave David Dennis Derek Dominic Donald Doug Douglas Dylan "
    "Edward Edwin Eric Erik Ernest Ethan Evan Felix Fred Gary George Gerald Greg Gregory Harold "
    "Harry Henry Howard Hugo Ian Isaac Ivan Jacob Jake James Jared Jason Jeff Jeffrey Jeremy Jerry "
    "Jesse Jim Jimmy Joe Joel John Johnny Jonathan Jordan Jorge Jose Joseph Josh Joshua Juan "
    "Justin Keith Kenneth Kevin Kyle Larry Lee Leo Leonard Logan Louis Lucas Luis Luke Manuel Marco "
    "Marcus Martin Marvin Matt Matthew Max Michael Miguel Mike Mohamed Nathan Neil Nicholas Noah "
    "Oliver Omar Oscar Paco Patrick Paul Pedro Peter Philip Ralph Randy Raymond Ricardo Richard "
    "Robert Roger Ronald Roy Russell Ryan Sam Samuel Scott Sean Sergio Seth Simon Stan Stephen Steve "
    "Steven Stuart Ted Terry Thomas Tim Timothy Todd Tom Tommy Tony Travis Trevor Tyler Vernon "
    "Victor Vincent Walter Wayne William Zach Zachary Mateo Viktor Yusuf Kofi Goran Emil Ivo"
).split()
_SHE_ELSEWHERE = (
    "Aiko Ngozi Ayşe Oluwaseun Ingrid Saoirse Thandiwe Lakshmi Xiuying Fatoumata Ximena Zainab "
    "Svetlana Guðrún Malia Nguyệt Beatriz Yuki Adaeze Freja"
).split()
_HE_ELSEWHERE = (
    "Hiroshi Chukwuemeka Mehmet Abdullah Bjørn Siddharth Wei Mamadou Tadhg Sipho Krzysztof "
    "Dmitri Kaleo Minh João Rajesh Kwabena Łukasz Tariq Zoltán"
).split()

_PERSON = re.compile(r"(?<![\w'’-])(" + "|".join({*_SHE, *_HE}) + r")(?!\w|-\w)")
_VERBS = {"has": "have", "does": "do", "goes": "go"}
_NO_VERBS = {"always", "sometimes", "is", "was", "plus", "this", "his", "as", "less", "us", "its"}
# Before a subject, and not before an object.
_SUBJECT_AFTER = re.compile(
    r"(?i)(?:^|[.?!,;:\n]|\b(?:and|or|if|when|while|after|before|that|because|did|does|do|will|can|"
    r"could|should|would|must|was|is|has|had|then|as|so|since|once|until))[\s\"“*_>-]*$"
)


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
    """ "I have" for "Dan has", where Dan is the only one with a name."""
    return _told(text, "I", "me", "my", "am", "was")


def second_person(text: str, draw: random.Random) -> str:
    """ "You have" for "Dan has", where Dan is the only one with a name."""
    return _told(text, "you", "you", "your", "are", "were")


def _told(text: str, subject: str, other: str, owned: str, now: str, past: str) -> str:
    names = set(_PERSON.findall(text))
    # Somebody else may be meant by a pronoun, or already speaks.
    if len(names) != 1 or re.search(r"(?i)\b(?:I|me|my|you|your|him|hers|himself|herself)\b", text):
        return text
    (name,) = names
    he, his = ("she", "her") if name in _SHE else ("he", "his")
    others = r"\b(?:mother|mom|sister|aunt|wife|daughter|girl|woman|grandmother|brother|father|dad|uncle|son|boy|man|grandfather|husband|friend)s?\b"
    if re.search("(?i)" + others, text) and re.search(rf"(?i)\b(?:{he}|{his})\b", text):
        return text
    # "Her" before a word of these is no possessive.
    if he == "she" and re.search(
        r"(?i)\bher(?:\s+(?:\d|a|an|the|some|to|for|and|with|in|on)\b|\s*[.,?!])", text
    ):
        return text

    def tell(match: re.Match[str]) -> str:
        before = text[: match.start()]
        starts = not before.strip() or re.search(r"[.?!]\s*[\"“]?$", before) is not None
        verb = match["verb"] or ""
        if match["owner"] or match["who"].lower() == his:
            told = owned + verb
        elif match["who"].lower() != he and not verb and not _SUBJECT_AFTER.search(before):
            told = other
        else:
            told = subject + _agreeing(verb, now, past)
        return told[:1].upper() + told[1:] if starts else told

    text = re.sub(
        rf"(?i)(?<![\w'’-])(?P<who>{name}|{he}|{his})(?![\w-])(?P<owner>\s?['’]s\b)?"
        r"(?P<verb>\s+[a-z]+(?:s|d)\b)?",
        tell,
        text,
    )
    auxiliary = r"(?i)\b({})(\s+" + subject + r")\b"
    for third, told in {"does": "do", "has": "have", "is": now, "was": past}.items():
        text = re.sub(
            auxiliary.format(third),
            lambda m, told=told: (told.capitalize() if m[1][0].isupper() else told) + m[2],  # type: ignore[misc]
            text,
        )
    return text


def _agreeing(verb: str, now: str, past: str) -> str:
    """The verb after "he" as it is after "I" or "you"."""
    space, word = re.match(r"(\s*)(.*)", verb, re.DOTALL).groups()  # type: ignore[union-attr]
    if word in ("is", "was"):
        return space + {"is": now, "was": past}[word]
    if word in _VERBS:
        return space + _VERBS[word]
    if word in _NO_VERBS or not word.endswith("s") or word.endswith("ss"):
        return verb
    if word.endswith("ies"):
        return space + word[:-3] + "y"
    if re.search(r"(?:ch|sh|x|ss|zz|o)es$", word):
        return space + word[:-2]
    return space + word[:-1]
