"""Disguises keep the task: each can be undone, or leaves what is not its own alone."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Callable

import pytest

from calibration.bench.scope import disguises
from detector.canonical import canonical

QUESTION = "Find the sum of all $x$ such that $\\frac{x}{2} = \\sqrt{x + 3}$."


def test_ciphers_are_deciphered() -> None:
    ciphered = [
        disguises.in_base64(QUESTION),
        disguises.in_rot13(QUESTION),
        disguises.backwards(QUESTION),
    ]
    texts = [text.partition("answer it: ")[2] for text in ciphered]
    assert base64.b64decode(texts[0]).decode() == QUESTION
    assert codecs.decode(texts[1], "rot13") == QUESTION
    assert texts[2][::-1] == QUESTION


def test_letters_are_exchanged_and_commands_left_alone() -> None:
    assert disguises.in_leetspeak(QUESTION).startswith("F1nd 7h3 5um 0f 4ll $x$")
    lookalikes = disguises.in_lookalikes(QUESTION)
    assert len(lookalikes) == len(QUESTION)
    assert not lookalikes.isascii()
    hidden = disguises.with_zero_widths(QUESTION)
    assert hidden != QUESTION
    assert hidden.replace("\u200b", "") == QUESTION
    for text in (disguises.in_leetspeak(QUESTION), lookalikes, hidden):
        assert "\\frac{x}{2} = \\sqrt{x + 3}" in text


def test_layout_is_all_that_changes() -> None:
    assert disguises.a_word_a_line(QUESTION).split() == QUESTION.split()
    spaced = disguises.spaced_out("Find the sum")
    assert spaced == "F i n d   t h e   s u m"
    assert disguises.in_capitals("Find $x$") == "FIND $X$"
    assert json.loads(disguises.in_json(QUESTION))["task"] == QUESTION
    assert QUESTION in disguises.in_a_fence(QUESTION)
    assert f"# {QUESTION}" in disguises.as_code(QUESTION)


@pytest.mark.parametrize(
    "disguise",
    [disguises.in_full_width, disguises.with_zero_widths, disguises.in_a_fence],
)
def test_canonical_text_undoes_some(disguise: Callable[[str], str]) -> None:
    assert canonical(disguise(QUESTION)) == canonical(QUESTION)


@pytest.mark.parametrize(
    ("latex", "plain"),
    [
        (QUESTION, "Find the sum of all x such that (x)/(2) = sqrt(x + 3)."),
        ("$\\dfrac12 \\cdot 3 \\leq x^{2}$", "1/2 times 3 at most x^(2)"),
        ("$90^\\circ$ [asy]\ndraw(A--B);\n[/asy] in $\\text{ABC}$", "90 degrees in ABC"),
        ("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "1 2 3 4"),
    ],
)
def test_latex_is_left_out(latex: str, plain: str) -> None:
    assert disguises.without_latex(latex) == plain


def test_spanish_takes_the_longest_phrase_and_keeps_formulas() -> None:
    text = "What is the value of $x$ if $2x = \\int_0^1 t$ and the sum is $3$?"
    assert disguises.half_in_spanish(text) == (
        "¿Cuál es el valor de $x$ si $2x = \\int_0^1 t$ y el suma es $3$?"
    )
