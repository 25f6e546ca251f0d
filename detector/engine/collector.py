"""Collects trajectories inside the model's forward pass, by hooks on its layers.

Nothing is kept a token: prefill yields means over spans of positions, decode adds each
layer's newest state to a running float32 sum a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from detector.engine.kernels.transfer import to_device
from detector.errors import UnsupportedModelError

Span = tuple[int, int]
"""Positions start..stop-1 of one sequence."""


@dataclass(frozen=True)
class _Prefill:
    # (rows, spans, positions), each span's mean as a weighted sum; where every row has one
    # span of one of these positions, (rows,) which.
    weights: Tensor
    means: Tensor  # (L + 1, rows, spans, d)


class Collector:
    """Hooks on a decoder's layers and the running sums of its slots.

    sums: float32 (L + 1, n_slots, d).
    """

    def __init__(self, model: PreTrainedModel, n_slots: int) -> None:
        layers = decoder_layers(model)
        self.n_planes = len(layers) + 1
        self._width = model.config.get_text_config().hidden_size
        self._device = model.device
        self.sums = torch.zeros(self.n_planes, n_slots, self._width, device=self._device)
        self._prefill: _Prefill | None = None
        self._n_decoding = 0
        self._layers = layers
        self._closed = False
        self._handles: list[RemovableHandle] = []

    def close(self) -> None:
        """Take the hooks off the model for good; nothing is collected any more."""
        self._closed = True
        self._detach()

    def _attach(self) -> None:
        if self._handles or self._closed:
            return
        embedding = self._layers[0].register_forward_pre_hook(self._on_embedding, with_kwargs=True)
        self._handles = [
            embedding,
            *(
                layer.register_forward_hook(self._on_layer(plane))
                for plane, layer in enumerate(self._layers, start=1)
            ),
        ]

    def _detach(self) -> None:
        """A layer with a hook is called a slower way, even by one that does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def prefill(self, spans: Sequence[Sequence[Span]], n_positions: int, first: int = 0) -> Tensor:
        """Next: a prefill of len(spans) rows, at positions from `first` on. Returns where the
        means over each row's spans will be, (L + 1, rows, most spans of a row, d); of a span
        that reaches beyond these positions, what they add to its mean.
        """
        n_spans = max(map(len, spans))
        firsts = [
            start - first
            for (start, stop), *others in spans
            if stop == start + 1 and not others and first <= start < first + n_positions
        ]
        if len(firsts) == len(spans):
            weights = torch.tensor(firsts)
        else:
            weights = torch.zeros(len(spans), n_spans, n_positions)
            for row, row_spans in enumerate(spans):
                for index, (start, stop) in enumerate(row_spans):
                    here = slice(max(start - first, 0), max(stop - first, 0))
                    weights[row, index, here] = 1 / (stop - start)
        means = torch.zeros(self.n_planes, len(spans), n_spans, self._width, device=self._device)
        self._prefill = _Prefill(to_device(weights, self._device), means)
        self._attach()
        return means

    def decode(self, n: int) -> None:
        """Next: a decode step; its states are added to the sums of slots 0..n-1."""
        self._prefill = None
        self._n_decoding = n
        if n:
            self._attach()
        else:
            self._detach()

    def running_means(self, slots: Sequence[int], counts: Sequence[int]) -> Tensor:
        """The sums of these slots over so many states each, (L + 1, slots, d)."""
        sums = self.sums[:, to_device(slots, self._device)]
        return sums / to_device(counts, self._device)[:, None]

    def move(self, source: int, target: int) -> None:
        self.sums[:, target] = self.sums[:, source]

    def _collect(self, plane: int, states: Tensor) -> None:
        prefill = self._prefill
        if prefill is not None and prefill.weights.ndim == 1:
            rows = torch.arange(len(states), device=states.device)
            prefill.means[plane, :, 0] = states[rows, prefill.weights]
        elif prefill is not None:
            torch.bmm(prefill.weights, states.float(), out=prefill.means[plane])
        else:
            self.sums[plane, : self._n_decoding] += states[:, -1]

    def _on_embedding(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._collect(0, args[0] if args else kwargs["hidden_states"])

    def _on_layer(self, plane: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._collect(plane, output[0] if isinstance(output, tuple) else output)

        return hook


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of decoder layers, layer 1 first.

    Raises UnsupportedModelError for an encoder-decoder and where there is no such stack.
    """
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(
            f"model type {model.config.model_type!r} is an encoder-decoder: use a decoder-only "
            "model",
            param="model",
        )
    decoder = model.get_decoder()
    for name in ("layers", "h", "blocks"):
        layers = getattr(decoder, name, None)
        if isinstance(layers, nn.ModuleList) and len(layers):
            return layers
    raise UnsupportedModelError(
        f"model type {model.config.model_type!r} has no stack of decoder layers to hook: use "
        "a decoder-only model whose layers are a list, as of the Llama, Qwen or Mistral kind",
        param="model",
    )
