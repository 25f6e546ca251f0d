"""vLLM's worker, with the hidden states of every layer out of its model, pooled after each step.

vLLM's models give the residual stream at chosen layers beside their output, for its EAGLE-3 drafts:
0 is the embedding, L what comes after the last layer, before the final norm, which are a
trajectory's planes. That is switched on before anything is compiled or captured. vLLM makes
one of these itself, by its name: `open_backend` finds it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from vllm.model_executor.models.interfaces import EagleModelMixin, supports_eagle3
from vllm.platforms import current_platform

from detector.errors import UnsupportedModelError
from detector.vllm.model_runners import BeforeDraw, ModelRunner, model_runner
from detector.vllm.pooling import Pool

if TYPE_CHECKING or not current_platform.is_cpu():
    from vllm.v1.worker.gpu_worker import Worker
else:
    from vllm.v1.worker.cpu_worker import CPUWorker as Worker

NAME = f"{__name__}.PoolingWorker"
"""What vLLM is told to make."""


def add_plane(
    self: EagleModelMixin, planes: list[Tensor], layer: int, states: Tensor, residual: Tensor | None
) -> list[Tensor]:
    """In place of vLLM's own, which gives away the embedding itself: on CUDA every layer adds to
    that where it lies, so that plane 0 would be the last one.
    """
    if layer in self.aux_hidden_state_layers:
        planes.append(states.clone() if residual is None else states + residual)
    return planes


class PoolingWorker(Worker):  # type: ignore[misc]
    """Its `pool` has the trajectories; `before_draw` is called before each draw of its `runner`."""

    pool: Pool
    runner: ModelRunner
    before_draw: BeforeDraw | None = None

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        """Raises UnsupportedModelError for a model that does not give its states."""
        super().load_model(load_dummy_weights=load_dummy_weights)
        config = self.model_config
        runner: Any = self.model_runner
        if not supports_eagle3(runner.model):
            raise UnsupportedModelError(
                f"model type {config.hf_config.model_type!r} gives no hidden states under vLLM: "
                "serve it by TrajGuard's own engine (TRAJGUARD_ENGINE=own)",
                param="model",
            )
        n_layers = config.get_total_num_hidden_layers()
        runner.model.set_aux_hidden_state_layers(tuple(range(n_layers + 1)))
        for module in runner.model.modules():
            if isinstance(module, EagleModelMixin):
                module._maybe_add_hidden_state = MethodType(add_plane, module)  # noqa: SLF001
        runner.use_aux_hidden_state_outputs = True
        self.runner = model_runner(runner, is_v2=self.use_v2_model_runner)
        self.pool = Pool(
            n_layers + 1,
            config.get_hidden_size(),
            self.scheduler_config.max_num_seqs,
            self.device,
        )

    @torch.inference_mode()
    def execute_model(self, scheduler_output: Any) -> Any:
        if current_platform.is_cpu():
            self.model_runner._zero_block_ids(list(self._new_blocks(scheduler_output)))  # noqa: SLF001
        output = super().execute_model(scheduler_output)
        state = self.model_runner.execute_model_state
        if state is not None and state.aux_hidden_states is not None:
            self.pool.collect(self.runner.parts(), state.aux_hidden_states)
        return output

    def _new_blocks(self, scheduled: Any) -> Iterator[int]:
        """The blocks of keys that a step is the first to write to.

        What a NaN has left in one that somebody else had would spread: attention on CPUs weighs
        the rest of a block with 0, and 0 * NaN is NaN.
        """
        size = self.vllm_config.cache_config.block_size
        fresh = [
            (each.block_ids, each.num_computed_tokens) for each in scheduled.scheduled_new_reqs
        ]
        going_on = scheduled.scheduled_cached_reqs
        for name, blocks, n_computed in zip(
            going_on.req_ids, going_on.new_block_ids, going_on.num_computed_tokens, strict=True
        ):
            # One that was put aside begins anew, perhaps with blocks of the prefix cache.
            begins = name in going_on.resumed_req_ids
            fresh += [] if blocks is None else [(blocks, n_computed if begins else 0)]
        for groups, n_computed in fresh:
            for blocks in groups:
                yield from blocks[-(-n_computed // size) :]

    @torch.inference_mode()
    def sample_tokens(self, grammar_output: Any) -> Any:
        with self.runner.drawing(self.before_draw):
            return super().sample_tokens(grammar_output)

    def forget_step(self) -> None:
        """Let go of a step that failed between its forward pass and its draw."""
        self.model_runner.execute_model_state = None
