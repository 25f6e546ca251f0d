"""Ask a running service questions from files, and count what it refuses or flags."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
from tqdm import tqdm

from calibration.questions import Question, Split, contained, is_made, read_questions
from calibration.templates import splits_and_templates
from detector.conformal import proportion_interval
from detector.errors import CalibrationError

KEY_VARIABLE = "TRAJGUARD_API_KEY"
"""In the environment, where no list of processes shows it."""

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


def ask(url: str, questions: Sequence[Question], max_tokens: int) -> Counter[str]:
    """How many questions met each decision of the service at `url`, with the key that
    TRAJGUARD_API_KEY holds, if it holds one.

    Raises CalibrationError when the service cannot be reached or answers with an error.
    """

    def one(question: Question) -> str:
        body = {"messages": list(question.messages), "max_tokens": max_tokens}
        response = client.post("/v1/chat/completions", json=body)
        if response.status_code != 200:
            raise CalibrationError(
                f"the service answered {response.status_code}: "
                f"{response.json()['error']['message']}",
                param="url",
            )
        verdict = response.json().get("trajguard")
        return "unjudged (shadow mode)" if verdict is None else str(verdict["decision"])

    key = os.environ.get(KEY_VARIABLE)
    headers = {"x-api-key": key} if key else {}
    try:
        with (
            httpx2.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS) as client,
            ThreadPoolExecutor(_CLIENTS) as pool,
        ):
            decisions = pool.map(one, questions)
            return Counter(tqdm(decisions, total=len(questions), unit="question", file=sys.stderr))
    except httpx2.TransportError as error:
        raise CalibrationError(
            f"the service at {url!r} cannot be reached ({type(error).__name__}): start it with "
            "`make serve` or correct the address",
            param="url",
        ) from None


def describe(decisions: Counter[str]) -> str:
    """A line for each decision, with its share and 95 % interval."""
    n = decisions.total()
    lines = []
    for decision, count in decisions.most_common():
        low, high = proportion_interval(count, n)
        lines.append(
            f"{decision}: {count} of {n} = {count / n:.1%}, 95 % interval {low:.1%} to {high:.1%}"
        )
    return "\n".join(lines)
