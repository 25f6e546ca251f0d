"""Text to tokens: questions with their spans, conversations, streams."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from detector.engine.model.text import Text
from detector.errors import CheckpointError, InvalidRequestError
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer


def test_text_renders_questions_and_conversations() -> None:
    text = Text(tiny_tokenizer())
    alone = text.encode_question(["  2 + 2?\n"]).tokens
    assert text.decode(alone) == "<user>2 + 2?\n<assistant>"
    turns = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2 + 2?"},
    ]
    assert text.decode(text.encode_conversation(turns)).endswith("<user>2 + 2?\n<assistant>")
    plain = Text(tiny_tokenizer(), "Q: {question}\nA:")
    assert plain.decode(plain.encode_question(["2 + 2?"]).tokens) == "Q: 2 + 2?\nA:"
    assert plain.decode(plain.encode_conversation(turns)) == "Q: 1 + 1?\nA: 2\n\nQ: 2 + 2?\nA:"


@pytest.mark.parametrize("template", ["chat", "Q: {question}\nA:", "{question}"])
def test_the_span_of_a_question_is_its_own_tokens(template: str) -> None:
    text = Text(tiny_tokenizer(), template)
    for turns, own in (
        (["What is 2 + 2?"], "What is 2 + 2?"),
        (["what is **2** + 2"], "What is 2 + 2?"),
        (["What is 2 + 2?", "What is 2 + 2?", "\u200b", "a\nbee"], "A bee."),
    ):
        question = text.encode_question(turns)
        assert text.decode(question.tokens[slice(*question.span)]) == own
        alone = text.encode_conversation([{"role": "user", "content": own}])
        assert (question.tokens == alone) == (len(turns) == 1)
    assert "2 + 2?\n\nWhat" in text.decode(question.tokens)
    typed = Text(tiny_tokenizer(), template, "typed")
    question = typed.encode_question([" a\nbe ", " what is **2**\n"])
    assert typed.decode(question.tokens[slice(*question.span)]) == "what is **2**"
    assert "a\nbe\n\nwhat" in typed.decode(question.tokens)


@pytest.mark.parametrize(
    ("content", "own"),
    [
        ("{{ m['content'] | upper }}", "ONE?\n\nTWO?"),
        ("{{ m['content'] | trim }}", "Two?"),
        ("({{ m['content'] }}) {{ m['content'] }}", "Two?"),
        ("{{ m['content'].split('\n')[0] }}", "One?"),
        ("", "<user>\n<assistant>"),
    ],
)
def test_a_template_may_write_a_question_otherwise(content: str, own: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace("{{ m['content'] }}", content)
    text = Text(tokenizer)
    question = text.encode_question(["One?", "Two?"])
    assert text.decode(question.tokens[slice(*question.span)]) == own


def test_a_question_of_nothing_has_a_span_all_the_same() -> None:
    text = Text(tiny_tokenizer())
    for turns in (["\u200b\ufeff"], ["", " "], ["Two?", "\u200b"]):
        question = text.encode_question(turns)
        start, stop = question.span
        assert 0 <= start < stop <= len(question.tokens)
    assert text.decode(question.tokens[start:stop]) == "Two?"
    assert Text(tiny_tokenizer(), "{question}x").encode_question([""]).span == (0, 1)


def test_tokens_that_straddle_a_question_s_ends_are_its_own() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(">", "T"), ("?", "\u010a")]
    vocabulary = [*alphabet, *("".join(merge) for merge in merges)]
    backend = Tokenizer(
        models.BPE(vocab={token: place for place, token in enumerate(vocabulary)}, merges=merges)
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE)
    text = Text(tokenizer)
    question = text.encode_question(["Two?"])
    assert text.decode(question.tokens[slice(*question.span)]) == ">Two?\n"


def test_text_says_what_a_template_lacks() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(CheckpointError, match="write where it goes"):
        Text(tokenizer, "Q: A:")
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(InvalidRequestError, match="refused by the model's chat template"):
        Text(tokenizer).encode_question(["secret"])
    tokenizer.chat_template = None
    with pytest.raises(CheckpointError, match="has no chat template"):
        Text(tokenizer)


def test_streamed_text_never_shows_half_a_character() -> None:
    text = Text(tiny_tokenizer())
    ids = text.encode_response("añ€😀.")
    stream = text.stream()
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) == "añ€😀."
    assert all("\ufffd" not in piece for piece in pieces)


@pytest.mark.parametrize("template", ["chat", "Q: {question}\nA:"])
def test_what_is_far_too_long_is_not_encoded_to_its_end(template: str) -> None:
    """And what fits is encoded as if there were no bound."""
    text = Text(tiny_tokenizer(), template)
    for n in (0, 10, 79, 80, 81, 100, 1000, 5000):
        said = "one two " * n
        messages = [{"role": "user", "content": said}]
        whole = (text.encode_conversation(messages), text.encode_response(said))
        some = (text.encode_conversation(messages, 800), text.encode_response(said, 800))
        for all_of_it, found in zip(whole, some, strict=True):
            assert (len(found) > 800) == (len(all_of_it) > 800)
            if len(all_of_it) <= 800:
                assert found == all_of_it
            assert len(found) <= 8 * 800 + 100
