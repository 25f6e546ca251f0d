"""What is wrong with a path, told before the seconds that torch and transformers take to import."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from detector.errors import ArtifactError, CalibrationError, CheckpointError

RECORD = "collection.json"
"""The file that makes a folder a collection."""


def require_collections(folders: Iterable[Path], param: str = "collected") -> None:
    """Raise CalibrationError unless every folder is a collection."""
    for folder in folders:
        if not (folder / RECORD).is_file():
            raise CalibrationError(
                f"{str(folder)!r} is not a collection: make one with `trajguard collect`",
                param=param,
            )


def require_artifact(path: Path) -> None:
    """Raise ArtifactError unless there is a file."""
    if not path.is_file():
        raise ArtifactError(
            f"artifact {str(path)!r} is not a file: make one with `trajguard fit`",
            param="artifact",
        )


def require_model(name: str) -> None:
    """Raise CheckpointError when a name can only be a path, and nothing is there."""
    is_path = name.startswith((".", "/")) or name.count("/") > 1
    if is_path and not Path(name).exists():
        raise CheckpointError(
            f"model {name!r} is not there: correct the path or name a Hugging Face id",
            param="model",
        )


def require_folder(out: Path, param: str = "out") -> None:
    """Raise CalibrationError when no folder can be made at `out`."""
    blocking = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not blocking.is_dir():
        raise CalibrationError(
            f"--{param} {str(out)!r} cannot be a folder, {str(blocking)!r} is a file: name another",
            param=param,
        )


def require_file(out: Path, param: str = "out") -> None:
    """Raise CalibrationError when no file can be written at `out`."""
    if out.is_dir():
        raise CalibrationError(
            f"--{param} {str(out)!r} is a folder: name a file in it", param=param
        )
    require_folder(out.parent, param)
