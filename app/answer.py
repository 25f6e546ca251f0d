"""A completion in OpenAI's shapes: whole, or in the chunks of a stream."""

from __future__ import annotations

from collections.abc import Sequence

from app.completion import Completion
from app.guard import Judgement
from app.protocol.logprobs import ChoiceLogprobs
from app.protocol.openai import (
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    Delta,
    ResponseMessage,
)
from app.protocol.verdict import ChatVerdict, chat_verdict
from app.response import Piece
from app.service import Service


class Answer:
    """Writes a completion's pieces. `with_logprobs` says whether the client asked for them."""

    def __init__(self, completion: Completion, service: Service, *, with_logprobs: bool) -> None:
        self._completion = completion
        self._service = service
        self._with_logprobs = with_logprobs
        self._refusal = service.settings.refusal

    def whole(self, pieces: Sequence[Piece]) -> ChatCompletion:
        """All pieces of all choices, in the order in which they came."""
        completion = self._completion
        return ChatCompletion(
            id=completion.id,
            created=completion.created,
            model=completion.model,
            choices=[
                self._choice(index, [piece for piece in pieces if piece.index == index])
                for index in range(len(completion.judgements))
            ],
            usage=completion.usage,
            trajguard=self._verdict(completion.judgement),
        )

    def _choice(self, index: int, pieces: Sequence[Piece]) -> Choice:
        finish_reason = pieces[-1].finish_reason
        assert finish_reason is not None
        refused = finish_reason == "content_filter"
        judgements = self._completion.judgements
        return Choice(
            index=index,
            # The refusal stands in both fields, because some gateways drop `refusal`.
            message=ResponseMessage(
                content=self._refusal if refused else "".join(piece.text for piece in pieces),
                refusal=self._refusal if refused else None,
            ),
            logprobs=None if refused else self._logprobs(pieces),
            finish_reason=finish_reason,
            trajguard=self._verdict(judgements[index]) if len(judgements) > 1 else None,
        )

    def opening(self) -> list[ChatChunk]:
        """What a stream begins with: the role, for each choice."""
        role = Delta(role="assistant", content="")
        return [
            self._chunk(ChunkChoice(index=index, delta=role))
            for index in range(len(self._completion.judgements))
        ]

    def chunks(self, piece: Piece) -> list[ChatChunk]:
        """A piece; the last one of a choice carries its verdict."""
        index, chunks = piece.index, []
        if piece.finish_reason == "content_filter":
            refusal = Delta(content=self._refusal, refusal=self._refusal)
            chunks.append(self._chunk(ChunkChoice(index=index, delta=refusal)))
        elif piece.text or piece.logprobs:
            choice = ChunkChoice(
                index=index, delta=Delta(content=piece.text), logprobs=self._logprobs([piece])
            )
            chunks.append(self._chunk(choice))
        if piece.finish_reason is not None:
            choice = ChunkChoice(index=index, delta=Delta(), finish_reason=piece.finish_reason)
            verdict = self._verdict(self._completion.judgements[index])
            chunks.append(self._chunk(choice, verdict=verdict))
        return chunks

    def usage(self) -> ChatChunk:
        chunk = self._chunk()
        chunk.usage = self._completion.usage
        return chunk

    def _chunk(self, *choices: ChunkChoice, verdict: ChatVerdict | None = None) -> ChatChunk:
        return ChatChunk(
            id=self._completion.id,
            created=self._completion.created,
            model=self._completion.model,
            choices=list(choices),
            trajguard=verdict,
        )

    def _logprobs(self, pieces: Sequence[Piece]) -> ChoiceLogprobs | None:
        if not self._with_logprobs:
            return None
        logprobs = [each for piece in pieces for each in piece.logprobs]
        return ChoiceLogprobs.of(logprobs, self._service.text)

    def _verdict(self, judgement: Judgement) -> ChatVerdict | None:
        return chat_verdict(judgement, self._service.artifact.id)
