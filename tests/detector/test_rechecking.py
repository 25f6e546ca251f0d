"""One round of checking itself, against the algorithm written out, and when its answer goes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest
from pydantic import ValidationError

from detector.backend import Ask, Message
from detector.critique import told
from detector.errors import EngineError
from detector.judge import Judge
from detector.manifest import Context
from detector.recheck_record import Rechecking
from detector.rechecking import FLAGGED, MORE_OOD, UNFINISHED, UNSEEN, Outcome, Round
from detector.trajectory import Look, parse_look
from tests.app.recorded import (
    END_TOKEN,
    RecordedBackend,
    RecordedDetector,
    Scores,
    _FittedLook,
)
from tests.app.recorded_codec import RecordedCodec
from tests.checking_model import ASKING, CheckingModel

if TYPE_CHECKING:
    from detector.detector import Detector

QUESTION = "What is 3 and 4?"


def by_text(first: float, second: float, at: str = "response") -> Scores:
    """The scores of the two answers, and of a question that is flagged."""

    def scores(ask: Ask, look: Look) -> float:
        text = bytes((*ask.prompt, *(ask.response or ()))).decode(errors="replace")
        if at == "response" and look < 2:
            return 3.0
        if at == "prompt" and "\n\nIt is" not in text:
            return 3.0
        return second if "It is 7." in text else first

    return scores


def ran(
    model: CheckingModel,
    scores: Scores,
    *,
    looks: Sequence[str] = ("prompt", "4"),
    messages: Sequence[Message] = ({"role": "user", "content": QUESTION},),
    context: Context | None = None,
    **given: Any,
) -> tuple[Outcome, list[Ask]]:
    parsed = [parse_look(look) for look in looks]
    detector = cast("Detector", RecordedDetector(tuple(map(_FittedLook, parsed))))
    judge = Judge(detector)
    backend = RecordedBackend(
        judge.observe,
        parsed,
        scores,
        model,
        n_slots=4,
        max_length=512,
        max_queue=8,
        max_queue_tokens=4096,
        clock=lambda: 0.0,
    )
    codec, context = RecordedCodec(), context or Context()
    one = Round(codec, ASKING, context, detector, messages, max_length=512, **given)
    asks = []
    while (due := one.due) is not None:
        asks.append(due.ask)
        judge.watch(due.ask, due.judgement)
        backend.submit(due.ask)
        while backend.busy:
            for step in backend.step():
                one.push(step)
    return one.outcome, asks


def transcribed(asking: Rechecking, question: str, model: CheckingModel, p: str) -> list[str]:
    """The authors' `self_checking_response` with one round, their messages as they append them,
    and the prompts that come of it; the p-value is ours.
    """
    conv = []
    conv.append(question)
    prompts = ["\n".join(conv)]
    conv.append(model.first)
    conv.append(asking.check.replace("{p_value}", p))
    prompts.append("\n".join(conv))
    conv.append(model.critique)
    conv.append(asking.again.replace("{question}", question))
    prompts.append("\n".join(conv))
    return prompts


def test_it_asks_what_the_algorithm_asks_and_no_second_time() -> None:
    model = CheckingModel()
    outcome, asks = ran(model, by_text(0.5, 0.0))
    expected = transcribed(ASKING, QUESTION, model, "0.01")
    prompts = [bytes(ask.prompt).decode() for ask in asks]
    assert prompts[:3] == expected
    assert prompts[3:] == [QUESTION], "the second answer is read after the question alone"
    assert bytes(asks[3].response or ()) == b"It is 7.\0"
    assert outcome.texts == (model.first, model.critique, model.second)
    assert (outcome.sends, outcome.reason) == (True, None)
    assert outcome.response == (*b"It is 7.", END_TOKEN)
    assert outcome.finish == "stop"
    assert outcome.p_value == 0.01
    assert [ask.max_tokens for ask in asks[:3]] == [32, 24, 32]
    assert all(ask.uncounted for ask in asks)
    n_read = sum(map(len, expected)) + len(QUESTION)
    n_made = len(model.first) + len(model.critique) + len(model.second) + 3
    n_again = len(model.second) + 1
    assert outcome.n_tokens == n_read + n_made + n_again
    assert outcome.n_plain == len(QUESTION) + 9


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [(0.5, 0.5, None), (0.5, 0.4, None), (0.5, 0.6, MORE_OOD), (2.0, 1.5, FLAGGED)],
)
def test_the_second_answer_goes_out_unless_it_is_more_ood_or_flagged(
    first: float, second: float, reason: str | None
) -> None:
    outcome, _ = ran(CheckingModel(), by_text(first, second))
    assert (outcome.sends, outcome.reason) == (reason is None, reason)
    assert [look.score for look in outcome.looks] == [second]
    assert outcome.second is not None
    assert outcome.second.score == second


def test_the_same_answer_again_is_not_more_ood_and_is_not_read_again() -> None:
    outcome, asks = ran(CheckingModel(second="It is 5."), by_text(0.5, 9.0))
    assert outcome.sends
    assert len(asks) == 3


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.25), (0.25, 0.5), (5.0, 4.0)])
def test_looks_at_the_prompt_alone_see_the_question_with_each_answer(
    first: float, second: float
) -> None:
    """There nothing more is asked of the second: the question is flagged, and so is what has it."""
    scores = by_text(first, second, at="prompt")
    outcome, asks = ran(CheckingModel(), scores, looks=("prompt", "question"))
    assert outcome.sends == (second <= first)
    assert outcome.reason == (None if second <= first else MORE_OOD)
    assert outcome.looks == ()
    read = [bytes(ask.prompt).decode() for ask in asks[3:]]
    assert read == [f"{QUESTION}\n\nIt is 5.", f"{QUESTION}\n\nIt is 7."]
    assert all(ask.response == () for ask in asks[3:])


def test_a_judged_conversation_is_read_with_each_answer_too() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    outcome, asks = ran(
        CheckingModel(),
        by_text(0.5, 0.25, at="prompt"),
        looks=("prompt",),
        messages=messages,
        context=Context(judged="conversation"),
    )
    assert outcome.sends
    assert bytes(asks[3].prompt).decode() == f"Be brief.\n{QUESTION}\n\nIt is 5."


def test_an_answer_without_an_end_goes_out_only_where_the_client_wants_no_more() -> None:
    model = CheckingModel(ends=False)
    outcome, _ = ran(model, by_text(0.5, 0.25))
    assert (outcome.sends, outcome.reason) == (False, UNFINISHED)
    outcome, asks = ran(model, by_text(0.5, 0.25), max_tokens=12)
    assert outcome.sends
    assert outcome.finish == "length"
    assert outcome.response == tuple(b"It is 7. It i")[:12]
    assert [ask.max_tokens for ask in asks[:3]] == [12, 24, 12]


def test_answers_of_which_no_look_sees_both_are_not_compared() -> None:
    outcome, _ = ran(CheckingModel(second="7"), by_text(0.5, 0.25))
    assert (outcome.sends, outcome.reason) == (False, UNSEEN)
    assert outcome.second is None


@pytest.mark.parametrize(("first", "second"), [(math.nan, 0.5), (0.5, math.nan), (0.5, math.inf)])
def test_what_cannot_be_judged_is_an_error(first: float, second: float) -> None:
    with pytest.raises(EngineError, match="judged"):
        ran(CheckingModel(), by_text(first, second))


def test_the_same_question_draws_the_same_answers() -> None:
    _, asks = ran(CheckingModel(), by_text(0.5, 0.25))
    _, again = ran(CheckingModel(), by_text(0.5, 0.25))
    assert [ask.seed for ask in asks] == [ask.seed for ask in again]
    assert len({ask.seed for ask in asks[:3]}) == 3


@pytest.mark.parametrize(
    ("critique", "right"),
    [
        ("Correct. The sum is right.", True),
        ("Incorrect: it should be 7.", False),
        ("**incorrect**", False),
        ("The answer is not correct, as 3 + 4 = 7.", False),
        ("The answer isn't quite right.", False),
        ("Yes, it adds up.", True),
        ("No. It is 7.", False),
        ("The answer is wrong.", False),
        ("I know nothing of this.", None),
        ("", None),
    ],
)
def test_what_a_critique_says(critique: str, right: bool | None) -> None:
    assert told(critique) is right


@pytest.mark.parametrize(("name", "mark"), [("check", "p_value"), ("again", "question")])
def test_what_is_asked_has_what_it_must_say(name: str, mark: str) -> None:
    with pytest.raises(ValidationError, match=mark):
        Rechecking(**{name: "Is it right?"})  # type: ignore[arg-type]
