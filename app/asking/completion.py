"""What a completion's request asks for: texts to go on from, under no template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from app.asking.admission import Admission
from app.asking.asked import Asked
from app.asking.chat import another, modes_of, sampling_of
from app.wire.completion import CompletionRequest
from detector.backend import Ask, Message, RenderedQuestion, Sampling
from detector.errors import InvalidRequestError, PromptTooLongError
from detector.judge import Exclusions, Judgement

MAX_TOKENS = 16
"""OpenAI's length of a completion that names none."""

_NOT_AS_CALIBRATED = "the prompt is not the calibrated rendering of a question"


def ask_completion(admission: Admission, body: CompletionRequest) -> Asked:
    """Responses to generate, n to each prompt in turn. Raises InvalidRequestError."""
    settings = admission.settings
    n = _require_served(admission, body)
    modes = modes_of(settings.mode, body)
    sampling = sampling_of(admission.context.sampling, body)
    max_tokens = body.max_tokens or MAX_TOKENS
    if sampling.min_tokens > max_tokens:
        raise InvalidRequestError(
            f"min_tokens {sampling.min_tokens} is more than the response may have "
            f"({max_tokens} tokens): lower it or raise max_tokens",
            param="min_tokens",
        )
    asks: list[Ask] = []
    judgements: list[Judgement] = []
    conversations: list[Sequence[Message]] = []
    for place, text in enumerate(body.prompts):
        param = "prompt" if isinstance(body.prompt, str) else f"prompt.{place}"
        prompt = _encoded(admission, text, max_tokens, param)
        # What the text asks is judged as a user's question is.
        messages: list[Message] = [{"role": "user", "content": text}]
        question = admission.question(messages)
        exclusions = _exclusions(admission, body, messages, sampling, max_tokens, prompt, question)
        first = Ask(
            prompt,
            max_tokens=max_tokens,
            sampling=sampling,
            seed=None if body.seed is None else body.seed + len(asks),
            question=question,
            n_logprobs=body.logprobs,
            timeout_seconds=min(
                settings.timeout_seconds, body.trajguard.timeout_seconds or math.inf
            ),
            refusable="prompt" in modes.refuses and exclusions.prompt is None,
        )
        asks += [first, *(another(first, index) for index in range(1, n))]
        judgements += [
            admission.judgement(messages, body.trajguard.fields, exclusions, modes)
            for _ in range(n)
        ]
        conversations += [messages] * n
    hold_back = settings.hold_back or body.trajguard.hold_back
    return Asked(
        tuple(asks),
        tuple(judgements),
        modes,
        body.trajguard.alpha,
        hold_back,
        "\n\n".join(body.prompts),
        "text_completion",
        body.model,
        conversations=tuple(conversations),
    )


def _require_served(admission: Admission, body: CompletionRequest) -> int:
    """The choices of each prompt, once all is known to be served that costs nothing to know."""
    admission.require_model(body.model)
    admission.require_alpha(body.trajguard.alpha)
    n = body.n or 1
    admission.require_choices(n)
    most = admission.settings.max_queue
    if n * len(body.prompts) > most:
        raise InvalidRequestError(
            f"prompt asks for {n * len(body.prompts)} responses; the queue takes {most} at once: "
            "send fewer prompts, or a lower n",
            param="prompt",
        )
    return n


def _encoded(admission: Admission, text: str, max_tokens: int, param: str) -> tuple[int, ...]:
    """A prompt's tokens. Raises InvalidRequestError where there is nothing to judge or to go on
    from, PromptTooLongError where it does not fit a slot.
    """
    if not text.strip():
        raise InvalidRequestError(f"{param} is empty: write the text to go on from", param=param)
    admission.require_may_fit([text], param)
    prompt = admission.codec.encode_prompt(text, admission.max_length)
    admission.require_room(prompt, param)
    if len(prompt) + max_tokens > admission.max_length:
        raise PromptTooLongError(
            f"{param} takes {len(prompt)} tokens and the request {len(prompt) + max_tokens} in "
            f"all; a slot holds {admission.max_length}: shorten the prompt or lower max_tokens",
            param=param,
        )
    return prompt


def _exclusions(
    admission: Admission,
    body: CompletionRequest,
    messages: list[Message],
    sampling: Sampling,
    max_tokens: int,
    prompt: tuple[int, ...],
    question: RenderedQuestion | None,
) -> Exclusions:
    """Which looks the calibration says nothing of: at the response all, and at the prompt those of
    an artifact that judges conversations, unless the text is what the template would have made.
    """
    exclusions = admission.exclusions(messages, sampling, max_tokens, body.stop_texts)
    if admission.settings.uncalibrated == "include":
        return exclusions
    if question is not None:
        if prompt == question.tokens:
            return exclusions
        return replace(exclusions, response=exclusions.response or _NOT_AS_CALIBRATED)
    if prompt == admission.codec.encode_conversation(messages, admission.max_length):
        return exclusions
    return replace(
        exclusions,
        prompt=exclusions.prompt or _NOT_AS_CALIBRATED,
        response=exclusions.response or _NOT_AS_CALIBRATED,
    )
