"""The engine: many requests through one model, with their trajectories, step by step.

    engine.submit(request)          from any thread; raises before anything is promised
    while engine.busy:
        for step in engine.step():  on the one thread that owns the model
            ...

A step prefills one batch of prompts (or one chunk of a long prompt), or it decodes one token for
every running request. Prompts go first, so that first tokens go out soon, but no more than
`prefill_tokens` of them between two decode steps, so that they keep nobody waiting. Running
requests occupy cache slots 0..n-1; a finished one is back-filled by the last. At every look
that is due the observer is shown the trajectories and says which requests to end there: the
prompt look comes before the first token, the look at t tokens before token t is emitted. A
request whose numbers are NaN or infinite fails alone, and one whose deadline has passed ends
with the next step.

This file knows nothing of HTTP, asyncio, detectors or thresholds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from weakref import WeakSet

import torch
from torch import Tensor
from transformers import PreTrainedModel

from detector.backend import TokenLogprobs
from detector.engine.collector import Collector
from detector.engine.kernels.transfer import to_device
from detector.engine.logprobs import token_logprobs
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.prefill import Row, rows_of
from detector.engine.request import Finish, Request, Step
from detector.engine.runner import open_runner
from detector.engine.sampling import draw, likelihood
from detector.errors import (
    CapacityError,
    EngineError,
    InvalidRequestError,
    PromptTooLongError,
)
from detector.trajectory import END, PROMPT_LOOKS, Look, in_order, looks_due

Observer = Callable[[Look, Sequence[Request], Tensor], Sequence[bool]]
"""Shown requests and their trajectories (n, L + 1, d), on the model's device, at a look; True
ends the request.
"""

_models_in_use: WeakSet[PreTrainedModel] = WeakSet()


@dataclass(frozen=True)
class Capacity:
    """What the engine can take: sizes, and what is in use now."""

    n_slots: int
    max_length: int
    max_queue: int
    n_running: int
    n_waiting: int


@dataclass(frozen=True)
class StateBytes:
    """Memory of one running request: its keys and values, None where the model keeps them
    itself, and its trajectory's running sum.
    """

    cache: int | None
    trajectory: int


class Engine:
    """Continuous batching over dense cache slots. See the module's docstring.

    `looks` are the looks that the observer is shown; `keep_likelihood` sums up what the
    likelihood baselines need. On a CPU the model's linear layers are packed, for it to be run and
    no longer trained or saved. `clock` tells the seconds that deadlines are measured in. A
    model that slots cannot hold runs one request at a time, so `capacity().n_slots` may be
    less than asked for. Raises UnsupportedModelError for a model that is not decoder-only or
    has no layers to hook, EngineError for one that another engine runs: `close` that first.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        looks: Collection[Look] = (),
        observer: Observer | None = None,
        n_slots: int = 16,
        max_length: int = 2048,
        max_queue: int = 256,
        prefill_tokens: int = 512,
        keep_likelihood: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        model = checkpoint.model
        if model in _models_in_use:
            raise EngineError(
                f"model {checkpoint.name!r} already runs under an engine: close that one first"
            )
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.checkpoint = checkpoint
        self.looks = frozenset(looks)
        self.observer = observer
        self._judges_responses = bool(self.looks - PROMPT_LOOKS)
        self._device = model.device
        self._n_tokens: int = cast("Tensor", model.get_input_embeddings().weight).shape[0]
        self._max_length = min(max_length, positions or max_length)
        self._max_queue = max_queue
        self._keep_likelihood = keep_likelihood
        self._clock = clock
        self._collector = Collector(model, n_slots)
        if not self.looks:
            self._collector.close()
        try:
            self._runner = open_runner(
                checkpoint,
                self._collector,
                n_slots=n_slots,
                max_length=self._max_length,
                prefill_tokens=prefill_tokens,
            )
        except BaseException:
            self._collector.close()
            raise
        _models_in_use.add(model)
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._staged: Request | None = None
        self._staged_mean = torch.zeros(())
        self._staged_rows: list[Row] = []
        self._steps: list[Step] = []
        self._n_prefilled = 0

    # Any thread.

    def capacity(self) -> Capacity:
        with self._lock:
            return Capacity(
                n_slots=self._runner.n_slots,
                max_length=self._max_length,
                max_queue=self._max_queue,
                n_running=len(self._running) + (self._staged is not None),
                n_waiting=len(self._waiting),
            )

    @property
    def state_bytes(self) -> StateBytes:
        """What each of the slots takes."""
        return StateBytes(self._runner.slot_bytes, self._collector.sums[:, 0].nbytes)

    def submit(self, *requests: Request) -> None:
        """Queue requests, all or none.

        Raises InvalidRequestError when one asks for nothing or of a token that the model does
        not have, PromptTooLongError when one can never fit a slot, CapacityError when the
        queue has no room for all of them now.
        """
        for request in requests:
            self._require_valid(request)
            needed = max(request.n_positions, len(request.question or ()))
            if needed > self._max_length:
                raise PromptTooLongError(
                    f"the prompt takes {len(request.prompt)} tokens and the request "
                    f"{needed} in all; a slot holds {self._max_length}: shorten the "
                    "prompt or lower max_tokens",
                    param="messages",
                )
        now = self._clock()
        with self._lock:
            n_waiting = len(self._waiting)
            if n_waiting + len(requests) > self._max_queue:
                raise CapacityError(
                    f"the queue is full ({n_waiting} of {self._max_queue} places are taken, "
                    f"{len(requests)} more asked for): try again shortly"
                )
            for request in requests:
                if request.timeout_seconds is not None:
                    request.deadline = now + request.timeout_seconds
                self._waiting.append(request)

    def cancel(self, request: Request) -> None:
        """End a request at the next step; does nothing once it has ended."""
        request.cancelled = True

    @property
    def busy(self) -> bool:
        with self._lock:
            return bool(self._waiting or self._running or self._staged)

    # The engine's own thread.

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """Prefill or decode, and say what happened to whom."""
        self._steps = []
        self._drop_overdue()
        if not self._running:
            self._n_prefilled = 0
        n = self._prefill()
        self._n_prefilled += n
        if not n:
            self._decode()
            self._n_prefilled = 0
        return self._steps

    def abandon(self) -> None:
        """Forget every request, after a failed step."""
        with self._lock:
            self._running, self._staged = [], None
            self._waiting.clear()
        self._runner.reset()

    def close(self) -> None:
        """Take the engine's hooks off the model, which another engine may then run."""
        self._collector.close()
        _models_in_use.discard(self.checkpoint.model)

    def _require_valid(self, request: Request) -> None:
        if request.response is None and request.max_tokens < 1:
            raise InvalidRequestError(
                f"max_tokens is {request.max_tokens}: ask for at least 1", param="max_tokens"
            )
        texts = {"prompt": request.prompt, "question": request.question}
        for name, ids in texts.items():
            if ids is not None and not ids:
                raise InvalidRequestError(f"the {name} has no tokens: send some", param="messages")
        for name, ids in {**texts, "response": request.response}.items():
            if ids and not 0 <= min(ids) <= max(ids) < self._n_tokens:
                raise InvalidRequestError(
                    f"the {name} has a token that the model's {self._n_tokens} do not include: "
                    "serve the model with the tokenizer it was trained with",
                    param="messages",
                )

    def _drop_overdue(self) -> None:
        """End what was cancelled, is past its deadline, or whose first request has ended."""
        now = self._clock()
        overdue: dict[Request, Finish] = {}
        with self._lock:
            staged = [] if self._staged is None else [self._staged]
            for request in (*self._waiting, *staged, *self._running):
                first = request.first
                if request.cancelled:
                    overdue[request] = "cancelled"
                elif request.deadline <= now:
                    overdue[request] = "expired"
                elif first is not None and first.finish is not None and not first.generated:
                    overdue[request] = first.finish
            for request in overdue:
                if request in self._waiting:
                    self._waiting.remove(request)
            if self._staged in overdue:
                self._staged = None
        for request, finish in overdue.items():
            self._end(request, finish)

    # Prefill

    def _prefill(self) -> int:
        """Prefill what may be before the next decode step; how many positions that took."""
        if self._staged is None:
            batch = self._next_batch()
            if batch:
                rows = [row for request in batch for row in rows_of(request, self.looks)]
                self._prefill_batch(rows)
                return len(rows) * max(len(row.ids) for row in rows)
        if self._staged is not None and not self._n_prefilled:
            self._prefill_chunk(self._staged)
            return self._runner.prefill_tokens
        return 0

    def _next_batch(self) -> list[Request]:
        """Take waiting requests, first come first served, while there is room for them.

        A trace needs no slot, so it may pass generations that wait for one, unless the model
        runs one request alone. A prompt over the budget goes to staging, by itself. A request
        that has a first one waits until that is judged.
        """
        batch: list[Request] = []
        budget = self._runner.prefill_tokens
        with self._lock:
            n_free = self._runner.n_slots - len(self._running)
            longest = n_rows = 0
            for request in list(self._waiting):
                if not n_free and (request.response is None or self._runner.alone):
                    continue
                if request.first is not None and (
                    request.first in batch or request.first in self._waiting
                ):
                    continue
                rows = rows_of(request, self.looks)
                length = max(longest, *(len(row.ids) for row in rows))
                if length * (n_rows + len(rows)) > budget - self._n_prefilled:
                    if batch or self._n_prefilled:
                        break
                    if request.response is None and len(request.prompt) > budget:
                        self._waiting.remove(request)
                        self._staged, self._staged_rows = request, rows
                        break
                self._waiting.remove(request)
                batch.append(request)
                longest, n_rows = length, n_rows + len(rows)
                n_free -= request.response is None
        return batch

    def _prefill_batch(self, rows: Sequence[Row]) -> None:
        """Whole prompts and traces: start the generations, finish the traces."""
        starting = [index for index, row in enumerate(rows) if row.starts_response]
        started = [rows[index].request for index in starting]
        first = len(self._running)
        means, logits = self._runner.prefill(rows, starting, first)
        for slot, index in enumerate(starting, start=first):
            self._collector.sums[:, slot] = means[:, index, 0]
        with self._lock:
            self._running.extend(started)
        for request in started:
            request.n_cached = len(request.prompt)
        ended = self._observe_rows(rows, means)
        for request in dict.fromkeys(row.request for row in rows):
            if request.response is not None:
                self._end(request, "failed" if ended.get(request) == "failed" else "traced")
        if started:
            self._emit(started, logits, ended)

    def _prefill_chunk(self, request: Request) -> None:
        """The next chunk of a long prompt, in the staging slot."""
        if not self._staged_rows[0].starts_response:
            # The question goes first: refused, its long prompt is never prefilled.
            question = [self._staged_rows.pop(0)]
            means, _ = self._runner.prefill(question, [], 0)
            if ended := self._observe_rows(question, means):
                with self._lock:
                    self._staged = None
                self._end(request, ended[request])
            return
        start = request.n_cached
        stop = min(start + self._runner.prefill_tokens, len(request.prompt))
        means, logits = self._runner.prefill_chunk(request.prompt[start:stop], start)
        request.n_cached = stop
        # Chunks weigh into the mean over the prompt by their length.
        self._staged_mean = means[:, :, 1:] * (stop - start) + (self._staged_mean if start else 0.0)
        if stop < len(request.prompt):
            return
        means[:, :, 1:] = self._staged_mean / stop
        slot = len(self._running)
        self._runner.unstage(slot, stop)
        self._collector.sums[:, slot] = means[:, 0, 0]
        with self._lock:
            self._staged = None
            self._running.append(request)
        self._emit([request], logits, self._observe_rows(self._staged_rows, means))

    def _observe_rows(self, rows: Sequence[Row], means: Tensor) -> dict[Request, Finish]:
        """Show the observer every look of a prefill; returns the requests to end, and how."""
        ended: dict[Request, Finish] = {}
        for look in in_order({look for row in rows for look in row.looks}):
            picked = [
                (index, row.looks[look]) for index, row in enumerate(rows) if look in row.looks
            ]
            indices, spans = zip(*picked, strict=True)
            requests = [rows[index].request for index in indices]
            ended |= self._observe(look, requests, means[:, indices, spans].transpose(0, 1))
        return ended

    # Decode

    def _decode(self) -> None:
        """One token for every running request."""
        if not self._running:
            return
        logits = self._runner.decode(
            [request.generated[-1] for request in self._running],
            [request.n_cached for request in self._running],
            collect=self._judges_responses,
        )
        running = list(self._running)
        due: dict[Look, list[int]] = {}
        for slot, request in enumerate(running):
            request.n_cached += 1
            for look in looks_due(self.looks, len(request.generated) + 1, finished=False):
                due.setdefault(look, []).append(slot)
        ended: dict[Request, Finish] = {}
        for look, slots in due.items():
            ended |= self._observe_slots(look, slots)
        self._emit(running, logits, ended)

    # After a forward pass

    def _observe(
        self, look: Look, requests: Sequence[Request], means: Tensor
    ) -> dict[Request, Finish]:
        """Show the observer trajectories (n, L + 1, d); returns the requests to end, and how.

        One that is not finite is not shown, for no score of it would mean anything.
        """
        if self.observer is None:
            return {}
        finite = means.isfinite().flatten(1).all(1).tolist()
        ended: dict[Request, Finish] = {
            request: "failed"
            for request, is_finite in zip(requests, finite, strict=True)
            if not is_finite
        }
        if ended:
            requests = [request for request in requests if request not in ended]
            means = means[finite]
        if requests:
            ends = self.observer(look, requests, means)
            ended |= {request: "judged" for request, end in zip(requests, ends, strict=True) if end}
        return ended

    def _observe_slots(self, look: Look, slots: Sequence[int]) -> dict[Request, Finish]:
        requests = [self._running[slot] for slot in slots]
        counts = [request.n_cached - len(request.prompt) + 1 for request in requests]
        sums = self._collector.sums[:, to_device(slots, self._device)]
        means = sums / to_device(counts, self._device)[:, None]
        return self._observe(look, requests, means.transpose(0, 1))

    def _emit(
        self, requests: Sequence[Request], logits: Tensor, ended: Mapping[Request, Finish]
    ) -> None:
        """Draw, record and report each request's next token, or its end."""
        eos_ids = self.checkpoint.eos_ids
        tokens, failed = draw(logits, requests, eos_ids)
        logprobs = token_logprobs(logits, tokens, [request.n_logprobs for request in requests])
        if self._keep_likelihood:
            for request, row in zip(requests, likelihood(logits, tokens), strict=True):
                request.likelihood = row if request.likelihood is None else request.likelihood + row
        finishes: dict[Request, Finish] = {}
        for row, (request, token) in enumerate(zip(requests, tokens, strict=True)):
            if row in failed:
                finishes[request] = "failed"
                continue
            if request in ended:
                finishes[request] = ended[request]
                continue
            request.generated.append(token)
            if token in eos_ids and not request.sampling.ignore_eos:
                finishes[request] = "stop"
            elif len(request.generated) >= request.max_tokens:
                finishes[request] = "length"
        if END in self.looks:
            finished = [r for r in finishes if finishes[r] in ("stop", "length")]
            if finished:
                slots = [self._running.index(request) for request in finished]
                finishes |= self._observe_slots(END, slots)
        for request, of_token in zip(requests, logprobs, strict=True):
            finish = finishes.get(request)
            if finish is None:
                self._steps.append(Step(request, request.generated[-1], logprobs=of_token))
            elif finish in ("stop", "length"):
                self._end(request, finish, request.generated[-1], of_token)
            else:
                self._end(request, finish)

    def _end(
        self,
        request: Request,
        finish: Finish,
        token: int | None = None,
        logprobs: TokenLogprobs | None = None,
    ) -> None:
        """Report a request's end and give its slot, if it has one, to the last one."""
        request.finish = finish
        self._steps.append(Step(request, token, finish, logprobs))
        if request not in self._running:
            return
        slot = self._running.index(request)
        if finish == "failed":
            self._runner.clear(slot)
        with self._lock:
            last = self._running.pop()
            if last is not request:
                self._running[slot] = last
        if last is not request:
            self._runner.move(len(self._running), slot, last.n_cached)
            self._collector.move(len(self._running), slot)
