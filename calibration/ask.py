"""Ask a running service questions from files, and count what it refuses or flags."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
from tqdm import tqdm

from calibration.questions import Question, Split, contained, is_made, read_questions
from calibration.templates import splits_and_templates
from detector.conformal import proportion_interval
from detector.errors import CalibrationError

KEY_VARIABLE = "TRAJGUARD_API_KEY"
"""In the environment, where no list of processes shows it."""

UNJUDGED = "unjudged (shadow mode, or a response that ended before the first look)"
_CLIENTS = 8
_TIMEOUT_SECONDS = 300


def choose(
    paths: Sequence[Path],
    column: str | None,
    split: Split | None,
    n: int | None,
    *,
    known_templates: bool = False,
) -> list[Question]:
    """`n` distinct questions, from all files together, drawn by their keys: the same
    every time, and favouring no file. All of them if `n` is None. Splits are those of `fit` on
    these files.

    Raises CalibrationError when the files hold fewer, or none of the split.
    """
    distinct = {q.key: q for path in paths for q in read_questions(path, column)[0]}
    chosen = list(distinct.values())
    if split is not None:
        typed = {key: q.text for key, q in distinct.items() if not is_made(q.fields)}
        splits, _ = splits_and_templates(typed, known_templates=known_templates)
        chosen = [
            q
            for key, q in distinct.items()
            if all(splits.get(of) == split for of in contained(key, q.fields))
        ]
    where = f"the {split} split of the files" if split else "the files"
    if not chosen:
        raise CalibrationError(
            f"{where} holds no question: give more files or another --split", param="split"
        )
    if n is not None and len(chosen) < n:
        raise CalibrationError(
            f"{where} holds {len(chosen)} distinct questions, {n} were asked for: lower --n or "
            "give more files",
            param="n",
        )
    # A key's first digits decide its split, so the order goes by its last ones.
    return sorted(chosen, key=lambda question: question.key[::-1])[:n]


@dataclass(frozen=True)
class Answer:
    """What a service decided on a question, at which stage, and how many tokens it drew."""

    decision: str
    stage: str | None
    n_tokens: int


def ask(
    url: str, questions: Sequence[Question], max_tokens: int, *, stream: bool = False
) -> list[Answer]:
    """The service at `url` asked each question, with the key that TRAJGUARD_API_KEY holds, if it
    holds one.

    Raises CalibrationError when the service cannot be reached or answers with an error.
    """

    def one(question: Question) -> Answer:
        body = {"messages": list(question.messages), "max_tokens": max_tokens}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        response = client.post("/v1/chat/completions", json=body)
        pieces = _events(response.text) if stream and response.is_success else [response.json()]
        for error in (piece["error"] for piece in pieces if "error" in piece):
            status = "" if response.is_success else f" {response.status_code}"
            raise CalibrationError(f"the service answered{status}: {error['message']}", param="url")
        usage = [piece["usage"] for piece in pieces if piece.get("usage")][-1]
        verdicts = [piece["trajguard"] for piece in pieces if piece.get("trajguard")]
        n_tokens = int(usage["completion_tokens"])
        if not verdicts:
            return Answer(UNJUDGED, None, n_tokens)
        return Answer(str(verdicts[-1]["decision"]), verdicts[-1]["stage"], n_tokens)

    key = os.environ.get(KEY_VARIABLE)
    headers = {"x-api-key": key} if key else {}
    try:
        with (
            httpx2.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS) as client,
            ThreadPoolExecutor(_CLIENTS) as pool,
        ):
            answers = pool.map(one, questions)
            return list(tqdm(answers, total=len(questions), unit="question", file=sys.stderr))
    except httpx2.TransportError as error:
        raise CalibrationError(
            f"the service at {url!r} cannot be reached ({type(error).__name__}): start it with "
            "`make serve` or correct the address",
            param="url",
        ) from None


def _events(body: str) -> list[Any]:
    """What a stream said, piece by piece."""
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line[:6] == "data: "]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def describe(answers: Sequence[Answer]) -> str:
    """A line for each decision, with its share and 95 % interval; and how many tokens were drawn,
    in all and where a response was refused on its way.
    """
    n, lines = len(answers), []
    for decision, count in Counter(answer.decision for answer in answers).most_common():
        low, high = proportion_interval(count, n)
        lines.append(
            f"{decision}: {count} of {n} = {count / n:.1%}, 95 % interval {low:.1%} to {high:.1%}"
        )
    drawn = f"{sum(answer.n_tokens for answer in answers)} tokens drawn"
    ended = [a.n_tokens for a in answers if (a.decision, a.stage) == ("refuse", "response")]
    if ended:
        drawn += (
            f"; {len(ended)} responses ended by a look at them, after {median(ended):g} tokens in "
            "the median"
        )
    return "\n".join([*lines, drawn])
