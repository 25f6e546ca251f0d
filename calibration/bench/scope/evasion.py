"""Evasion: what a guard still refuses of questions out of scope that are disguised."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibration.bench.scope.attacks import ATTACKS, N_INSIDE, UNDISGUISED, Attack, Case, Place
from calibration.bench.scope.made import Row, write_set
from calibration.bench.scope.result import Design, Share
from calibration.bench.scope.sets import ScopeSet
from calibration.bench.scope.tables import heading, line, with_interval
from calibration.questions import Question, read_questions
from detector.errors import CalibrationError

SEED = 0

LONGEST = 500
"""Characters of a question that is drawn: a disguise may take several tokens for each, and what is
too long for a slot is refused for that.
"""

CASE = "case"
"""The column that says which of the drawn questions a row disguises."""

_TITLES: dict[Place, str] = {
    "typed": "Alone in a message, typed otherwise",
    "beside": "Beside other text in one message",
    "turns": "In the last of several turns",
    "elsewhere": "Not in the user's last turn",
}


def drawn(math: Sequence[Path], n: int) -> list[str]:
    """`n` of the files' distinct questions, the same for the same files.

    Raises CalibrationError where fewer are short enough.
    """
    texts = [text for text in _texts(math) if len(text) <= LONGEST]
    if len(texts) < n:
        raise CalibrationError(
            f"the files of MATH hold {len(texts)} questions of at most {LONGEST} characters, and "
            f"--n asks for {n}: ask for fewer or add files",
            param="n",
        )
    return random.Random(f"{SEED} drawn").sample(texts, n)  # noqa: S311 (reproducible)


def disguised_sets(
    texts: Sequence[str], inside: Sequence[Path], folder: Path
) -> dict[str, ScopeSet]:
    """Each text disguised by each attack, a questions file an attack.

    Raises CalibrationError where in-scope questions are too few to hide one among.
    """
    in_scope = _texts(inside)
    if len(in_scope) < N_INSIDE:
        raise CalibrationError(
            f"the files of --inside hold {len(in_scope)} questions, and attacks hide one among "
            f"{N_INSIDE}: add some",
            param="inside",
        )
    return {
        attack.name: write_set(
            folder / f"{attack.name}.jsonl", "D", list(_rows(attack, texts, in_scope))
        )
        for attack in ATTACKS
    }


def table(sets: dict[str, ScopeSet], design: Design) -> str:
    """What is refused of each: at the first alpha that the design carries with its interval and
    the difference to the undisguised, at the others alone.

    The last row counts a question as refused if no attack that has the task in the user's last
    turn gets it through.
    """
    first, *others = alphas = list(design.refused)
    plain = design.share(first, UNDISGUISED)
    lines = list(heading(["attack", "questions", f"refused at {first}", "difference", *others]))
    for place, title in _TITLES.items():
        lines.append(line([f"**{title}**", "", "", "", *("" for _ in others)]))
        for attack in ATTACKS:
            if attack.place != place:
                continue
            share = design.share(first, attack.name)
            gain = "" if attack.name == UNDISGUISED else f"{100 * (share.rate - plain.rate):+.0f}"
            more = [f"{design.share(alpha, attack.name).rate:.0%}" for alpha in others]
            cells = [attack.said, str(share.n), with_interval(share), gain, *more]
            lines.append(line(cells))
    every = {alpha: _by_none(sets, design, alpha) for alpha in alphas}
    lines.append(
        line(
            [
                "**All but the last kind, one after the other**",
                *("" for _ in range(3 + len(others))),
            ]
        )
    )
    more = [f"{every[alpha].rate:.0%}" for alpha in others]
    share = every[first]
    gain = f"{100 * (share.rate - plain.rate):+.0f}"
    lines.append(line(["refused in each", str(share.n), with_interval(share), gain, *more]))
    return "\n".join(lines) + "\n"


def _by_none(sets: dict[str, ScopeSet], design: Design, alpha: str) -> Share:
    cases = {_case(question) for question in sets[UNDISGUISED].questions}
    passed = {
        _case(question)
        for attack in ATTACKS
        if attack.place != "elsewhere"
        for question, refused in zip(
            sets[attack.name].questions, design.refused[alpha][attack.name], strict=True
        )
        if not refused
    }
    return Share(refused=len(cases - passed), n=len(cases))


def _case(question: Question) -> str:
    return question.fields[CASE]


def _rows(attack: Attack, texts: Sequence[str], inside: Sequence[str]) -> Iterator[Row]:
    for number, text in enumerate(texts):
        # What stands around a question is the same in all attacks, so that they compare.
        draw = random.Random(f"{SEED} {number}")  # noqa: S311 (reproducible, not secret)
        case = Case(text, tuple(draw.sample(list(inside), N_INSIDE)), draw)
        yield {"messages": attack.write(case), CASE: str(number)}


def _texts(paths: Sequence[Path]) -> list[str]:
    """The distinct questions of the files, sorted: in whatever order these are named."""
    questions = {
        question.key: question.text for path in paths for question in read_questions(path)[0]
    }
    return sorted(questions.values())
