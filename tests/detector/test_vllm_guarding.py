"""The guard inside vLLM's worker: looks at what its steps have run, told and acted on at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.detector import Detector
from detector.fitted_look import Part as LookPart
from detector.judge import Judgement
from detector.planes import Planes
from detector.trajectory import END, PROMPT, PROMPT_MEAN, QUESTION, Look
from detector.vllm.guarding import Guard
from detector.vllm.pooling import Part
from detector.vllm.tickets import KEY, Ticket, hear, read_trajectory
from detector.vllm.watched import SafePool

N_PLANES, WIDTH = 3, 4
LOOKS: tuple[Look, ...] = (PROMPT, PROMPT_MEAN, 2, END)
FAR = 100.0
BOTH = ("prompt", "response")
RESPONSE = Ticket("call", n=1, is_question=False, is_judged=True, refuses=BOTH, fails_closed=BOTH)


def fitted(looks: tuple[Look, ...] = LOOKS) -> Detector:
    """The mean Mahalanobis distance at every look, of Gaussians around 0."""
    draw = torch.Generator().manual_seed(0)

    def random(n: int) -> dict[Look, Planes]:
        return {look: Planes.of(torch.randn(n, N_PLANES, WIDTH, generator=draw)) for look in looks}

    parts = [LookPart(look) for look in looks]
    return Detector.fit(random(60), random(60), parts=parts, rank=2, alpha=0.1)


@dataclass
class Worker:
    """A guard, and the steps that it is shown: states of one number a position."""

    guard: Guard
    pool: SafePool
    said: list[Mapping[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, detector: Detector) -> Worker:
        pool = SafePool(N_PLANES, WIDTH, 8, torch.device("cpu"))
        said: list[Mapping[str, Any]] = []
        # As it goes through the socket.
        guard = Guard(
            detector,
            {0.5: detector.at(0.5, "marginal")},
            pool,
            lambda each: said.append(json.loads(json.dumps(each))),
        )
        return cls(guard, pool, said)

    def step(self, *parts: tuple[str, int, list[float]]) -> None:
        """What runs of each: its name, where it begins, and the states from there on."""
        made, states = [], list[float]()
        for name, start, theirs in parts:
            made.append(Part(name, len(states), start, start + len(theirs)))
            states += theirs
        self.guard.forget_step()
        self.pool.collect(made, planes(states))
        self.guard.step()

    def heard(self, call: str, index: int = 0) -> Judgement:
        """What has been told of a response so far."""
        judgement = RESPONSE.judgement()
        for each in self.said:
            if each["call"] == call and str(index) in each["judged"]:
                hear(judgement, each["judged"][str(index)])
        return judgement


def planes(states: list[float]) -> list[Tensor]:
    return [torch.tensor(states)[:, None].expand(-1, WIDTH) for _ in range(N_PLANES)]


def looks_of(judgement: Judgement) -> list[Look]:
    return [look.look for look in judgement.looks]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return fitted()


@pytest.fixture
def worker(detector: Detector) -> Worker:
    return Worker.of(detector)


def test_a_ticket_comes_back_as_it_went() -> None:
    ticket = replace(RESPONSE, question=(1, 4), exclusions=("a", None, "b"), alpha=0.5, group="g")
    arguments = json.loads(json.dumps({KEY: ticket.written(), "other": 1}))
    read = Ticket.read(arguments)
    assert read is not None
    assert read.question == (1, 4)
    judgement = read.judgement()
    assert (judgement.exclusions.prompt, judgement.exclusions.end) == ("a", "b")
    assert judgement.refuses == judgement.fails_closed == {"prompt", "response"}
    assert Ticket.read(None) is Ticket.read({"other": 1}) is None


def test_looks_are_taken_where_their_tokens_are_drawn_and_told_once(
    worker: Worker, detector: Detector
) -> None:
    """A prompt in two parts, then a response: the means are those of its states."""
    worker.guard.begin("r", (1, 2, 3), RESPONSE)
    worker.step(("r", 0, [0.3, 0.0]))
    assert not worker.said
    worker.step(("r", 2, [0.6]))
    assert looks_of(worker.heard("call")) == [PROMPT_MEAN, PROMPT]
    worker.step(("r", 3, [0.2]))
    worker.step(("r", 4, [0.1]))
    assert looks_of(worker.heard("call")) == [PROMPT_MEAN, PROMPT, 2]
    assert len(worker.said) == 2
    end = worker.guard.end("call", 0)
    assert end == worker.guard.end("call", 0)
    worker.guard.finish("r")
    judgement = worker.heard("call")
    expected = {PROMPT_MEAN: 0.3, PROMPT: 0.6, 2: 0.4, END: 0.3}
    for look in judgement.looks:
        (scored,) = detector.score(look.look, planes_of(expected[look.look]))[0]
        assert look.raw == pytest.approx(scored.raw, rel=1e-5)
    assert worker.guard.end("call", 0) == end  # after vLLM has forgotten it


def planes_of(value: float) -> Tensor:
    return torch.full((1, N_PLANES, WIDTH), value)


def test_a_response_that_nobody_asked_about_at_its_end_is_judged_when_it_is_forgotten(
    worker: Worker,
) -> None:
    worker.guard.begin("r", (1,), RESPONSE)
    worker.step(("r", 0, [0.1]))
    worker.guard.finish("r")
    end = worker.guard.end("call", 0)
    assert end is not None
    assert [look["look"] for look in end["looks"]] == [PROMPT_MEAN, PROMPT, END]
    assert worker.guard.end("another", 0) is None


def test_who_is_refused_ends_before_his_first_token_and_his_neighbours_do_not(
    worker: Worker,
) -> None:
    for name in ("near", "far"):
        worker.guard.begin(name, (1,), replace(RESPONSE, call=name))
    worker.step(("near", 0, [0.1]), ("far", 0, [FAR]))
    assert worker.guard.ends(["near", "far", "stranger"]) == [1]
    assert worker.heard("far").ended
    assert not worker.heard("near").ended


def test_in_other_modes_nobody_is_ended(worker: Worker) -> None:
    worker.guard.begin("far", (1,), replace(RESPONSE, refuses=(), fails_closed=()))
    worker.step(("far", 0, [FAR]))
    assert worker.guard.ends(["far"]) == []
    verdict = worker.heard("call").verdict
    assert verdict is not None
    assert verdict.is_ood


def test_a_question_of_its_own_is_judged_for_its_response_in_the_same_step(worker: Worker) -> None:
    """And ends it there, while the question's own row goes on as it likes."""
    worker.guard.begin("q", (9, 9), replace(RESPONSE, is_question=True, question=(0, 1)))
    worker.guard.begin("r", (1, 2, 3), replace(RESPONSE, is_judged=False))
    worker.step(("q", 0, [FAR, FAR]), ("r", 0, [0.1, 0.1, 0.1]))
    assert worker.guard.ends(["q", "r"]) == [1]
    assert looks_of(worker.heard("call")) == [PROMPT_MEAN, PROMPT]


def test_several_responses_share_what_is_judged_of_their_prompt(worker: Worker) -> None:
    """And each is judged by itself after it; vLLM's names say which is which."""
    ticket = replace(RESPONSE, n=2, is_judged=False)
    worker.guard.begin("q", (9,), replace(ticket, is_question=True, is_judged=True))
    for name in ("0_r", "1_r"):
        worker.guard.begin(name, (1,), ticket)
    worker.step(("q", 0, [0.1]), ("0_r", 0, [0.1]), ("1_r", 0, [0.1]))
    worker.step(("0_r", 1, [0.1]), ("1_r", 1, [FAR]))
    assert worker.guard.ends(["0_r", "1_r"]) == [1]
    assert looks_of(worker.heard("call", 0)) == looks_of(worker.heard("call", 1))
    assert [worker.heard("call", index).ended for index in (0, 1)] == [False, True]


def test_a_ticket_may_ask_for_another_alpha(worker: Worker, detector: Detector) -> None:
    worker.guard.begin("r", (1,), replace(RESPONSE, alpha=0.5))
    worker.step(("r", 0, [0.1]))
    verdict = worker.heard("call").verdict
    assert verdict is not None
    assert (verdict.alpha, verdict.threshold) == (0.5, detector.at(0.5, "marginal").threshold)


def test_who_was_put_aside_is_looked_at_once(worker: Worker) -> None:
    """VLLM runs him again from the start."""
    worker.guard.begin("r", (1, 2), RESPONSE)
    worker.step(("r", 0, [0.1, 0.1]))
    worker.step(("r", 2, [0.3]))
    n_said = len(worker.said)
    worker.step(("r", 0, [5.0, 5.0]))
    worker.step(("r", 2, [5.0]))
    assert len(worker.said) == n_said
    worker.step(("r", 3, [0.3]))
    assert worker.guard.end("call", 0) is not None
    assert worker.guard.ends(["r"]) == []


@pytest.mark.parametrize(("policy", "ends"), [(BOTH, [0]), ((), [])])
def test_what_is_not_finite_fails_by_its_policy(
    worker: Worker, policy: tuple[str, ...], ends: list[int]
) -> None:
    for name, state in (("bad", float("nan")), ("good", 0.1)):
        ticket = replace(RESPONSE, call=name, fails_closed=policy)
        worker.guard.begin(name, (1,), ticket)
        worker.step((name, 0, [state]))
    assert worker.guard.ends(["bad", "good"]) == ends
    failures = worker.heard("bad").verdict.failures  # type: ignore[union-attr]
    assert {look.failure for look in failures} == {"the score is NaN or infinite"}
    assert not worker.heard("good").verdict.failures  # type: ignore[union-attr]


def test_what_cannot_be_pooled_fails_and_no_step_does(worker: Worker) -> None:
    """States that vLLM took from its prefix cache, which nobody has seen."""
    worker.guard.begin("r", (1, 2, 3), RESPONSE)
    worker.guard.begin("later", (1,), replace(RESPONSE, call="later"))
    worker.step(("r", 2, [0.1]))
    verdict = worker.heard("call").verdict
    assert verdict is not None
    assert {look.failure for look in verdict.failures} == {"judging raised EngineError"}
    assert worker.guard.ends(["r"]) == [0]
    worker.step(("r", 3, [0.1]), ("later", 0, [0.1]))
    assert not worker.heard("later").verdict.failures  # type: ignore[union-attr]
    end = worker.guard.end("call", 0)
    assert end is not None


def test_scoring_that_raises_fails_its_requests_and_no_step(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("private")

    monkeypatch.setattr(worker.guard.judge, "observe", broken)
    worker.guard.begin("r", (1,), RESPONSE)
    worker.step(("r", 0, [0.1]))
    assert worker.guard.ends(["r"]) == [0]
    assert "private" not in json.dumps(worker.said)
    verdict = worker.heard("call").verdict
    assert verdict is not None
    assert verdict.failures[0].error == "RuntimeError"


def test_a_question_s_verdict_waits_for_its_response(worker: Worker) -> None:
    """Which is run when its question has long been let go."""
    worker.guard.begin("q", (9,), replace(RESPONSE, is_question=True))
    worker.step(("q", 0, [FAR]))
    worker.guard.finish("q")
    worker.step()
    worker.guard.begin("r", (1,), replace(RESPONSE, is_judged=False))
    worker.step(("r", 0, [0.1]))
    assert worker.guard.ends(["r"]) == [0]


def test_nobody_is_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has ended is forgotten, and of those whose response never comes the oldest."""
    monkeypatch.setattr("detector.vllm.guarding._MOST_IDLE", 5)
    worker = Worker.of(fitted((PROMPT,)))
    for number in range(20):
        name = str(number)
        worker.guard.begin(name, (1,), replace(RESPONSE, call=name))
        worker.step((name, 0, [0.1]))
        worker.guard.finish(name)
    assert not worker.guard._calls
    worker.guard.begin("running", (1,), replace(RESPONSE, call="running"))
    for number in range(20):
        name = f"left-{number}"
        worker.guard.begin(name, (1,), replace(RESPONSE, call=name, is_question=True))
        worker.guard.finish(name)
    assert len(worker.guard._calls) == 5
    assert "running" in worker.guard._calls
    assert list(worker.guard._flights) == ["running"]


def test_what_is_traced_is_told_as_it_is_and_not_judged(worker: Worker) -> None:
    """A response that is given is read with its prompt; one that is not comes step by step."""
    read = replace(RESPONSE, is_question=True, question=(0, 2), traced=True, n_response=2)
    worker.guard.begin("read", (1, 2, 3, 4), read)
    drawn = replace(RESPONSE, call="drawn", traced=True)
    worker.guard.begin("drawn", (1,), drawn)
    worker.step(("read", 0, [0.1, 0.3, 0.5, 0.7]), ("drawn", 0, [0.2]))
    worker.step(("drawn", 1, [FAR]))
    worker.guard.end("drawn", 0)
    assert worker.guard.ends(["read", "drawn"]) == []
    means: dict[str, dict[Look, float]] = {"call": {}, "drawn": {}}
    for said in worker.said:
        trajectory = read_trajectory(said["trajectory"])
        assert trajectory.shape == (N_PLANES, WIDTH)
        means[said["call"]][said["look"]] = trajectory.mean().item()
    assert means["call"] == pytest.approx(
        {QUESTION: 0.2, PROMPT_MEAN: 0.2, PROMPT: 0.3, 2: 0.4, END: 0.4}
    )
    middle = (0.2 + FAR) / 2
    expected = {QUESTION: 0.2, PROMPT_MEAN: 0.2, PROMPT: 0.2, 2: middle, END: middle}
    assert means["drawn"] == pytest.approx(expected)
    for name in ("read", "drawn"):
        worker.guard.finish(name)
    assert not worker.guard._calls
