"""Linear layers whose weights lie in memory as oneDNN multiplies them, on CPU.

Torch reorders a weight at every call otherwise, which at one row costs as much as the product. The
same kernel multiplies, so bfloat16 products are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer for inference, its weight packed once. The plain weight is not kept."""

    weight: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)  # noqa: SLF001
        self.register_buffer("weight", packed, persistent=False)
        self.bias = bias

    def forward(self, states: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            states, self.weight, self.bias, "none", [], ""
        )
        return product


def pack_linears(model: nn.Module, probe: Callable[[], object]) -> int:
    """Replace the model's plain linear layers, if it is on the CPU; returns how many.

    A layer is left as it is where oneDNN lacks its kind or its product differs from torch's,
    and all are where `probe`, which runs the model, then fails: some models multiply by a
    layer's weight themselves. A packed model can run, and be trained or saved no more.
    """
    plain: list[tuple[nn.Module, str, nn.Linear]] = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not _is_plain(child):
                continue
            packed = _packed(child)
            if packed is not None:
                setattr(parent, name, packed)
                plain.append((parent, name, child))
    try:
        probe()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        for parent, name, child in plain:
            setattr(parent, name, child)
        return 0
    return len(plain)


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """On the CPU, and nothing but a product: no subclass, hook or patch of its own."""
    return (
        type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and "forward" not in vars(module)
        and not module._forward_hooks  # noqa: SLF001 (no public name)
        and not module._forward_pre_hooks  # noqa: SLF001
    )


@torch.inference_mode()
def _packed(linear: nn.Linear) -> PackedLinear | None:
    weight = linear.weight
    try:
        packed = PackedLinear(weight, linear.bias)
        probe = torch.linspace(-1, 1, weight.shape[1]).to(weight.dtype)[None]
        expected, actual = linear(probe).float(), packed(probe).float()
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    # Sums of as many products, rounded differently.
    tolerance = torch.finfo(weight.dtype).eps * weight.shape[1] ** 0.5
    scale = expected.abs().amax()
    return packed if bool(((actual - expected).abs() <= tolerance * scale).all()) else None
