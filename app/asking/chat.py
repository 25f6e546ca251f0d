"""What a chat completion's request asks for."""

from __future__ import annotations

import math
from typing import TypeVar

from app.asking.admission import Admission
from app.asking.asked import Asked, asked_by
from app.asking.structured import grammar_of, tools_of
from app.policy import Mode, Modes, narrow, stricter
from app.wire.chat_request import ChatRequest
from app.wire.completion import CompletionRequest
from app.wire.messages import plain
from app.wire.moderation import ModerationPolicy
from app.wire.sampling import SamplingFields
from detector.backend import Ask, Sampling
from detector.errors import InvalidRequestError

T = TypeVar("T")

_POLICIES: dict[str, Mode] = {"score": "flag", "block": "refuse"}
"""What OpenAI calls them."""

MAX_TOKENS = 512
"""Response length where neither the request, a setting nor the artifact says one."""


def ask_chat(admission: Admission, body: ChatRequest) -> Asked:
    """Responses to generate. Raises InvalidRequestError."""
    settings = admission.settings
    n = _require_served(admission, body)
    modes = modes_of(settings.mode, body)
    admission.require_alpha(body.trajguard.alpha)
    messages = plain(body.messages)
    admission.require_question(messages)
    sampling = sampling_of(admission.context.sampling, body)
    grammar, tools = grammar_of(admission.codec, body), tools_of(body)
    prompt = admission.prompt(messages, tools)
    max_tokens = body.response_length or _default_max_tokens(admission, len(prompt))
    if sampling.min_tokens > max_tokens:
        raise InvalidRequestError(
            f"min_tokens {sampling.min_tokens} is more than the response may have "
            f"({max_tokens} tokens): lower it or raise max_tokens",
            param="min_tokens",
        )
    question = admission.question(messages)
    exclusions = admission.exclusions(
        messages,
        sampling,
        max_tokens,
        body.stop_texts,
        has_tools=bool(tools),
        is_held=grammar is not None,
    )
    first = Ask(
        prompt,
        max_tokens=max_tokens,
        sampling=sampling,
        seed=body.seed,
        question=question,
        n_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        timeout_seconds=min(
            settings.timeout_seconds, _or(body.trajguard.timeout_seconds, math.inf)
        ),
        refusable="prompt" in modes.refuses and exclusions.prompt is None,
        grammar=grammar,
    )
    asks = (first, *(another(first, index) for index in range(1, n)))
    judgements = tuple(
        admission.judgement(messages, body.trajguard.fields, exclusions, modes) for _ in asks
    )
    hold_back = settings.hold_back or body.trajguard.hold_back
    return Asked(
        asks,
        judgements,
        modes,
        body.trajguard.alpha,
        hold_back,
        asked_by(messages),
        "chat",
        body.model,
        conversations=(messages,) * n,
    )


def modes_of(configured: Mode, body: ChatRequest | CompletionRequest) -> Modes:
    """The service's mode, or a stricter one that the request asks for."""
    mode = narrow(configured, body.trajguard.mode)
    if body.moderation is None:
        return Modes(mode, mode)
    # OpenAI's default is to score.
    policy = body.moderation.policy or ModerationPolicy()
    asked = [policy.input, policy.output]
    return Modes(
        *(stricter(mode, "flag" if each is None else _POLICIES[each.mode]) for each in asked)
    )


def another(first: Ask, index: int) -> Ask:
    """One more choice. Seeds count up from the first one's, so that responses differ and can
    be had again.
    """
    return Ask(
        first.prompt,
        max_tokens=first.max_tokens,
        sampling=first.sampling,
        seed=None if first.seed is None else first.seed + index,
        first=first,
        n_logprobs=first.n_logprobs,
        timeout_seconds=first.timeout_seconds,
        grammar=first.grammar,
    )


def _require_served(admission: Admission, body: ChatRequest) -> int:
    """The number of choices, once all is known to be served that costs nothing to know."""
    admission.require_model(body.model)
    n = _or(body.n, 1)
    admission.require_choices(n)
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequestError(
            f"top_logprobs {body.top_logprobs} needs logprobs: send logprobs true with it",
            param="top_logprobs",
        )
    return n


def sampling_of(calibrated: Sampling, body: SamplingFields) -> Sampling:
    """The calibrated sampling, with what the request says instead."""
    asked = {name: getattr(body, name) for name in Sampling.model_fields}
    said = {name: value for name, value in asked.items() if value is not None}
    return Sampling(**(calibrated.model_dump() | said))


def _default_max_tokens(admission: Admission, n_prompt: int) -> int:
    """The setting's; else the calibrated one, if the artifact judges where responses of this
    model end; as far as there is room for it.
    """
    context = admission.context
    judges_end = admission.looks_at_end and context.responses == "own"
    calibrated = context.max_tokens if judges_end else MAX_TOKENS
    wanted = _or(admission.settings.max_tokens, calibrated)
    return max(1, min(wanted, admission.max_length - n_prompt))


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
