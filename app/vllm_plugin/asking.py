"""From the body of a request to vLLM's own server to what is to be judged of it.

Of the body the guard reads messages or texts and its own field; all else is vLLM's to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.asking.admission import Admission
from app.policy import Modes, narrow
from app.wire.chat_request import GuardOptions
from app.wire.completion import MAX_PROMPTS
from app.wire.messages import Messages, plain
from app.wire.text import UnicodeText
from app.wire.unserved import refuse_unserved
from detector.backend import Message, RenderedQuestion, Sampling
from detector.errors import InvalidRequestError
from detector.judge import Exclusions
from detector.vllm.tickets import Ticket

_UNGUARDED: dict[str, tuple[object, ...]] = {
    "chat_template": (None,),
    "documents": (None, []),
    "moderation": (None,),
    "truncate_prompt_tokens": (None,),
    "use_beam_search": (None, False),
}
"""What would have a model read what nobody judges, or is not answered as it is asked; by the values
that ask for nothing.
"""

_UNGUARDED_TEXT = {**_UNGUARDED, "prompt_embeds": (None,), "suffix": (None, "")}
_NOT_AS_CALIBRATED = "the prompt is not the calibrated rendering of a question"
_OTHERWISE_DRAWN = ("min_p", "logit_bias", "allowed_token_ids", "bad_words")
"""What else changes a draw of vLLM's, where it is anything at all."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")

    trajguard: GuardOptions = GuardOptions()


class ChatBody(_Body):
    messages: Messages
    tools: list[Any] | None = None
    tool_choice: Any = None
    response_format: Any = None

    @model_validator(mode="before")
    @classmethod
    def _served(cls, body: Any) -> Any:
        return refuse_unserved(body, _UNGUARDED)

    @property
    def may_call(self) -> bool:
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def is_structured(self) -> bool:
        """Whether whoever asked reads the response by a schema, and not as a text."""
        kind = self.response_format.get("type") if isinstance(self.response_format, dict) else None
        must_call = self.may_call and self.tool_choice not in (None, "auto")
        return kind not in (None, "text") or must_call


class TextBody(_Body):
    prompt: UnicodeText | Annotated[list[UnicodeText], Field(min_length=1, max_length=MAX_PROMPTS)]

    @model_validator(mode="before")
    @classmethod
    def _served(cls, body: Any) -> Any:
        return refuse_unserved(body, _UNGUARDED_TEXT)


@dataclass(frozen=True)
class Prompt:
    """One prompt of a request, which vLLM renders by itself.

    `question` is judged in its place, where anything is. `calibrated` are the tokens that it had
    in calibration, where a look depends on that and they could have been such at all.
    """

    messages: Sequence[Message]
    question: RenderedQuestion | None
    calibrated: tuple[int, ...] | None
    has_tools: bool


@dataclass(frozen=True)
class Asked:
    """What one HTTP request asks, of each of its prompts."""

    prompts: tuple[Prompt, ...]
    modes: Modes
    alpha: float | None
    is_chat: bool
    is_structured: bool = False


class Asking:
    """`admission` is to vLLM's model and the artifact."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        context = admission.context
        self._at_prompt = context.judged == "conversation"
        self._at_response = admission.n_seen > 0

    def chat(self, body: ChatBody) -> Asked:
        """Raises InvalidRequestError."""
        admission = self.admission
        messages = plain(body.messages)
        modes = self._modes(body.trajguard)
        admission.require_question(messages)
        admission.require_may_fit([message["content"] for message in messages], "messages")
        calibrated = None
        if (self._at_prompt or self._at_response) and not body.may_call:
            calibrated = admission.codec.encode_conversation(messages, admission.max_length)
        prompt = Prompt(messages, admission.question(messages), calibrated, body.may_call)
        return Asked(
            (prompt,), modes, body.trajguard.alpha, is_chat=True, is_structured=body.is_structured
        )

    def text(self, body: TextBody) -> Asked:
        """Raises InvalidRequestError."""
        modes = self._modes(body.trajguard)
        texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        prompts = []
        for place, text in enumerate(texts):
            param = "prompt" if isinstance(body.prompt, str) else f"prompt.{place}"
            prompts.append(self._text(text, param))
        return Asked(tuple(prompts), modes, body.trajguard.alpha, is_chat=False)

    def _text(self, text: str, param: str) -> Prompt:
        admission = self.admission
        if not text.strip():
            raise InvalidRequestError(
                f"{param} is empty: write the text to go on from", param=param
            )
        admission.require_may_fit([text], param)
        # What the text asks is judged as a user's question is.
        messages: list[Message] = [{"role": "user", "content": text}]
        question = admission.question(messages)
        calibrated = None if question is None else question.tokens
        if question is None:
            calibrated = admission.codec.encode_conversation(messages, admission.max_length)
        return Prompt(messages, question, calibrated, has_tools=False)

    def _modes(self, options: GuardOptions) -> Modes:
        """Raises InvalidRequestError for what only the service does."""
        for name in ("fields", "hold_back", "timeout_seconds"):
            if getattr(options, name):
                raise InvalidRequestError(
                    f"trajguard.{name} is served by TrajGuard's own service alone: leave it out",
                    param=f"trajguard.{name}",
                )
        self.admission.require_alpha(options.alpha)
        mode = narrow(self.admission.settings.mode, options.mode)
        return Modes(mode, mode)

    def ticket(
        self, call: str, asked: Asked, prompt: Prompt, ids: tuple[int, ...], params: Any
    ) -> Ticket:
        """Of a prompt that vLLM has rendered to `ids`, of which it draws by `params`: that of its
        responses.
        """
        settings = self.admission.settings
        exclusions = self._exclusions(prompt, ids, params)
        judgement = self.admission.judgement(prompt.messages, {}, exclusions, asked.modes)
        question = prompt.question
        # Several responses read their prompt from the prefix cache, which knows no states.
        alone = params.n == 1 and (question is None or question.tokens == ids)
        return Ticket(
            call=call,
            n=params.n,
            is_question=False,
            is_judged=alone,
            question=None if question is None else question.span,
            group=judgement.group,
            exclusions=(exclusions.prompt, exclusions.response, exclusions.end),
            refuses=tuple(sorted(judgement.refuses)),
            fails_closed=tuple(sorted(judgement.refuses & settings.fails_closed)),
            alpha=asked.alpha,
        )

    def _exclusions(self, prompt: Prompt, ids: tuple[int, ...], params: Any) -> Exclusions:
        admission = self.admission
        if admission.settings.uncalibrated == "include":
            return Exclusions()
        sampling = sampling_of(params)
        exclusions = admission.exclusions(
            prompt.messages,
            sampling or admission.context.sampling,
            params.max_tokens,
            params.stop or (),
            has_tools=prompt.has_tools,
            is_held=params.structured_outputs is not None,
        )
        at_prompt, at_response = exclusions.prompt, exclusions.response
        if sampling is None:
            at_response = at_response or "the sampling was not calibrated"
        if prompt.calibrated is not None and ids != prompt.calibrated:
            at_response = at_response or _NOT_AS_CALIBRATED
            if prompt.question is None:
                at_prompt = at_prompt or _NOT_AS_CALIBRATED
        return Exclusions(at_prompt, at_response, exclusions.end)


def sampling_of(params: Any) -> Sampling | None:
    """How vLLM draws by these, None for a way that is no `Sampling`."""
    otherwise = any(getattr(params, name, None) for name in _OTHERWISE_DRAWN)
    if otherwise or getattr(params, "thinking_token_budget", None) is not None:
        return None
    return Sampling.model_construct(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=max(params.top_k, 0),
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        min_tokens=params.min_tokens,
        ignore_eos=params.ignore_eos,
    )
