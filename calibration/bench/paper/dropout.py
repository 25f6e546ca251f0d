"""Monte-Carlo dropout: where it is put in models that are trained without it.

Gal and Ghahramani (2016), arXiv 1506.02142, as a baseline of arXiv 2405.14039. Today's decoders
are trained without dropout, so it is put where GPT-2 has it: on what each layer adds to
its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from detector.engine.collector import decoder_layers


@contextmanager
def layer_dropout(model: Any, probability: float) -> Iterator[None]:
    """While open, each decoder layer's update of the hidden state goes through dropout."""

    def drop(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        dropped = before + nn.functional.dropout(after - before, probability)
        return (dropped, *output[1:]) if isinstance(output, tuple) else dropped

    layers = decoder_layers(model)
    handles = [layer.register_forward_hook(drop, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
