"""What a request to judge a conversation asks for, without anything to generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.asking.admission import Admission
from app.asking.asked import Asked, asked_by
from app.policy import Modes
from app.wire.messages import plain
from app.wire.score import ScoreRequest
from detector.backend import Ask, Message
from detector.conversation import user_turns


@dataclass(frozen=True)
class Conversation:
    """What is to be judged: messages as models read them, and the response to them, if any.
    `param` is what its client calls the messages.
    """

    messages: Sequence[Message]
    response: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    param: str = "messages"


def ask_score(admission: Admission, body: ScoreRequest) -> Asked:
    """A prompt and its response, if there is one, to read. Raises InvalidRequestError."""
    messages = plain(body.messages)
    admission.require_question(messages)
    asked = ask_to_read(admission, Conversation(messages, body.response, body.fields))
    for judgement in asked.judgements:
        judgement.explains = body.explain
    return asked


def ask_to_read(admission: Admission, conversation: Conversation) -> Asked:
    """A conversation to read, as far as the looks see it: of a response the tokens up to the last
    look, and no more of the conversation than the question where there are none. Raises
    InvalidRequestError.
    """
    context, messages = admission.context, conversation.messages
    user_turns(messages)
    response = _response(admission, conversation.response or "")
    question = None
    if context.judged == "question" and not response:
        question = admission.question(_that_may_fit(admission, conversation))
    if question is not None:
        prompt = question.tokens
        admission.require_room(prompt, conversation.param)
    else:
        prompt = admission.prompt(messages)
    exclusions = admission.exclusions_of_given(messages, len(response))
    ask = Ask(
        prompt,
        question=question or admission.question(messages),
        response=response,
        timeout_seconds=admission.settings.timeout_seconds,
    )
    modes = Modes(admission.settings.mode, admission.settings.mode)
    judgement = admission.judgement(messages, dict(conversation.fields), exclusions, modes)
    return Asked(
        (ask,), (judgement,), modes, question=asked_by(messages), conversations=(messages,)
    )


def _response(admission: Admission, response: str) -> tuple[int, ...]:
    """Its tokens that the looks see. Raises PromptTooLongError where they see all of it, and it
    is too long.
    """
    n, codec = admission.n_seen, admission.codec
    if not n or not response:
        return ()
    if not admission.looks_at_end:
        # So many letters hold the first n tokens.
        return codec.encode_response(response[: n * codec.longest_token], n)[:n]
    admission.require_may_fit([response], "response")
    tokens = codec.encode_response(response, n)
    admission.require_room(tokens, "response")
    return tokens


def _that_may_fit(admission: Admission, conversation: Conversation) -> list[Message]:
    """The user's last messages, as many as may fit a slot; the oldest of a long conversation are
    no part of its question. Raises PromptTooLongError where the last one does not.
    """
    turns = [message for message in conversation.messages if message["role"] == "user"]
    admission.require_may_fit([turns[-1]["content"]], conversation.param)
    left, kept = admission.max_text_bytes, list[Message]()
    for turn in reversed(turns):
        left -= len(turn["content"].encode())
        if left < 0:
            break
        kept.append(turn)
    return kept[::-1]
