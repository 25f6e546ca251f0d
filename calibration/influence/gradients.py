"""Gradients of each text by each linear layer, without ever being added up over texts.

A linear layer s = W a has the gradient of a text f by W as a sum over its positions t, of the
outer products of what went in and of the gradient by what came out (Grosse et al.,
arXiv 2308.03296, section 2.2):

    grad_W f = sum_t  Ds_t a_t^T

so both are all that has to be seen, one layer at a time, while the model runs backward.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from calibration.influence.texts import Counted
from detector.errors import UnsupportedModelError

Kind = Literal["mlp", "attention"]

Seen = Callable[["Layer", Tensor, Tensor], None]
"""Shown a layer, its inputs (n, T, in) and the gradients by its outputs (n, T, out)."""

_BLOCK = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer of one of the model's blocks."""

    name: str
    block: int
    kind: Kind
    module: nn.Linear


def layers_of(model: nn.Module) -> list[Layer]:
    """The linear layers of the blocks: attention's projections, and the rest, which is the MLP's.

    Raises UnsupportedModelError where there are none.
    """
    found = []
    for name, module in model.named_modules():
        block = _BLOCK.search(name)
        if isinstance(module, nn.Linear) and block is not None:
            kind: Kind = "attention" if "attn" in name or "attention" in name else "mlp"
            found.append(Layer(name, int(block[1]), kind, module))
    if not found:
        raise UnsupportedModelError(
            "the model has no linear layers in numbered blocks, which influence is taken by: name "
            "another",
            param="model",
        )
    return found


@dataclass(frozen=True)
class Batch:
    """Texts that run together, padded on the right: tokens (n, T), which positions hold one, and
    which predict one that is counted.
    """

    texts: tuple[Counted, ...]
    tokens: Tensor
    held: Tensor
    predicting: Tensor

    @classmethod
    def of(cls, texts: Sequence[Counted], device: torch.device) -> Batch:
        longest = max(len(text.tokens) for text in texts)
        tokens = torch.zeros(len(texts), longest, dtype=torch.long)
        held = torch.zeros(len(texts), longest, dtype=torch.bool)
        predicting = torch.zeros(len(texts), longest, dtype=torch.bool)
        for row, text in enumerate(texts):
            tokens[row, : len(text.tokens)] = torch.tensor(text.tokens)
            held[row, : len(text.tokens)] = True
            predicting[row, text.first - 1 : len(text.tokens) - 1] = True
        return cls(tuple(texts), tokens.to(device), held.to(device), predicting.to(device))


class Gradients:
    """Runs a model over batches and shows each layer's part of the gradients to `seen`.

    No parameter is given a gradient of its own. Padding on the right is seen by no position that
    is counted, and gets no gradient.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self._model: Any = model.eval().requires_grad_(False)
        self._layers = layers

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self._model.parameters()).device
        return device

    def of_texts(self, batch: Batch, seen: Seen) -> Tensor:
        """Of log p(counted tokens), which is given back: (n,)."""
        with self._watched(seen):
            logprobs = self._logprobs(batch)
            chosen = logprobs[:, :-1].gather(2, batch.tokens[:, 1:, None])[..., 0]
            totals = (chosen * batch.predicting[:, :-1]).sum(1)
            totals.sum().backward()
        return totals.detach()

    def of_draws(self, batch: Batch, seen: Seen, draws: int, seed: int) -> None:
        """Of log p(tokens drawn from the model itself), where those counted are predicted, so many
        times. Each text draws by a seed of its own, whatever it runs beside.

        The expected outer product of such a gradient with itself is the Gauss-Newton matrix of the
        text's log-probability (arXiv 2308.03296, section 2.2): the rows of real text would give
        the empirical Fisher matrix, which is another.
        """
        with self._watched(seen):
            logprobs = self._logprobs(batch)
            for draw in range(draws):
                drawn = torch.zeros_like(batch.tokens)
                for row, text in enumerate(batch.texts):
                    generator = torch.Generator(batch.tokens.device)
                    generator.manual_seed(zlib.crc32(f"{seed} {draw} {text.name}".encode()))
                    at = batch.predicting[row]
                    said = logprobs[row, at].detach().exp()
                    drawn[row, at] = torch.multinomial(said, 1, generator=generator)[:, 0]
                chosen = logprobs.gather(2, drawn[..., None])[..., 0]
                total = (chosen * batch.predicting).sum()
                total.backward(retain_graph=draw + 1 < draws)

    def _logprobs(self, batch: Batch) -> Tensor:
        embedded = self._model.get_input_embeddings()(batch.tokens).requires_grad_()
        logits = self._model(inputs_embeds=embedded, use_cache=False).logits
        return torch.log_softmax(logits, dim=-1)

    @contextmanager
    def _watched(self, seen: Seen) -> Iterator[None]:
        def watch(layer: Layer) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            def ran(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
                inputs = given[0].detach()
                out.register_hook(lambda gradient: seen(layer, inputs, gradient))

            return ran

        hooks = [layer.module.register_forward_hook(watch(layer)) for layer in self._layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
