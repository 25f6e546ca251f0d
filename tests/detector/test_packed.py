"""Packed linear layers: the same products, and models that cannot have them left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector.engine.kernels.packed import PackedLinear, pack_linears
from tests.tiny import tiny_checkpoint


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_plain_layer(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 80, bias=bias)).to(dtype)
    plain = model[0]
    with torch.inference_mode():
        assert pack_linears(model, lambda: None) == 1
        assert isinstance(model[0], PackedLinear)
        for shape in ((1, 96), (33, 96), (2, 5, 96)):
            states = torch.randn(shape).to(dtype)
            expected, actual = plain(states), model(states)
            assert actual.shape == expected.shape
            # The same kernel in bfloat16; another order of summation in float32.
            tolerance = 0.0 if dtype == torch.bfloat16 else 1e-6
            torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_a_whole_model_is_packed_and_gives_the_same_logits() -> None:
    model = tiny_checkpoint().model
    ids = torch.randint(1, 257, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(ids).logits
        # Seven a layer, and the head.
        assert pack_linears(model, lambda: model(ids)) == 7 * 6 + 1
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-5)
        assert pack_linears(model, lambda: model(ids)) == 0


class MultipliesItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states @ self.linear.weight


def test_a_model_that_needs_plain_weights_keeps_them() -> None:
    model = MultipliesItself()
    plain = model.linear
    states = torch.randn(2, 8)
    with torch.inference_mode():
        expected = model(states)
        assert pack_linears(model, lambda: model(states)) == 0
        assert model.linear is plain
        assert torch.equal(model(states), expected)


def test_layers_that_do_more_than_multiply_are_left() -> None:
    class Louder(nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(states)

    hooked = nn.Linear(8, 8)
    hooked.register_forward_hook(lambda module, args, output: 2 * output)
    assert pack_linears(nn.Sequential(Louder(8, 8), hooked), lambda: None) == 0
