"""What vLLM is asked for: one of its requests a sequence of ours."""

from __future__ import annotations

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from detector.backend import Sampling
from detector.engine.prefill import Row
from detector.trajectory import PROMPT

_GREEDY_BELOW = 1e-5
_COLDEST = 0.01
"""vLLM draws at no lower temperature; the own engine does, from what is then the best token but for
ties.
"""


def params_of(row: Row, *, seeded: bool) -> SamplingParams:
    """How vLLM runs a row: on with the response where that starts, to its end alone otherwise.

    vLLM ends no response: which token does is decided where it is emitted. It is told of seeds
    where it draws from them by itself (`seeded`); see `drawing`. Where more of a row is judged
    than its last position, none of it is taken from the prefix cache, which holds keys and no
    states.
    """
    ask = row.run.ask
    judged_as_a_whole = bool(set(row.looks) - {PROMPT})
    if not row.starts_response:
        return SamplingParams(
            temperature=0.0,
            max_tokens=1,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            skip_reading_prefix_cache=judged_as_a_whole,
        )
    sampling = ask.sampling
    return SamplingParams(
        temperature=temperature_of(sampling),
        seed=ask.seed if seeded else None,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        max_tokens=ask.max_tokens,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_reading_prefix_cache=judged_as_a_whole,
    )


def temperature_of(sampling: Sampling) -> float:
    """The temperature that vLLM draws at."""
    asked = sampling.temperature
    return 0.0 if asked < _GREEDY_BELOW else max(asked, _COLDEST)
