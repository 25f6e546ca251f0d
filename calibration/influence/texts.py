"""What influence is taken between: token texts of which a part is counted.

A document is a question with its answer, read whole, as training reads it. A query is a question
and the response that was served to it, of which the response alone is counted. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

from detector.errors import CalibrationError

if TYPE_CHECKING:
    from calibration.questions import Question
    from detector.backend import Message


class Encoder(Protocol):
    """What is needed of `detector.engine.model.text.Text`."""

    def encode_conversation(self, messages: Sequence[Message], /) -> tuple[int, ...]: ...

    def encode_response(self, response: str, /) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Counted:
    """Tokens, of which those from `first` on are counted: influence is of their log-probability
    given all before. `name` is the question's key and `of` the name of its file.
    """

    name: str
    of: str
    tokens: tuple[int, ...]
    first: int

    def __post_init__(self) -> None:
        assert 0 < self.first < len(self.tokens), "one token before, and one that is counted"

    @property
    def n_counted(self) -> int:
        return len(self.tokens) - self.first


def documents(
    encoder: Encoder, end: int, files: Sequence[tuple[str, Sequence[Question]]]
) -> list[Counted]:
    """Questions with their answers, by the names of their files. What all of them begin with, a
    chat template's own words, is context alone. Raises CalibrationError for one without an answer.
    """
    encoded: list[tuple[str, str, tuple[int, ...], tuple[int, ...]]] = []
    for name, questions in files:
        for question in questions:
            if question.answer is None:
                raise CalibrationError(
                    f"question {question.key} of {name!r} has no answer, and a document is a "
                    "question with one: add a column `answer`",
                    param="documents",
                )
            alone: Message = {"role": "user", "content": question.text.strip()}
            prompt = encoder.encode_conversation([alone])
            answer = (*encoder.encode_response(_written(question.answer)), end)
            encoded.append((question.key, name, prompt, answer))
    columns = zip(*(prompt for _, _, prompt, _ in encoded), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    first = max(1, shared if len(encoded) > 1 else 0)
    return [Counted(key, name, (*prompt, *answer), first) for key, name, prompt, answer in encoded]


def query(
    encoder: Encoder, key: str, name: str, question: str, response: Sequence[int]
) -> Counted | None:
    """A question and the tokens that answered it; None where there are none."""
    alone: Message = {"role": "user", "content": question.strip()}
    prompt = encoder.encode_conversation([alone])
    return Counted(key, name, (*prompt, *response), len(prompt)) if response else None


def digest(*of: object) -> str:
    """What says whether a run goes on with what another one began."""
    return hashlib.sha256(json.dumps(of, default=_plain).encode()).hexdigest()


def batches(texts: Sequence[Counted], most: int) -> Iterator[list[int]]:
    """Places of texts that run together, like lengths beside each other, at most `most` tokens
    with their padding, or one alone.
    """
    batch: list[int] = []
    for place in sorted(range(len(texts)), key=lambda place: len(texts[place].tokens)):
        if batch and (len(batch) + 1) * len(texts[place].tokens) > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _written(answer: Any) -> str:
    """A whole number without its `.0`."""
    whole = isinstance(answer, float) and answer.is_integer()
    return str(int(answer) if whole else answer).strip()


def _plain(value: object) -> object:
    assert isinstance(value, Counted), type(value)
    return asdict(value)
