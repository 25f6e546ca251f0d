"""vLLM's engine as its server has it, guarded: every way to responses leads through here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from app.vllm_plugin.asking import Asked, Asking
from app.vllm_plugin.calls import Call, Calls
from app.vllm_plugin.guardable import UnguardableError
from detector.judge import Judgement
from detector.trajectory import PROMPT
from detector.vllm.tickets import KEY, Ticket


@dataclass(eq=False)
class Request:
    """One HTTP request under way, and the calls of the engine that it has led to so far."""

    asked: Asked
    calls: list[Call] = field(default_factory=list)

    @property
    def judgements(self) -> list[Judgement]:
        """Of its choices, in their order."""
        return [judgement for call in self.calls for judgement in call.judgements]

    def judgement(self, index: int) -> Judgement:
        return self.judgements[index]

    @property
    def n_choices(self) -> int:
        return sum(call.ticket.n for call in self.calls)


CURRENT: ContextVar[Request | None] = ContextVar("trajguard_request", default=None)
"""The request that is being answered, where it is one that the guard has read."""


@dataclass(frozen=True)
class _Given:
    """What vLLM's engine is asked for."""

    prompt: Any
    params: Any
    request_id: str
    rest: dict[str, Any]


class GuardedEngine:
    """`engine` is vLLM's client of its engine, `generate` what that did by itself."""

    def __init__(
        self,
        engine: Any,
        generate: Callable[..., Any],
        asking: Asking,
        calls: Calls,
        stop_token: int,
        judged: Callable[[Request, Call], None],
    ) -> None:
        self._engine = engine
        self._original = generate
        self._asking = asking
        self._calls = calls
        self._stop_token = stop_token
        self._judged = judged

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **rest: Any
    ) -> AsyncGenerator[Any]:
        """As vLLM's own. Raises UnguardableError for what the guard has not read."""
        request = CURRENT.get()
        if request is None or len(request.calls) >= len(request.asked.prompts):
            raise UnguardableError("this route is not guarded, and answers nothing here")
        ids = prompt.get("prompt_token_ids") if isinstance(prompt, dict) else None
        if not ids or prompt.get("type") != "token":
            raise UnguardableError("a prompt that is not text alone is not guarded")
        if rest.get("lora_request") is not None:
            raise UnguardableError("an adapter makes it another model than the one calibrated")
        asked, ids = request.asked, tuple(ids)
        ask = asked.prompts[len(request.calls)]
        ticket = self._asking.ticket(self._calls.name(), asked, ask, ids, sampling_params)
        call = self._calls.begin(ticket, asked)
        request.calls.append(call)
        self._mark(sampling_params, ticket)
        question = None
        if not ticket.is_judged and self._calls.looks_at_prompt:
            question = ask.question.tokens if ask.question is not None else ids
        given = _Given(prompt, sampling_params, request_id, rest)
        return self._outputs(request, call, question, given)

    def _mark(self, params: Any, ticket: Ticket) -> None:
        """Have a request carry its ticket, and end where it is to."""
        params.extra_args = {**(params.extra_args or {}), KEY: ticket.written()}
        params.stop_token_ids = [*(params.stop_token_ids or ()), self._stop_token]
        params._all_stop_token_ids.add(self._stop_token)  # noqa: SLF001 (made of the list before)
        if ticket.is_judged and self._as_a_whole:
            params.skip_reading_prefix_cache = True

    @property
    def _as_a_whole(self) -> bool:
        """Whether more than a prompt's last position is judged: the prefix cache has no states."""
        return bool(self._calls.looks_at_prompt - {PROMPT})

    async def _outputs(
        self, request: Request, call: Call, question: tuple[int, ...] | None, given: _Given
    ) -> AsyncGenerator[Any]:
        try:
            if question is not None:
                await self._ask_question(call, question, given)
            first = True
            outputs = self._original(given.prompt, given.params, given.request_id, **given.rest)
            async for output in outputs:
                if first:
                    await call.judged_at_prompt()
                    first = False
                for each in output.outputs:
                    await self._judge(call, each, given.params)
                yield output
        finally:
            self._calls.end(call)
            self._judged(request, call)

    async def _judge(self, call: Call, output: Any, params: Any) -> None:
        """What is known by the time that this much more of a response may be shown."""
        n_new = len(output.token_ids)
        is_delta = params.output_kind.name == "DELTA"
        call.n_tokens[output.index] = n_new + (call.n_tokens[output.index] if is_delta else 0)
        if output.finish_reason is None:
            return
        await call.judged_at_response(output.index)
        judgement = call.judgements[output.index]
        if judgement.ended:
            # A grammar has rejected the token that ended it, and vLLM takes that for an error.
            output.finish_reason, output.stop_reason = "stop", self._stop_token
        elif output.stop_reason == self._stop_token:
            raise UnguardableError("a response was ended and nobody said why")
        elif output.finish_reason != "abort" and not isinstance(output.stop_reason, str):
            await self._calls.look_at_end(call, output.index)

    async def _ask_question(self, call: Call, question: tuple[int, ...], given: _Given) -> None:
        """Have the question run as it is judged, before its prompt or beside it."""
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        ticket = replace(call.ticket, is_question=True, is_judged=True)
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_reading_prefix_cache=self._as_a_whole,
            extra_args={KEY: ticket.written()},
        )
        salt = given.prompt.get("cache_salt")
        # Its one token is nobody's: what is judged comes another way.
        await self._engine.add_request(
            f"{given.request_id}-question",
            tokens_input(list(question), cache_salt=salt),
            params,
            priority=given.rest.get("priority", 0),
        )
