"""Families of models: in slots where their attention allows it, else one request at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    Cohere2Config,
    DeepseekV3Config,
    FalconMambaConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    GptOssConfig,
    JambaConfig,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OpenAIGPTConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
    RecurrentGemmaConfig,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from detector.backend import Ask
from detector.engine.collector import decoder_layers
from detector.engine.engine import Engine
from detector.engine.kernels import attention
from detector.engine.model.checkpoint import Checkpoint, load_checkpoint
from detector.engine.self_test import self_test
from detector.errors import SelfTestError, UnsupportedModelError
from detector.trajectory import PROMPT
from tests.detector.plain import (
    LOOKS,
    Plain,
    Seen,
    assert_equal_to_plain,
    assert_mixed_batch_equals_plain,
    drain,
    mixed_requests,
    plain_states,
    prompt,
)
from tests.tiny import tiny_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
WINDOW = 11
ALTERNATING = ["sliding_attention", "full_attention"] * 2

IN_SLOTS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen2-sliding": Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2
    ),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "mistral-sliding": MistralConfig(**SIZES, sliding_window=WINDOW),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, sliding_window=None),
    "gemma": GemmaConfig(**SIZES, head_dim=8),
    "gemma2": Gemma2Config(**SIZES, head_dim=8, sliding_window=WINDOW, layer_types=ALTERNATING),
    "gemma3": Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=WINDOW, layer_types=ALTERNATING),
    "cohere2": Cohere2Config(**SIZES, sliding_window=WINDOW, layer_types=ALTERNATING),
    "gpt-oss": GptOssConfig(
        **SIZES, head_dim=8, sliding_window=WINDOW, layer_types=ALTERNATING, num_local_experts=4
    ),
    # Keys and values of different widths.
    "deepseek-v3": DeepseekV3Config(
        **{**SIZES, "num_key_value_heads": 4},
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=2,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=12,
    ),
    "gpt2": GPT2Config(
        vocab_size=257,
        n_embd=32,
        n_layer=4,
        n_head=4,
        n_positions=256,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=0,
    ),
    "gpt-neox": GPTNeoXConfig(**SIZES),
    "opt": OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=16),
    "phi": PhiConfig(**SIZES),
    "phi3": Phi3Config(**SIZES, sliding_window=WINDOW),
    "olmo2": Olmo2Config(**SIZES),
}

ONE_AT_A_TIME: dict[str, PreTrainedConfig] = {
    "mamba": MambaConfig(**SIZES, state_size=8, expand=2, time_step_rank=4),
    "mamba2": Mamba2Config(
        **SIZES, state_size=8, expand=2, num_heads=8, head_dim=8, n_groups=2, chunk_size=16
    ),
    "falcon-mamba": FalconMambaConfig(**SIZES, state_size=8, expand=2, time_step_rank=4),
    "jamba": JambaConfig(
        **SIZES,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        mamba_d_state=8,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    "qwen3-next": Qwen3NextConfig(
        **SIZES,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
    # Keeps its recurrent state in its own layers.
    "recurrent-gemma": RecurrentGemmaConfig(**SIZES, lru_width=32, attention_window_size=WINDOW),
    # Attention that makes its own mask.
    "bloom": BloomConfig(vocab_size=257, hidden_size=32, n_layer=4, n_head=4),
    "gpt-neo": GPTNeoConfig(
        vocab_size=257,
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=WINDOW,
        max_position_embeddings=256,
    ),
}


def tiny_of(config: PreTrainedConfig) -> Checkpoint:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0)
    return Checkpoint.of(config.model_type, model, tiny_tokenizer())


@pytest.mark.parametrize("name", IN_SLOTS)
def test_families_in_slots_equal_plain_transformers(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tiny_of(IN_SLOTS[name])
    assert_mixed_batch_equals_plain(checkpoint, [(4, 48), (1, 512)])
    self_test(checkpoint)
    assert "one request at a time" not in caplog.text


@torch.inference_mode()
@pytest.mark.parametrize("name", IN_SLOTS)
def test_trajectories_are_the_hidden_states_that_transformers_lists(name: str) -> None:
    checkpoint = tiny_of(IN_SLOTS[name])
    ids = prompt(20, 0)
    output = checkpoint.model(torch.tensor([ids]), output_hidden_states=True)
    # The last one that transformers lists is behind the final norm.
    listed = torch.stack(output.hidden_states[:-1])[:, 0]
    assert torch.equal(plain_states(checkpoint, ids)[:-1], listed)


@pytest.mark.parametrize("name", ONE_AT_A_TIME)
def test_other_decoders_run_one_request_at_a_time(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tiny_of(ONE_AT_A_TIME[name])
    seen = Seen()
    engine = Engine(
        checkpoint, looks=LOOKS, observer=seen, n_slots=4, max_length=256, prefill_tokens=48
    )
    assert "runs one request at a time: it" in caplog.text
    assert engine.capacity().n_slots == 1
    # transformers' RecurrentGemma takes a prompt of one token for the last request's next.
    requests = [request for request in mixed_requests() if len(request.prompt) > 1]
    leaving = Ask(prompt(30, 90), max_tokens=20)
    refused = Ask(prompt(8, 91), max_tokens=20)
    seen.ends = {refused: PROMPT}
    for request in [leaving, refused, *requests]:
        engine.submit(request)
    while not any(step.token is not None for step in engine.step()):
        pass
    assert engine.capacity().n_running == 1
    engine.cancel(leaving)
    tokens, finishes = drain(engine)
    engine.close()
    assert finishes[leaving] == "cancelled"
    assert finishes[refused] == "judged"
    assert_equal_to_plain(Plain(checkpoint), seen, requests, tokens)
    self_test(checkpoint)


def ignoring_masks(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
    """Attention that is causal over one sequence, as flash attention is, and wrong in a batch."""
    return sdpa_attention_forward(module, query, key, value, None, **kwargs)


def test_attention_that_takes_no_mask_runs_one_request_at_a_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    AttentionInterface.register("ignoring_masks", ignoring_masks)
    checkpoint = tiny_of(LlamaConfig(**{**SIZES, "attn_implementation": "ignoring_masks"}))
    self_test(checkpoint)
    assert "its attention implementation 'ignoring_masks' takes no mask" in caplog.text


def test_self_test_refuses_a_model_that_ignores_its_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny_of(LlamaConfig(**SIZES))
    self_test(checkpoint)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, attention.NAME, ignoring_masks)
    with pytest.raises(SelfTestError, match=r"'llama' in float32: the trajectory at .* differs by"):
        self_test(checkpoint)


def test_self_test_refuses_a_layer_that_is_wrong_in_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = tiny_of(LlamaConfig(**SIZES))
    head = checkpoint.model.get_output_embeddings()
    plain = head.forward

    def wrong(states: torch.Tensor) -> torch.Tensor:
        """The trajectory is right; what is drawn from it is not."""
        logits: torch.Tensor = plain(states)
        return -logits if states.shape[1] == 1 else logits

    monkeypatch.setattr(head, "forward", wrong)
    with pytest.raises(SelfTestError, match="a greedy token is another one"):
        self_test(checkpoint)


def test_self_test_says_when_a_step_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny_of(LlamaConfig(**SIZES))
    layer = decoder_layers(checkpoint.model)[2]
    plain = layer.forward

    def failing(states: torch.Tensor, **kwargs: Any) -> Any:
        if states.shape[0] > 1:
            raise RuntimeError("no batches")
        return plain(states, **kwargs)

    monkeypatch.setattr(layer, "forward", failing)
    with pytest.raises(SelfTestError, match=r"a step fails \(RuntimeError\)"):
        self_test(checkpoint)
    # Its engine is closed all the same.
    monkeypatch.undo()
    self_test(checkpoint)


def test_self_test_refuses_states_that_are_not_finite() -> None:
    checkpoint = tiny_of(LlamaConfig(**SIZES))
    with torch.no_grad():
        next(decoder_layers(checkpoint.model)[2].parameters()).fill_(torch.inf)
    with pytest.raises(SelfTestError, match="its states are NaN or infinite"):
        self_test(checkpoint)


def test_half_precision_passes_the_self_test() -> None:
    checkpoint = tiny_of(LlamaConfig(**SIZES))
    torch.nn.Module.to(checkpoint.model, torch.bfloat16)
    self_test(checkpoint)


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=257, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    model = T5ForConditionalGeneration(config)
    with pytest.raises(UnsupportedModelError, match="'t5' is an encoder-decoder"):
        Engine(Checkpoint.of("t5", model, tiny_tokenizer()))
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="is an encoder-decoder"):
        load_checkpoint(str(tmp_path), "float32")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            OpenAIGPTConfig(vocab_size=257, n_embd=32, n_layer=2, n_head=4),
            "model type 'openai-gpt' takes no cache",
        ),
        (
            BertConfig(
                vocab_size=257,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                is_decoder=True,
            ),
            "model type 'bert' has no stack of decoder layers to hook",
        ),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_models_that_cannot_be_run_are_refused(config: PreTrainedConfig, message: str) -> None:
    checkpoint = tiny_of(config)
    for _ in range(2):
        with pytest.raises(UnsupportedModelError, match=message):
            Engine(checkpoint)
    assert not any(module._forward_hooks for module in checkpoint.model.modules())
