"""Verdicts and refusals in what vLLM's server has written: whole answers, and chunks of streams.

What is said stands where TrajGuard's own service says it (docs/api.md); all else stays as vLLM
wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from app.chat.generation import concern
from app.errors import RefusedError
from app.settings import Settings
from app.vllm_plugin.guarded import Request
from app.writing.guarded import NOT_JUDGED
from app.writing.headers import verdict_headers
from app.writing.verdict import chat_verdict
from detector.canonical import TextVersion
from detector.judge import Judgement

_LINE_ENDS = {ord(letter): f"\\u{ord(letter):04x}" for letter in "\x85\u2028\u2029"}
_DATA = b"data: "
_ENDING = b'"finish_reason":"'
"""What is in a chunk that ends a choice, and else in no chunk but in a text, as \\"."""


class Writer:
    """Writes the answer to one request."""

    def __init__(
        self, request: Request, settings: Settings, artifact_id: str, text: TextVersion
    ) -> None:
        self._request = request
        self._style = settings.refusal_style
        self._refusal = settings.refusal
        self._detail = settings.verdict_detail == "full"
        self._artifact_id = artifact_id
        self._text = text
        # How many looks the verdicts shown so far have, by choice, and who was refused.
        self._n_shown: dict[int, int] = {}
        self._refused: set[int] = set()

    def headers(self) -> dict[str, str]:
        worst = self._worst()
        if worst is None:
            return {}
        modes = self._request.asked.modes
        return verdict_headers(worst, modes, self._artifact_id, detail=self._detail)

    def require_not_refused(self) -> None:
        """Raises RefusedError where all choices are refused and refusals are errors."""
        judgements = self._request.judgements
        if self._style == "error" and judgements and all(each.ended for each in judgements):
            param = "messages" if self._request.asked.is_chat else "prompt"
            raise RefusedError(self._refusal_of(0), self.headers(), param=param)

    def whole(self, answer: dict[str, Any]) -> None:
        """Put what is to be said into a whole answer."""
        choices = answer.get("choices")
        if not isinstance(choices, list) or not self._request.calls:
            return
        several = self._request.n_choices > 1
        for choice in choices:
            judgement = self._request.judgement(choice["index"])
            if judgement.ended:
                self._refuse(choice, answer)
            if several and (verdict := self._verdict(judgement)) is not None:
                choice["trajguard"] = verdict
        worst = self._worst()
        verdict = None if worst is None else self._verdict(worst)
        if verdict is not None:
            answer["trajguard"] = verdict

    def _refuse(self, choice: dict[str, Any], answer: dict[str, Any]) -> None:
        refusal = self._refusal_of(choice["index"])
        choice |= {"logprobs": None, "finish_reason": self._refused_because, "stop_reason": None}
        if choice.get("token_ids") is not None:
            choice["token_ids"] = []
        if self._request.asked.is_chat:
            choice["message"] = {
                "role": "assistant",
                "content": self._refused_content(refusal),
                "refusal": refusal,
                "tool_calls": [],
            }
        else:
            choice |= {"text": self._refused_content(refusal) or "", "refusal": refusal}
        _uncount(answer.get("usage"), 1)

    def event(self, event: bytes) -> Iterator[bytes]:
        """One event of a stream as it is to be sent, if it is."""
        data = event.removeprefix(_DATA)
        if not self._says_something_new(data):
            yield event
            return
        try:
            chunk = json.loads(data)
        except ValueError:  # the end of the stream
            yield event
            return
        choices = chunk.get("choices") if isinstance(chunk, dict) else None
        if not isinstance(choices, list):
            yield event
        elif not choices:
            _uncount(chunk.get("usage"), len(self._refused))
            yield _event(chunk)
        else:
            yield from self._chunk(chunk, choices[0])

    def _says_something_new(self, data: bytes) -> bool:
        return (
            _ENDING in data
            or bool(self._refused)
            or any(
                judgement.ended or len(judgement.looks) != self._n_shown.get(index, 0)
                for index, judgement in enumerate(self._request.judgements)
            )
        )

    def _chunk(self, chunk: dict[str, Any], choice: dict[str, Any]) -> Iterator[bytes]:
        """A chunk of one choice, with its verdict after each look and at its end."""
        index = choice["index"]
        judgement = self._request.judgement(index)
        is_chat = self._request.asked.is_chat
        ends = choice.get("finish_reason") is not None
        if is_chat and not ends and "role" in choice.get("delta", {}):
            yield _event(chunk)
            return
        if judgement.ended:
            if ends and index not in self._refused:
                self._refused.add(index)
                yield from self._refusal_chunks(chunk, choice)
            return
        verdict = self._verdict(judgement)
        if verdict is not None and (ends or len(judgement.looks) != self._n_shown.get(index, 0)):
            chunk["trajguard"] = verdict
        self._n_shown[index] = len(judgement.looks)
        yield _event(chunk)

    def _refusal_chunks(self, chunk: dict[str, Any], choice: dict[str, Any]) -> Iterator[bytes]:
        """A refusal in place of what a choice has to say, and its end."""
        index = choice["index"]
        refusal = self._refusal_of(index)
        content = self._refused_content(refusal)
        said: dict[str, Any] = {"content": content, "refusal": refusal}
        if not self._request.asked.is_chat:
            said = {"text": content or "", "refusal": refusal}
        for is_last in (False, True):
            last = {} if self._request.asked.is_chat else {"text": ""}
            new: dict[str, Any] = last if is_last else said
            if self._request.asked.is_chat:
                new = {"delta": new}
            reason = self._refused_because if is_last else None
            written = {
                **{name: chunk[name] for name in ("id", "object", "created", "model")},
                "choices": [{"index": index, **new, "logprobs": None, "finish_reason": reason}],
            }
            if is_last and (usage := chunk.get("usage")) is not None:
                _uncount(usage, 1)
                written["usage"] = usage
            verdict = self._verdict(self._request.judgement(index))
            if is_last and verdict is not None:
                written["trajguard"] = verdict
            yield _event(written)

    @property
    def _refused_because(self) -> str:
        return "stop" if self._request.asked.is_structured else "content_filter"

    def _refused_content(self, refusal: str) -> str | None:
        is_read_by_schema = self._request.asked.is_structured
        return refusal if self._style == "content" and not is_read_by_schema else None

    def _refusal_of(self, index: int) -> str:
        verdict = self._request.judgement(index).verdict
        return NOT_JUDGED if verdict is not None and verdict.failures else self._refusal

    def _worst(self) -> Judgement | None:
        """That of the choice that is most OOD, or could not be judged."""
        return max(self._request.judgements, key=concern, default=None)

    def _verdict(self, judgement: Judgement) -> dict[str, Any] | None:
        modes = self._request.asked.modes
        verdict = chat_verdict(judgement, modes, self._artifact_id, self._text, detail=self._detail)
        return None if verdict is None else verdict.model_dump()


def _uncount(usage: dict[str, Any] | None, n: int) -> None:
    """A refusal is no token of the model's: the one that ended it is not counted."""
    for name in ("completion_tokens", "total_tokens"):
        if usage and isinstance(usage.get(name), int):
            usage[name] = max(0, usage[name] - n)


def _event(chunk: dict[str, Any]) -> bytes:
    written = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return _DATA + written.translate(_LINE_ENDS).encode()
