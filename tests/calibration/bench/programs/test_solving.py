"""SolverLearner on recorded responses: what is run, and what label each gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.bench.paper.programs.answering import answered
from calibration.bench.paper.programs.sets import program_sets
from calibration.bench.paper.programs.solving import (
    Problem,
    Solved,
    code_of,
    read_problems,
    same,
    solve,
)
from calibration.bench.sandbox.running import Limits, Sandbox
from detector.errors import QuestionsError

ADD = "def solver(a, b):\n    return {}"
DOUBLE = Problem(
    "doubling",
    "solver(n: int) -> int",
    examples=(([2], 4), ([3], 6)),
    held_out=(([50], 100), ([7], 14)),
)


def solved(response: str, problem: Problem = DOUBLE) -> Solved:
    return solve(Sandbox(Limits(cpu_s=1)), problem, response)


@pytest.mark.parametrize(
    "response",
    [
        "The pattern is doubling.\nSTART_CODE\ndef solver(n):\n    return n * 2\nEND_CODE\nDone.",
        "START_CODE\n```python\ndef solver(n):\n    return n * 2\n```\nEND_CODE",
        "START_CODE\nimport math\ndef solver(n):\n    return n * 2\nprint(solver(3))",
        "Here:\n```python\nimport math\n\ndef solver(n):\n    return n * 2\n```\nas you see.",
        "def solver(n):\n    # twice\n\n    return n * 2\nThis doubles it.",
        "Sure!\n```\nprint(1)\n```\nand\n```python\ndef solver(n): return n * 2\n```",
    ],
)
def test_the_function_is_found_in_whatever_stands_around_it(response: str) -> None:
    found = solved(response)
    assert found.solves
    assert found.fits
    assert found.ended == "answer"


@pytest.mark.parametrize("response", ["", "I cannot tell.", "```python\ndef other(): pass\n```"])
def test_without_a_function_nothing_is_run(response: str) -> None:
    assert code_of(response) is None
    found = solved(response)
    assert not found.wrote
    assert not found.fits
    assert not found.solves
    assert found.ended == "nothing written"


def test_examples_by_heart_fit_and_do_not_solve() -> None:
    found = solved("def solver(n):\n    return {2: 4, 3: 6}[n]")
    assert found.fits
    assert not found.solves
    assert found.ended == "error"


def test_one_wrong_input_is_no_solution() -> None:
    found = solved("def solver(n):\n    return 100 if n == 50 else n + 2 if n < 3 else n * 3")
    assert found.right_held_out == (True, False)
    assert not found.solves


@pytest.mark.parametrize(
    ("body", "ended"),
    [
        ("while True: pass", "time"),
        ("import os; os.system('true')", "forbidden"),
        ("return [0] * 10**9", "memory"),
        ("return n.x", "error"),
        ("return 'x' * 10**6", "output"),
    ],
)
def test_what_a_function_tries_is_its_label(body: str, ended: str) -> None:
    found = solved(f"def solver(n):\n    {body}")
    assert found.ended == ended
    assert not found.solves


def test_the_answer_is_not_in_the_sandbox() -> None:
    """A program that searches its process for what it should say finds none of it."""
    body = (
        "import sys\ndef solver(n):\n    frame, found = sys._getframe(), []\n"
        "    while frame:\n        found += [v for v in frame.f_locals.values() "
        "if isinstance(v, dict) and 'calls' in v]\n        frame = frame.f_back\n"
        "    return found"
    )
    value = solved(body).held_out[0].value
    assert isinstance(value, list)
    (job,) = value
    assert job == {
        "program": body,
        "function": "solver",
        "calls": [[2], [3], [50], [7]],
        "cpu_s": 1,
        "memory_mb": 256,
    }


def test_a_number_stands_for_its_text() -> None:
    assert same(23, "23")
    assert same([1, 2], [1, 2])
    assert not same(23, "24")
    assert not same(True, 1)
    problem = Problem(
        "sum", "solver(a: str, b: str) -> str", ((["1", "2"], "3"),), ((["4", "5"], "9"),)
    )
    assert solved(ADD.format("int(a) + int(b)"), problem).solves


def test_every_family_is_solved_by_its_own_program(tmp_path: Path) -> None:
    """The right answer, written as a model would, in each task's signature."""
    right = {
        "add-base-9": "def solver(a, b, c):\n    n, s = sum(int(x, 9) for x in (a, b, c)), ''\n"
        "    while n:\n        s, n = str(n % 9) + s, n // 9\n    return s",
        "order-osv": "def solver(s):\n    a, b, c = s.split()\n    return f'{c} {a} {b}'",
        "space-mirror-x": "def solver(x, y):\n    return (8 - x, y)",
        "cipher-shift-1": "def solver(t):\n    return ''.join(chr((ord(c) - 96) % 26 + 97) "
        "for c in t)",
        "case-number-digits-reversed": "def solver(n):\n    return int(str(n)[::-1])",
        "case-total-spread": "def solver(v):\n    return max(v) - min(v)",
        "case-list-rotate": "def solver(v):\n    return v[1:] + v[:1]",
        "case-text-swap-halves": "def solver(t):\n    return t[2:] + t[:2]",
    }
    sets = program_sets(2, seed=5)
    for name, program in right.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in sets[name]))
        for problem in read_problems(path):
            assert repr(problem.examples[0][1]) in problem.prompt
            assert solved(f"START_CODE\n{program}\nEND_CODE", problem).solves, name
            others = [other for other in right if other != name]
            assert not any(solved(right[other], problem).solves for other in others)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "2 ->", "answer": 4},
        {"family": "f", "signature": "solver(n)", "examples": [], "held_out": [[[1], 2]]},
        {"family": "f", "signature": "solver(n)", "examples": [[[1], 2]], "held_out": [[1]]},
    ],
)
def test_other_files_are_refused(row: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"question": "2 ->"} | row))
    with pytest.raises(QuestionsError, match=r"set\.jsonl"):
        read_problems(path)


@pytest.mark.parametrize(
    ("response", "answer", "right"),
    [
        (" 115\n\nThe sum", "115", True),
        ("55 + 60 = 115", "115", True),
        ("\n`115`.", "115", True),
        (" 1150", "115", False),
        (" 115 or 116", "115", False),
        ("The answer is 115.", "115", False),
        (" [6, 5]\n[1, 9", "[6, 5]", True),
        ("Eve sees Dan -> sees Eve Dan", "sees Eve Dan", True),
        ("sees Dan Eve", "sees Eve Dan", False),
        (" 9", 9, True),
        ("", "115", False),
        (" \n \n", "", False),
    ],
)
def test_answers_are_exact(response: str, answer: object, right: bool) -> None:
    assert answered(response, answer) is right
