"""What an engine can take at all, whatever else it has to do."""

from __future__ import annotations

from detector.backend import Ask
from detector.errors import InvalidRequestError, PromptTooLongError


def require_valid(ask: Ask, *, max_length: int, n_tokens: int) -> None:
    """Raise InvalidRequestError for an ask of what the model with its `n_tokens` does not have,
    PromptTooLongError for one that `max_length` positions do not hold.
    """
    if ask.response is None and ask.max_tokens < 1:
        raise InvalidRequestError(
            f"max_tokens is {ask.max_tokens}: ask for at least 1", param="max_tokens"
        )
    question = ask.question
    texts = {"prompt": ask.prompt, "question": None if question is None else question.tokens}
    for name, ids in texts.items():
        if ids is not None and not ids:
            raise InvalidRequestError(f"the {name} has no tokens: send some", param="messages")
    for name, ids in {**texts, "response": ask.response}.items():
        if ids and not 0 <= min(ids) <= max(ids) < n_tokens:
            raise InvalidRequestError(
                f"the {name} has a token that the model's {n_tokens} do not include: "
                "serve the model with the tokenizer it was trained with",
                param="messages",
            )
    n_question = 0
    if question is not None:
        n_question = len(question.tokens)
        start, stop = question.span
        if not 0 <= start < stop <= n_question:
            raise InvalidRequestError(
                f"the question's span {question.span} holds none of its {n_question} tokens "
                "or others: give it as start, stop",
                param="messages",
            )
    needed = max(ask.n_positions, n_question)
    if needed > max_length:
        raise PromptTooLongError(
            f"the prompt takes {len(ask.prompt)} tokens and the request "
            f"{needed} in all; a slot holds {max_length}: shorten the "
            "prompt or lower max_tokens",
            param="messages",
        )
