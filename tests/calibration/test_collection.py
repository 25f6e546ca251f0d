"""Collections on disk: what an earlier version left, and what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.collection import CollectionFolder, CollectionRecord
from detector.errors import CalibrationError
from detector.manifest import Context, Source
from tests.tiny import tiny_checkpoint


@pytest.fixture
def record() -> CollectionRecord:
    return CollectionRecord(
        model_name="tiny",
        n_layers=6,
        hidden_size=32,
        fingerprint=tiny_checkpoint().fingerprint,
        context=Context(),
        looks=("prompt",),
        source=Source(name="q", n_questions=1, sha256="0"),
    )


def test_a_collection_says_its_format(tmp_path: Path, record: CollectionRecord) -> None:
    folder = CollectionFolder(tmp_path)
    folder.open(record)
    assert json.loads((tmp_path / "collection.json").read_text())["format"] == 3
    assert folder.record() == record


@pytest.mark.parametrize("found", [None, 1, 2, 4, "3"])
def test_another_format_is_not_taken_for_damage(
    tmp_path: Path, record: CollectionRecord, found: object
) -> None:
    stored = json.loads(record.model_dump_json())
    del stored["format"]
    if found is not None:
        stored["format"] = found
    (tmp_path / "collection.json").write_text(json.dumps(stored))
    folder = CollectionFolder(tmp_path)
    age = "a later" if found == 4 else "an earlier"
    for read in (folder.record, folder.read, lambda: folder.open(record)):
        with pytest.raises(CalibrationError, match=f"by {age} version of TrajGuard") as caught:
            read()
        assert "collect again into another folder" in caught.value.message


@pytest.mark.parametrize("stored", ["", "[]", "null", '{"format": 3}', "\xff"])
def test_a_damaged_record_is_named(tmp_path: Path, stored: str) -> None:
    (tmp_path / "collection.json").write_bytes(stored.encode("latin-1"))
    with pytest.raises(CalibrationError, match="collection\\.json' is damaged"):
        CollectionFolder(tmp_path).record()
