"""Forward passes one sequence at a time, through the model's own cache.

For decoders that the slots cannot hold: state-space, linear-attention and hybrid models, and
attention that makes its masks itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from detector.engine.collector import Collector
from detector.engine.kernels.cache import Keys
from detector.engine.prefill import Row
from detector.errors import UnsupportedModelError

_CACHE_NAMES = ("past_key_values", "cache_params", "state")
"""What models call their cache, in their arguments and outputs alike."""


class SequentialRunner:
    """See `runner.Runner`. Prompts are prefilled whole.

    Raises UnsupportedModelError for a model that takes no cache.
    """

    n_slots = 1
    # Some models keep their state in their own layers, where a second sequence overwrites it.
    alone = True
    slot_bytes: int | None = None

    def __init__(self, model: PreTrainedModel, collector: Collector, max_length: int) -> None:
        taken = inspect.signature(model.forward).parameters
        names = [name for name in _CACHE_NAMES if name in taken]
        if not names:
            raise UnsupportedModelError(
                f"model type {model.config.model_type!r} takes no cache by the name of "
                f"{', '.join(_CACHE_NAMES)}: use a decoder-only model that generates with one",
                param="model",
            )
        self.prefill_tokens = max_length
        self._model = model
        self._collector = collector
        self._cache_name = names[0]
        # The others make a cache of a kind of their own when given none.
        self._takes_dynamic_cache = getattr(model, "_supports_default_dynamic_cache", bool)()
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}
        self._cache: Any = None

    def prefill(
        self,
        rows: Sequence[Row],
        starting: Sequence[int],
        first_slot: int,
        kept: Sequence[int] = (),
    ) -> tuple[Tensor, Tensor, list[Keys]]:
        n_spans = max(len(row.spans) for row in rows)
        means, logits = [], []
        for index, row in enumerate(rows):
            mean = self._collector.prefill([row.spans], len(row.ids))
            if index in starting:
                logits.append(self._next_logits(row.ids, self._new_cache())[0])
            else:
                self._model(input_ids=self._batch_of(row.ids), use_cache=False)
            # The spans that a row lacks are filled up with zeros.
            means.append(torch.nn.functional.pad(mean, (0, 0, 0, n_spans - mean.shape[2])))
        return torch.cat(means, 1), torch.stack(logits) if logits else torch.empty(0), []

    def restore(self, slot: int, keys: Keys) -> None:
        raise NotImplementedError("nothing is prefilled while a request runs")

    def prefill_chunk(self, row: Row, start: int, stop: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("prompts are prefilled whole")

    def unstage(self, slot: int, length: int) -> None:
        raise NotImplementedError("prompts are prefilled whole")

    def decode(self, tokens: Sequence[int], positions: Sequence[int], collect: bool) -> Tensor:
        self._collector.decode(len(tokens) if collect else 0)
        return self._next_logits(tokens, self._cache)

    def move(self, source: int, target: int, length: int) -> None:
        """There is one slot alone."""

    def clear(self, slot: int) -> None:
        self._cache = None

    def reset(self) -> None:
        self._cache = None

    def close(self) -> None:
        self._cache = None

    def _next_logits(self, ids: Sequence[int], cache: Any) -> Tensor:
        """Logits (1, vocabulary) after `ids`; the cache goes on from there."""
        output = self._model(
            input_ids=self._batch_of(ids),
            use_cache=True,
            **{self._cache_name: cache},
            **self._last_only,
        )
        self._cache = output.get(self._cache_name, cache)
        logits: Tensor = output.logits[:, -1]
        return logits

    def _new_cache(self) -> Any:
        if not self._takes_dynamic_cache:
            return None
        return DynamicCache(config=self._model.config.get_text_config())

    def _batch_of(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor([ids], device=self._model.device)
