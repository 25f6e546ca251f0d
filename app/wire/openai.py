"""The wire models of OpenAI's chat completions, as far as TrajGuard serves them.

Unknown request fields are accepted and ignored, as clients expect. Fields whose effect
cannot be served are refused by name rather than ignored. Lists have a most, so that no request
can cost much before its length is known.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.policy import Mode
from app.wire.text import Unicode, UnicodeText
from app.wire.unserved import UNSERVED, UNSERVED_IN_MESSAGES, refuse_unserved
from app.wire.verdict import ChatVerdict, DecisionVerdict

FinishReason = Literal["stop", "length", "content_filter"]

MAX_MESSAGES = 2048
MAX_PARTS = 256
MAX_STOP_TEXTS = 4
MAX_STOP_LENGTH = 1024
MAX_FIELDS = 64
MAX_FIELD_LENGTH = 1024


def _absent(value: object) -> bool:
    return value is None


class TextPart(BaseModel):
    type: Literal["text"]
    text: UnicodeText


class Message(BaseModel):
    """One message; content is a text or a list of text parts, and an assistant's may be null."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str | Annotated[list[TextPart], Field(max_length=MAX_PARTS)] | None, Unicode]

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    @model_validator(mode="before")
    @classmethod
    def _served(cls, message: Any) -> Any:
        message = refuse_unserved(message, UNSERVED_IN_MESSAGES)
        if isinstance(message, dict) and message.get("role") == "assistant":
            # Of one that refused or called a tool, nothing is said.
            return {"content": None, **message}
        return message

    @model_validator(mode="after")
    def _null_is_the_assistant_s(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise ValueError("content is null, which only an assistant's may be: write a text")
        return self


Messages = Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
FieldText = Annotated[UnicodeText, Field(max_length=MAX_FIELD_LENGTH)]
Fields = Annotated[
    dict[FieldText, FieldText],
    Field(max_length=MAX_FIELDS, description="fields of the question, for a grouped artifact"),
]


class StreamOptions(BaseModel):
    include_usage: bool = False


class GuardOptions(BaseModel):
    """TrajGuard's own request field."""

    model_config = ConfigDict(extra="forbid")

    mode: Mode | None = Field(default=None, description="stricter than the service's, never looser")
    fields: Fields = Field(default_factory=dict)
    timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="time the request may take, if less than the service allows",
    )


StopText = Annotated[str, Field(max_length=MAX_STOP_LENGTH)]


class ChatRequest(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "messages": [
                    {"role": "user", "content": "Mia has 4 boxes of 6 pens. How many pens?"}
                ]
            }
        }
    )

    messages: Messages
    model: Annotated[UnicodeText, Field(max_length=MAX_FIELD_LENGTH)] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    repetition_penalty: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool | None = None
    n: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[
        StopText | Annotated[list[StopText], Field(max_length=MAX_STOP_TEXTS)] | None, Unicode
    ] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    trajguard: GuardOptions = GuardOptions()

    @property
    def stop_texts(self) -> list[str]:
        texts = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in texts if text]

    @property
    def response_length(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @model_validator(mode="before")
    @classmethod
    def _served(cls, body: Any) -> Any:
        return refuse_unserved(body, UNSERVED)


class TopLogprob(BaseModel):
    token: str = Field(description="the token's text; bytes of part of a character show as U+FFFD")
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """Natural logarithm, before temperature, penalties and any limit on the draw."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class ResponseMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None


class Choice(BaseModel):
    index: int
    message: ResponseMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason
    trajguard: ChatVerdict | DecisionVerdict | None = Field(
        default=None, description="the choice's own, when there are several", exclude_if=_absent
    )


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    trajguard: ChatVerdict | DecisionVerdict | None = Field(
        default=None,
        description="of the choice that is most OOD; absent in shadow mode",
        exclude_if=_absent,
    )


class Delta(BaseModel):
    role: Literal["assistant"] | None = Field(default=None, exclude_if=_absent)
    content: str | None = Field(default=None, exclude_if=_absent)
    refusal: str | None = Field(default=None, exclude_if=_absent)


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    trajguard: ChatVerdict | DecisionVerdict | None = Field(default=None, exclude_if=_absent)


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "trajguard"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
