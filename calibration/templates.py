"""Which questions were made from one template with other numbers, names and goods.

Questions are masked (`masking`), and two are near-copies when the Jaccard similarity of their
masked words and pairs of words is at least 0.6. MinHash with locality-sensitive hashing
(Broder, 1997; Leskovec, Rajaraman and Ullman, 2014, chapter 3) proposes pairs, exact similarity
decides. Templates are the stars of that graph (Aslam, Pelekhov and Rus, 2004, "The star
clustering algorithm"): every member is a near-copy of its template's centre, where connected
components would chain questions that have nothing in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from datasketch import MinHash, MinHashLSH

from calibration.masking import mask

_SIMILAR = 0.6
# 32 bands of 4: a pair of similarity 0.6 is proposed with probability
# 1 - (1 - 0.6^4)^32 = 98.8 %, one of 0.7 with 99.98 %, one of 0.2 with 5 %.
_BANDS, _ROWS = 32, 4

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
