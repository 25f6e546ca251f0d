"""What is streamed past the guard: the model's own responses to questions in scope and out of it,
and responses that change over to another question's half-way. All of it resumes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.collect import QuestionsFile, collect
from calibration.collection import Collection, CollectionFolder
from calibration.pooling import pooled
from calibration.questions import read_questions
from calibration.responses import read_responses
from detector.atomic import write_atomically
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.model.text import Text
from detector.errors import CalibrationError
from detector.manifest import Context
from detector.trajectory import PROMPT_LOOKS, Look, in_order

SEED = 0
INSIDE = "in-scope"
READ = "in-scope-read-again"
OUTSIDE = "out-of-scope-read-again"
CHANGED = {"in scope": "changed-in-scope", "out of scope": "changed-out-of-scope"}
"""By whose the second half is, the file of responses that change over."""


@dataclass(frozen=True)
class Drawn:
    """Files of the questions drawn: in scope, and of each file out of it by its name."""

    inside: Path
    outside: Mapping[str, Path]


@dataclass(frozen=True)
class Streamed:
    """Collections of the model's own responses, those out of scope by the file they are of."""

    inside: Collection
    outside: Mapping[str, Collection]


@dataclass(frozen=True)
class Changed:
    """Responses that are read: those of the model's own as they were, and those that change over
    after `at` tokens, by whose their second half is.
    """

    inside: Collection
    changed: Mapping[str, Collection]
    at: int


def draw(
    inside: Sequence[Path], outside: Sequence[Path], n: int, n_ood: int, folder: Path
) -> Drawn:
    """`n` questions of all files in scope together, and `n_ood` of each file out of it.

    Raises CalibrationError where there are fewer.
    """
    drawn = {path.stem: folder / f"{path.stem}.jsonl" for path in outside}
    _draw(inside, n, folder / f"{INSIDE}.jsonl")
    for path, out in zip(outside, drawn.values(), strict=True):
        _draw([path], n_ood, out)
    return Drawn(folder / f"{INSIDE}.jsonl", drawn)


def _draw(paths: Sequence[Path], n: int, out: Path) -> None:
    found = {question.key: question for path in paths for question in read_questions(path)[0]}
    if len(found) < n:
        raise CalibrationError(
            f"{', '.join(path.name for path in paths)} hold {len(found)} distinct questions, and "
            f"{n} are to be drawn: ask for fewer or add files",
            param="questions",
        )
    generator = random.Random(f"{SEED} {out.stem}")  # noqa: S311 (reproducible, not secret)
    keys = generator.sample(sorted(found), n)
    _write(out, ({"question": found[key].text} for key in keys))


def stream(
    checkpoint: Checkpoint, drawn: Drawn, looks: Sequence[Look], max_tokens: int, folder: Path
) -> Streamed:
    """The model's own greedy responses, looked at as they are drawn."""
    paths = {INSIDE: drawn.inside, **drawn.outside}
    files = {name: QuestionsFile(*read_questions(p), folder / name) for name, p in paths.items()}
    context = Context(max_tokens=max_tokens)
    collect(checkpoint, list(files.values()), context=context, looks=looks)
    found = {name: CollectionFolder(file.folder).read() for name, file in files.items()}
    inside = found.pop(INSIDE)
    return Streamed(inside, found)


def change_over(
    checkpoint: Checkpoint,
    streamed: Streamed,
    looks: Sequence[Look],
    max_tokens: int,
    folder: Path,
) -> Changed:
    """Responses of holdout questions whose second half is that of another question's, read token by
    token; only those are taken that go on for `max_tokens`. `looks` are taken as they are: see
    `looks_around`.
    """
    at = max_tokens // 2
    text = Text(checkpoint.tokenizer)
    pairs = zip(streamed.inside.texts, streamed.inside.responses, strict=True)
    files = [_given(dict(pairs), folder / f"{READ}.jsonl")]
    whole = _whole(streamed.inside, max_tokens, set(pooled([streamed.inside])["holdout"].texts))
    asked = sorted(whole)
    outside = [
        tokens
        for name in sorted(streamed.outside)
        for _, tokens in sorted(_whole(streamed.outside[name], max_tokens).items())
    ]
    if not asked or not outside:
        raise CalibrationError(
            f"no response goes on for {max_tokens} tokens, to change over: lower --max-tokens",
            param="max-tokens",
        )
    random.Random(SEED).shuffle(outside)  # noqa: S311 (reproducible, not secret)
    others = {
        "in scope": [whole[asked[place - 1]] for place in range(len(asked))],
        "out of scope": [outside[place % len(outside)] for place in range(len(asked))],
    }
    for whose, name in CHANGED.items():
        responses = {
            question: text.decode(whole[question][:at]) + text.decode(other[at:])
            for question, other in zip(asked, others[whose], strict=True)
        }
        files.append(_given(responses, folder / f"{name}.jsonl"))
    context = Context(responses="given", max_tokens=max_tokens)
    collect(checkpoint, files, context=context, looks=looks)
    inside, *changed = [CollectionFolder(file.folder).read() for file in files]
    return Changed(inside, dict(zip(CHANGED, changed, strict=True)), at)


def read_whole(
    checkpoint: Checkpoint,
    streamed: Streamed,
    looks: Sequence[Look],
    max_tokens: int,
    folder: Path,
) -> Collection:
    """The responses to questions out of scope, read token by token as they are."""
    pairs = {
        question: response
        for collection in streamed.outside.values()
        for question, response in zip(collection.texts, collection.responses, strict=True)
    }
    file = _given(pairs, folder / f"{OUTSIDE}.jsonl")
    collect(
        checkpoint, [file], context=Context(responses="given", max_tokens=max_tokens), looks=looks
    )
    return CollectionFolder(file.folder).read()


def looks_around(looks: Sequence[Look], at: int) -> list[Look]:
    """Those given, and as many tokens after `at` as these are after the beginning."""
    after = [at + look for look in looks if look not in PROMPT_LOOKS and look <= at]
    return in_order({*looks, *after})


def _whole(
    collection: Collection, max_tokens: int, among: set[str] | None = None
) -> dict[str, tuple[int, ...]]:
    """The tokens of responses that were cut at `max_tokens`, by their questions' texts."""
    return {
        text: tokens
        for text, tokens in zip(collection.texts, collection.tokens, strict=True)
        if len(tokens) >= max_tokens and (among is None or text in among)
    }


def _given(responses: Mapping[str, str], path: Path) -> QuestionsFile:
    # In one order, whatever order they were finished in: the file must be the same in every run.
    _write(path, ({"question": q, "response": r} for q, r in sorted(responses.items())))
    read = read_responses(path, judged="question", made_by="the model itself, read again")
    return QuestionsFile(read.questions, read.source, path.with_suffix(""), read.responses)


def _write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
