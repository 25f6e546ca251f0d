"""The families: what their questions have in common, and the programs that tell them apart.

Within a family every set asks of the same inputs in the same words; only the program that made
the outputs differs, and what its outputs look like. Tasks after SolverLearner's four
(arXiv 2408.00114) and Case2Code's functions of input-output cases (arXiv 2407.12504).
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.bench.sandbox.running import Json

N_EXAMPLES = 6
N_HELD_OUT = 5
"""Cases that a question shows, and others that a program is held to."""

_SOURCES = Path(__file__).parent / "sources"
_SUBJECTS = "Ann Ben Cara Dan Eve Finn Gina Hugo Iris Jack Kate Liam".split()
_VERBS = "greets sees likes helps calls meets thanks follows hears pays asks paints".split()


@dataclass(frozen=True)
class Program:
    """A function of a family's source, and what it is given besides the inputs."""

    name: str
    function: str
    besides: tuple[Json, ...] = ()


@dataclass(frozen=True)
class Family:
    """Programs over the same inputs. The first one is what the others are measured against.

    `signature` says what a function of the model's has to look like, `shown` how a case's input
    stands in a question.
    """

    name: str
    source: str
    signature: str
    draw: Callable[[random.Random], list[Json]]
    shown: Callable[[Sequence[Json]], str]
    programs: tuple[Program, ...]

    @property
    def text(self) -> str:
        return (_SOURCES / f"{self.source}.py").read_text(encoding="utf-8")

    def set_name(self, program: Program) -> str:
        return f"{self.name}-{program.name}"


def written(value: Json) -> str:
    """A value as questions show it, and as Python prints it: texts without quotes."""
    return value if isinstance(value, str) else str(value)


def _arrow(arguments: Sequence[Json]) -> str:
    return f"{written(arguments[0])} ->"


def _point(arguments: Sequence[Json]) -> str:
    return f"{list(arguments)} ->"


def _addition(arguments: Sequence[Json]) -> str:
    return f"{' + '.join(map(str, arguments))} ="


def _operands(draw: random.Random) -> list[Json]:
    """Three two-digit numbers over the digits 0 to 7, which every base from 8 has."""
    return [f"{draw.randint(1, 7)}{draw.randint(0, 7)}" for _ in range(3)]


def _sentence(draw: random.Random) -> list[Json]:
    subject, object_ = draw.sample(_SUBJECTS, 2)
    return [f"{subject} {draw.choice(_VERBS)} {object_}"]


def _place(draw: random.Random) -> list[Json]:
    return [draw.randint(0, 8), draw.randint(0, 8)]


def _letters(draw: random.Random) -> list[Json]:
    return ["".join(draw.choices(string.ascii_lowercase, k=5))]


def _numbers(draw: random.Random) -> list[Json]:
    return [list(draw.sample(range(1, 10), 5))]


def _number(draw: random.Random) -> list[Json]:
    return [draw.randint(12, 98)]


def _plain(*names: str) -> tuple[Program, ...]:
    return tuple(Program(name.replace("_", "-"), name) for name in names)


def _order(name: str) -> Program:
    places: list[Json] = ["svo".index(letter) for letter in name]
    return Program(name, "order", (places,))


FAMILIES = (
    Family(
        "add-base",
        "bases",
        "solver(a: str, b: str, c: str) -> str",
        _operands,
        _addition,
        tuple(Program(str(base), "add", (base,)) for base in (10, 8, 9, 11, 12, 13, 14, 15, 16)),
    ),
    Family(
        "order",
        "word_order",
        "solver(sentence: str) -> str",
        _sentence,
        _arrow,
        tuple(map(_order, ("svo", "sov", "vso", "vos", "osv", "ovs"))),
    ),
    Family(
        "space",
        "space",
        "solver(x: int, y: int) -> list[int]",
        _place,
        _point,
        _plain("stay", "swap", "mirror_x", "mirror_y", "turn_90", "turn_180", "turn_270"),
    ),
    Family(
        "cipher",
        "ciphers",
        "solver(text: str) -> str",
        _letters,
        _arrow,
        (
            Program("plain", "shift", (0,)),
            Program("shift-1", "shift", (1,)),
            Program("shift-3", "shift", (3,)),
            Program("shift-13", "shift", (13,)),
            Program("atbash", "atbash"),
            Program("affine-5", "affine", (5,)),
            Program("vigenere-cab", "vigenere", ("cab",)),
        ),
    ),
    Family(
        "case-number",
        "numbers",
        "solver(n: int) -> int",
        _number,
        _arrow,
        _plain(
            "double",
            "add_seven",
            "digit_sum",
            "digit_product",
            "digits_reversed",
            "divisors",
            "next_prime",
            "collatz_steps",
        ),
    ),
    Family(
        "case-total",
        "lists_to_numbers",
        "solver(values: list[int]) -> int",
        _numbers,
        _arrow,
        _plain(
            "total",
            "largest",
            "second_largest",
            "spread",
            "first_and_last",
            "alternating",
            "sum_of_even",
            "last_digit_of_product",
        ),
    ),
    Family(
        "case-list",
        "lists_to_lists",
        "solver(values: list[int]) -> list[int]",
        _numbers,
        _arrow,
        _plain(
            "reverse",
            "ascending",
            "descending",
            "rotate",
            "swap_ends",
            "swap_pairs",
            "even_first",
            "inside_out",
        ),
    ),
    Family(
        "case-text",
        "texts",
        "solver(text: str) -> str",
        _letters,
        _arrow,
        _plain(
            "reverse",
            "ascending",
            "rotate",
            "rotate_back",
            "swap_ends",
            "swap_halves",
            "even_places_first",
            "vowels_first",
        ),
    ),
)
