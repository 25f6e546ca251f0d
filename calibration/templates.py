"""Which questions were made from one template with other numbers, names and goods.

Questions are masked (`masking`), and two are near-copies when the Jaccard similarity of their
masked words and pairs of words is at least 0.6. MinHash with locality-sensitive hashing
(Broder, 1997; Leskovec, Rajaraman and Ullman, 2014, chapter 3) proposes pairs, exact similarity
decides. Templates are the stars of that graph (Aslam, Pelekhov and Rus, 2004, "The star
clustering algorithm"): every member is a near-copy of its template's centre, where connected
components would chain questions that have nothing in common.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from datasketch import MinHash, MinHashLSH

from calibration.masking import mask
from calibration.questions import SHARES, Split, position_of, split_at, split_of, words_of

_SIMILAR = 0.6
# 32 bands of 4: a pair of similarity 0.6 is proposed with probability
# 1 - (1 - 0.6^4)^32 = 98.8 %, one of 0.7 with 99.98 %, one of 0.2 with 5 %.
_BANDS, _ROWS = 32, 4

# A template is dealt by its size from this share of all rows on.
_LARGE_SHARE = 0.02

Shingles = frozenset[str]


def templates_of(texts: Sequence[str]) -> list[int]:
    """For each question its template, as the place of the template's first question.

    Who shares a template with whom does not depend on the order of the questions.
    """
    shingles = [_shingles(words) for words in mask(texts)]
    # In an order of their own, so that ties fall alike however the questions come.
    forms = sorted(set(shingles), key=sorted)
    centre_of = dict(zip(forms, _stars(_near_copies(forms)), strict=True))
    firsts: dict[int, int] = {}
    return [firsts.setdefault(centre_of[form], place) for place, form in enumerate(shingles)]


def _shingles(words: Sequence[str]) -> Shingles:
    """Words and pairs of neighbours: what a template says, and in which order."""
    return frozenset(words) | {" ".join(pair) for pair in pairwise(words)}


def _near_copies(forms: Sequence[Shingles]) -> list[dict[int, float]]:
    """For each form the places of those like it, and how like they are."""
    near: list[dict[int, float]] = [{} for _ in forms]
    index = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))
    encoded = ([shingle.encode() for shingle in form] for form in forms)
    for place, sketch in enumerate(MinHash.generator(encoded, num_perm=_BANDS * _ROWS, seed=1)):
        for other in index.query(sketch):
            similarity = _jaccard(forms[place], forms[other])
            if similarity >= _SIMILAR:
                near[place][other] = near[other][place] = similarity
        index.insert(place, sketch)
    return near


def _jaccard(a: Shingles, b: Shingles) -> float:
    common = len(a & b)
    return common / max(len(a) + len(b) - common, 1)


def _stars(near: Sequence[dict[int, float]]) -> list[int]:
    """Each form's centre: those with most near-copies first, the others go to the nearest."""
    centres: set[int] = set()
    covered: set[int] = set()
    for place in sorted(range(len(near)), key=lambda place: (-len(near[place]), place)):
        if place not in covered:
            centres.add(place)
            covered |= {place, *near[place]}
    return [
        place
        if place in centres
        else max(centres & near[place].keys(), key=lambda centre: (near[place][centre], -centre))
        for place in range(len(near))
    ]


def splits_and_templates(
    texts: Mapping[str, str], *, known_templates: bool = False
) -> tuple[dict[str, Split], dict[str, int]]:
    """The split and the template of each question, by its key: see `split_templates`. Where
    templates are known, new questions are of the same, and each is split by its own words.
    """
    labels = _with_copies(list(texts), templates_of(list(texts.values())))
    splits = map(split_of, texts) if known_templates else split_templates(list(texts), labels)
    return dict(zip(texts, splits, strict=True)), dict(zip(texts, labels, strict=True))


def split_templates(keys: Sequence[str], templates: Sequence[int]) -> list[Split]:
    """Each question's split when its template, `templates[i]`, may not straddle two.

    Large templates come first, by size, each to the split that lacks most of its share, so that
    few of them come out near 50/30/20 all the same. What the shares then still lack is dealt to
    the others by the hash of a representative. Without large templates that is `split_of` the
    representative's key, and a question without near-copies stays where it was.

    The result does not depend on the order of the questions. A question that is added changes
    its template's representative with probability 1 / (its size + 1), and may make a template
    large; other templates move only as far as what large ones leave over has changed.
    """
    joined = _with_copies(keys, templates)
    sizes = Counter(joined)
    members: defaultdict[int, list[str]] = defaultdict(list)
    for key, template in zip(keys, joined, strict=True):
        members[template].append(key)
    # Chosen by another hash than the one that places it: the smallest of many keys is small.
    representatives = {
        template: min(found, key=lambda key: hashlib.sha256(key.encode()).hexdigest())
        for template, found in members.items()
    }
    lacking = {split: share * len(keys) for split, share in SHARES.items()}
    large = [t for t, size in sizes.items() if size > 1 and size >= _LARGE_SHARE * len(keys)]
    splits: dict[int, Split] = {}
    for template in sorted(large, key=lambda t: (-sizes[t], representatives[t])):
        splits[template] = max(lacking, key=lambda split: lacking[split])
        lacking[splits[template]] -= sizes[template]
    shares = {split: max(rows, 0.0) for split, rows in lacking.items()} if large else SHARES
    for template, key in representatives.items():
        if template not in splits:
            splits[template] = split_at(position_of(key), shares)
    return [splits[template] for template in joined]


def _with_copies(keys: Sequence[str], templates: Sequence[int]) -> list[int]:
    """Templates that share a question's very words are one, as the split without templates
    has it: conversations may differ in their last message's start alone.
    """
    parent = {template: template for template in templates}

    def root(template: int) -> int:
        while parent[template] != template:
            parent[template] = parent[parent[template]]
            template = parent[template]
        return template

    first: dict[str, int] = {}
    for key, template in zip(keys, templates, strict=True):
        parent[root(template)] = root(first.setdefault(words_of(key), template))
    return [root(template) for template in templates]
