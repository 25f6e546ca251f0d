"""Loading a model with its tokenizer, and the fingerprint that identifies the pair."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from detector.engine.model import default_model
from detector.errors import CheckpointError, UnsupportedModelError
from detector.manifest import Fingerprint
from detector.trajectory import LAYER_CONVENTION

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_SAMPLED_ELEMENTS = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A causal language model on its device, ready to run, and its tokenizer."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    fingerprint: Fingerprint

    @classmethod
    def of(
        cls, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
    ) -> Checkpoint:
        return cls(name, model.eval(), tokenizer, fingerprint(model, tokenizer))

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end a response."""
        eos: int | list[int] | None = getattr(self.model.generation_config, "eos_token_id", None)
        if eos is None:
            eos = self.tokenizer.eos_token_id
        if eos is None:
            return frozenset()
        return frozenset(eos if isinstance(eos, list) else [eos])


def best_dtype(device: torch.device) -> str:
    """bfloat16 where the hardware multiplies in it, float32 elsewhere."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    capability = torch.backends.cpu.get_cpu_capability()
    native = capability.startswith("AVX512") and bool(
        torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 (no public name)
    )
    return "bfloat16" if native else "float32"


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_checkpoint(model: str, dtype: str = "auto") -> Checkpoint:
    """Load a model by name: the default's, a local folder, or a Hugging Face id.

    `dtype` is "auto" (`best_dtype`) or a key of DTYPES. HF_HUB_OFFLINE is honoured by the
    hub library. Raises CheckpointError, and UnsupportedModelError for an encoder-decoder.
    """
    device = best_device()
    chosen = best_dtype(device) if dtype == "auto" else dtype
    source = str(default_model.default_checkpoint()) if model == default_model.NAME else model
    log.info("loading %s in %s on %s", model, chosen, device)
    try:
        if AutoConfig.from_pretrained(source).is_encoder_decoder:
            raise UnsupportedModelError(
                f"model {model!r} is an encoder-decoder: use a decoder-only model", param="model"
            )
        tokenizer = AutoTokenizer.from_pretrained(source)
        loaded = AutoModelForCausalLM.from_pretrained(source, dtype=DTYPES[chosen])
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"model {model!r} cannot be loaded{offline}: {reason}. Name "
            f"{default_model.NAME!r}, a local folder with config.json, or a Hugging Face id",
            param="model",
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(
            f"model {model!r} has no fast tokenizer (tokenizer.json): convert it with "
            "transformers and save it beside the weights",
            param="model",
        )
    torch.nn.Module.to(loaded, device)
    return Checkpoint.of(model, loaded, tokenizer)


@torch.inference_mode()
def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Fingerprint:
    """Digest every parameter by 4,096 evenly spaced elements and the sum of all its bytes.

    Fast at any size, and a change of a single element changes it.
    """
    weights = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        stride = max(1, flat.numel() // _SAMPLED_ELEMENTS)
        sample = flat[::stride].contiguous().cpu()
        total = int(flat.contiguous().view(torch.uint8).sum(dtype=torch.int64))
        weights.update(f"{name} {tuple(parameter.shape)} {total}".encode())
        weights.update(sample.view(torch.uint8).numpy().data)
    template = tokenizer.chat_template
    return Fingerprint(
        weights=weights.hexdigest(),
        tokenizer=_sha256(tokenizer.backend_tokenizer.to_str()),
        chat_template=_sha256(template if isinstance(template, str) else repr(template)),
        dtype=str(model.dtype).removeprefix("torch."),
        layer_convention=LAYER_CONVENTION,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
