"""Batched attention on the CPU: what torch's kernel gives, whatever the shape."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from detector.engine.kernels import attention
from detector.engine.kernels.attention import attend, use_batched_attention
from tests.tiny import tiny_checkpoint

# Batch, heads, key heads, queries, keys, head width of keys and of values.
DECODE = [(4, 4, 4, 1, 20, 8, 8), (9, 6, 2, 1, 64, 16, 16), (5, 3, 1, 1, 70, 8, 12)]
PREFILL = [(1, 4, 4, 7, 7, 8, 8), (3, 8, 1, 20, 20, 8, 8), (2, 4, 2, 5, 33, 8, 12)]
BY_TORCH = [(3, 4, 4, 1, 20, 8, 8), (8, 4, 1, 1, 20, 8, 8), (2, 4, 2, 70, 70, 8, 8)]


def call(shape: tuple[int, ...], dtype: torch.dtype, **kwargs: Any) -> tuple[Any, Any]:
    """What `attend` gives, and attention written out in float64."""
    n, heads, kv_heads, n_queries, n_keys, width, value_width = shape
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator).to(dtype)

    query = random(n, n_queries, heads, width).transpose(1, 2)
    key, value = random(n, kv_heads, n_keys, width), random(n, kv_heads, n_keys, value_width)
    last = torch.randint(n_queries - 1, n_keys, (n, 1), generator=generator)
    seen = torch.arange(n_keys) <= last[..., None] - torch.arange(n_queries).flip(0)[:, None]
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    module = SimpleNamespace(num_key_value_groups=heads // kv_heads, is_causal=True)
    actual, _ = attend(module, query, key, value, mask[:, None], **kwargs)  # type: ignore[arg-type]
    scale = kwargs.get("scaling") or width**-0.5
    keys, values = (t.double().repeat_interleave(heads // kv_heads, 1) for t in (key, value))
    scores = scale * query.double() @ keys.transpose(2, 3)
    weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
    return actual, (weights @ values).transpose(1, 2)


@pytest.mark.parametrize("shape", [*DECODE, *PREFILL, *BY_TORCH])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_attention(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for scaling in (None, 0.3):
        actual, expected = call(shape, dtype, scaling=scaling)
        assert actual.dtype == dtype
        assert actual.is_contiguous()
        # Weights and their sum with the values are rounded once each.
        tolerance = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize(
    ("shapes", "by_torch"), [(DECODE, False), (PREFILL, False), (BY_TORCH, True)]
)
def test_torch_attends_where_it_is_faster(
    shapes: list[tuple[int, ...]], by_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Called(Exception):
        pass

    def plain(*args: Any, **kwargs: Any) -> Any:
        raise Called

    monkeypatch.setattr(attention, "sdpa_attention_forward", plain)
    for shape in shapes:
        if by_torch:
            with pytest.raises(Called):
                call(shape, torch.float32)
        else:
            call(shape, torch.float32)


def test_many_requests_are_attended_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (11, 6, 2, 1, 40, 8, 8)
    whole, _ = call(shape, torch.float32)
    monkeypatch.setattr(attention, "_CHUNK_BYTES", 4 * 2 * 40 * 8 * 3)  # three requests' keys
    products: list[int] = []
    plain = attention._products

    def counted(*args: torch.Tensor) -> torch.Tensor:
        products.append(len(args[0]))
        return plain(*args)

    monkeypatch.setattr(attention, "_products", counted)
    chunked, expected = call(shape, torch.float32)
    assert products == [3, 3, 3, 2]
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(chunked.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_model_gives_the_same_logits_by_itself() -> None:
    model = tiny_checkpoint().model
    ids = torch.randint(1, 257, (5, 9), generator=torch.Generator().manual_seed(0))
    padded = torch.ones_like(ids)
    padded[0, :4] = 0
    with torch.inference_mode():
        expected = [model(ids).logits, model(ids, attention_mask=padded).logits[1:]]
        use_batched_attention(model)
        assert model.config._attn_implementation == attention.NAME
        actual = [model(ids).logits, model(ids, attention_mask=padded).logits[1:]]
    for now, before in zip(actual, expected, strict=True):
        torch.testing.assert_close(now, before, rtol=1e-5, atol=1e-5)


def test_other_implementations_are_left() -> None:
    config = LlamaConfig(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    for implementation in ("eager", "sdpa"):
        config._attn_implementation = implementation
        model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
        use_batched_attention(model)
        expected = attention.NAME if implementation == "sdpa" else "eager"
        assert model.config._attn_implementation == expected
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=2))
    use_batched_attention(gpt2)
    assert gpt2.config._attn_implementation == attention.NAME
