"""Files that are no artifact any more, or never were: damaged, cut short, hostile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from detector import artifact as artifacts
from detector.artifact import Artifact
from detector.errors import ArtifactError, CorruptArtifactError
from tests.detector.test_artifact import artifact  # noqa: F401 (a fixture)


@pytest.fixture
def path(tmp_path: Path, artifact: Artifact) -> Path:  # noqa: F811
    saved = tmp_path / "a.safetensors"
    artifact.save(saved)
    return saved


# Random damage


def flipped(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def truncated(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def header_edited(content: bytes, draw: random.Random) -> bytes:
    """Bytes of the header or of its length replaced, taken away, put in or doubled."""
    end = 8 + int.from_bytes(content[:8], "little")
    start = draw.randrange(end)
    stop = min(end, start + draw.randrange(1, 12))
    put = [draw.randbytes(stop - start), b"", draw.randbytes(3), content[start:stop] * 2]
    edited = bytearray(content[:start] + draw.choice(put) + content[stop:])
    if draw.random() < 0.5 and start >= 8:
        # The length told as it is now, for the header to be read.
        edited[:8] = (end - 8 + len(edited) - len(content)).to_bytes(8, "little")
    return bytes(edited)


def signature(loaded: Artifact) -> tuple[str, str]:
    """All of an artifact: what its digest is of."""
    return loaded.id, artifacts._digest(
        loaded.manifest.model_dump_json(), artifacts._tensors(loaded.detector)
    )


@pytest.mark.parametrize("damage", [flipped, truncated, header_edited])
def test_damage_is_refused_or_changes_nothing(
    artifact: Artifact,  # noqa: F811
    path: Path,
    damage: Callable[[bytes, random.Random], bytes],
) -> None:
    content, whole = path.read_bytes(), signature(artifact)
    draw, n_refused = random.Random(0), 0
    for _ in range(500):
        path.write_bytes(damage(content, draw))
        try:
            loaded = artifacts.load(path)
        except CorruptArtifactError:
            n_refused += 1
        else:
            assert signature(loaded) == whole
    assert n_refused > 450


# Hostile files


def with_header(header: bytes, length: int | None = None, rest: bytes = b"") -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + rest


@pytest.mark.parametrize(
    "content",
    [
        with_header(b"", 2**63),
        with_header(b"", 2**64 - 1),
        with_header(b"{}", 2**40),
        with_header(b"[" * 100_000),
        with_header(b'{"a":' * 50_000),
        with_header(b'{"a":{"dtype":"F64","shape":[1e18],"data_offsets":[0,8]}}'),
        with_header(b'{"a":{"dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,0]}}'),
        with_header(b'{"a":{"dtype":"F64","shape":[0,1099511627776],"data_offsets":[0,0]}}'),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9999999999999]}}'),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', rest=b"1234"),
        with_header(b'{"__metadata__":{"manifest":5}}'),
        with_header(b'{"__metadata__":{"manifest":"{}","digest":"00"}}'),
    ],
    ids=lambda content: str(content[:40]),
)
def test_headers_that_promise_the_world_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptArtifactError, match="damaged or no artifact"):
        artifacts.load(path)


@pytest.mark.parametrize(
    "manifest", ["[" * 200_000, "1" * 10_000, '{"a":' * 5_000, "NaN", "[1e999]"]
)
def test_manifests_that_are_no_manifest_are_refused(path: Path, manifest: str) -> None:
    stored = load_tensors(path.read_bytes())
    path.write_bytes(save_tensors(stored, {"manifest": manifest, "digest": "0" * 64}))
    with pytest.raises(CorruptArtifactError, match="damaged or no artifact"):
        artifacts.load(path)


def test_a_file_larger_than_any_artifact_is_not_read(path: Path) -> None:
    """Sparse, so that it takes no room here."""
    os.truncate(path, 2**40)
    with pytest.raises(ArtifactError, match="has 1099511627776 bytes, more than any artifact"):
        artifacts.load(path)


def test_a_file_that_cannot_be_read_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(ArtifactError, match=r"cannot be read \(Permission denied\): make it"):
        artifacts.load(path)


# A save that is cut short

_SAVE_FOR_EVER = """
import sys
from pathlib import Path
from detector import artifact as artifacts

path = Path(sys.argv[1])
artifact = artifacts.load(path)
while True:
    artifact.save(path)
    print(flush=True)
"""


def test_a_save_that_is_killed_leaves_a_whole_file(path: Path, artifact: Artifact) -> None:  # noqa: F811
    expected = signature(artifact)
    command = [sys.executable, "-c", _SAVE_FOR_EVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # Killed wherever the next save is by then, which is never the same place.
        for _ in range(20):
            process.stdout.readline()
        process.kill()
    assert signature(artifacts.load(path)) == expected
