"""What vLLM's sampler may draw, and what is known of a draw besides its token.

Temperature, top-k, top-p and penalties are vLLM's own. Before it draws, what a grammar or
`min_tokens` does not allow is made impossible in the logits, those are kept of which
log-probabilities are wanted, rows that are NaN or infinite are noticed, and who has a seed is
given a generator. vLLM has its own ways for all of these. A stop token of its own ends nothing
before `min_tokens`, its grammars are other ones, the first log-probabilities that it is asked for
compile a kernel, for half a minute on a CPU, and there a seed ends the engine where a prompt is
run in parts: it turns back a generator that cannot be turned back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detector.backend import Finish, Sampling, TokenLogprobs
from detector.engine.grammar import hold
from detector.engine.kernels.transfer import to_device
from detector.engine.logprobs import token_logprobs
from detector.vllm.params import temperature_of

if TYPE_CHECKING:
    from detector.engine.run import Run


def _divisor(sampling: Sampling) -> float:
    """What a draw divides its largest logit by, at most."""
    return min(1.0, sampling.repetition_penalty) * (temperature_of(sampling) or 1.0)


class Draws:
    """The draws of one step."""

    def __init__(self, eos_ids: Collection[int]) -> None:
        self._eos_ids = sorted(eos_ids)
        self._runs: list[Run] = []
        self._finite = torch.empty(0, dtype=torch.bool)
        self._kept: dict[Run, Tensor] = {}
        self._stuck: set[Run] = set()

    def begin(
        self,
        rows: Sequence[int],
        runs: Sequence[Run],
        logits: Tensor,
        generators: dict[int, torch.Generator] | None,
    ) -> None:
        """These runs draw from these rows of a step's logits, changed here in place, by those
        generators that the rows have, unless the runner draws from seeds by itself (None).
        """
        self._runs = list(runs)
        self._kept = {}
        self._stuck = set()
        if not runs:
            return
        # NaN and infinities show in the maximum, and so does what leaves float32 in the draw.
        best = logits.amax(-1)
        if list(rows) != list(range(len(best))):
            best = best[to_device(list(rows), logits.device)]
        divisors = [_divisor(run.ask.sampling) for run in runs]
        if set(divisors) != {1.0}:
            divided = to_device([1 / divisor for divisor in divisors], logits.device)
            best = (best.double() * divided).float()
        self._finite = best.isfinite()
        for row, run in zip(rows, runs, strict=True):
            if run.ask.n_logprobs is not None:
                self._kept[run] = logits[row].clone()
            seed = run.ask.seed if temperature_of(run.ask.sampling) else None
            if generators is not None and seed is not None:
                if run.generator is None:
                    run.generator = torch.Generator(logits.device).manual_seed(seed)
                generators[row] = run.generator
        held = hold(runs, self._eos_ids, logits.shape[-1], logits.device)
        self._stuck = {runs[index] for index in held.stuck}
        early = [
            row
            for index, (row, run) in enumerate(zip(rows, runs, strict=True))
            if len(run.generated) < run.ask.sampling.min_tokens and index not in held.ending
        ]
        if early and self._eos_ids:
            early_rows = to_device(early, logits.device)[:, None]
            logits[early_rows, to_device(self._eos_ids, logits.device)] = -torch.inf
        for index, allowed in held.allowed.items():
            logits[rows[index]].masked_fill_(~allowed, -torch.inf)

    def ended(self) -> dict[Run, Finish]:
        """How those end of the step that cannot go on."""
        if not self._runs:
            return {}
        ended: dict[Run, Finish] = {
            run: "failed"
            for run, is_finite in zip(self._runs, self._finite.tolist(), strict=True)
            if not is_finite
        }
        return ended | dict.fromkeys(self._stuck, "stuck")

    def logprobs(self, run: Run, token: int) -> TokenLogprobs | None:
        kept = self._kept.get(run)
        return (
            None if kept is None else token_logprobs(kept[None], [token], [run.ask.n_logprobs])[0]
        )
