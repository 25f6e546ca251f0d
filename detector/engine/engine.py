"""The engine: many requests through one model, with their trajectories, step by step.

    engine.submit(request)          from any thread; raises before anything is promised
    while engine.busy:
        for step in engine.step():  on the one thread that owns the model
            ...

A step prefills at most one batch of prompts (or one chunk of a long prompt) and decodes one
token for every running request. Running requests occupy cache slots 0..n-1; a finished one
is back-filled by the last. At every look that is due the observer is shown the
trajectories and says which requests to end there: the prompt look comes before the first
token, the look at t tokens before token t is emitted. A request whose numbers are NaN or
infinite fails alone, and one whose deadline has passed ends with the next step.

This file knows nothing of HTTP, asyncio, detectors or thresholds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.engine.cache import SlotCache
from detector.engine.checkpoint import Checkpoint
from detector.engine.collector import Collector, Span
from detector.engine.logprobs import TokenLogprobs, token_logprobs
from detector.engine.request import Finish, Request, Step
from detector.engine.sampling import draw, likelihood
from detector.errors import CapacityError, PromptTooLongError, UnsupportedModelError
from detector.trajectory import (
    END,
    PROMPT,
    PROMPT_LOOKS,
    PROMPT_MEAN,
    Look,
    in_order,
    looks_due,
)

Observer = Callable[[Look, Sequence[Request], Tensor], Sequence[bool]]
"""Shown requests and their trajectories (n, L + 1, d) at a look; True ends the request."""

_LENGTH_BUCKET = 64
"""Decode attends to a multiple of this many positions, so that shapes repeat."""


@dataclass(frozen=True)
class Capacity:
    """What the engine can take: sizes, and what is in use now."""

    n_slots: int
    max_length: int
    max_queue: int
    n_running: int
    n_waiting: int


@dataclass(frozen=True)
class _Row:
    """One sequence of a prefill batch, and the looks to take on it: each look's span.

    `spans[0]` is always the last prompt token, which a starting response sums up from.
    """

    request: Request
    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    looks: dict[Look, int]
    starts_response: bool

    @classmethod
    def of(
        cls,
        request: Request,
        prompt: tuple[int, ...],
        looks: Collection[Look],
        *,
        response: tuple[int, ...] = (),
        starts: bool = False,
    ) -> _Row:
        last = len(prompt) - 1
        spans: list[Span] = [(last, last + 1)]
        places: dict[Look, int] = {}
        for look in in_order(looks):
            if look == PROMPT:
                places[look] = 0
            elif look == PROMPT_MEAN:
                places[look] = len(spans)
                spans.append((0, len(prompt)))
            elif 0 < len(response) >= look:
                places[look] = len(spans)
                spans.append((last, last + (len(response) if look == END else look)))
        return cls(request, prompt + response, tuple(spans), places, starts)


class Engine:
    """Continuous batching over dense cache slots. See the module's docstring.

    `looks` are the looks that the observer is shown; `keep_likelihood` sums up what the
    likelihood baselines need. `clock` tells the seconds that deadlines are measured in. Raises
    UnsupportedModelError for a model that is not a decoder of full attention throughout.
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
        _require_full_attention(checkpoint)
        model = checkpoint.model
        config = model.config.get_text_config()
        self.checkpoint = checkpoint
        self.looks = frozenset(looks)
        self.observer = observer
        self._judges_responses = bool(self.looks - PROMPT_LOOKS)
        self._model = model
        self._n_slots = n_slots
        self._max_length = min(max_length, config.max_position_embeddings)
        self._max_queue = max_queue
        self._prefill_tokens = prefill_tokens
        self._keep_likelihood = keep_likelihood
        self._clock = clock
        # One slot more than can run: a long prompt is prefilled there, chunk by chunk.
        self._staging = n_slots
        self._cache = SlotCache(config, n_slots + 1, self._max_length, model.dtype, model.device)
        self._collector = Collector(model, n_slots + 1)
        self._positions = torch.arange(self._max_length, device=model.device)
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._staged: Request | None = None
        self._staged_mean = torch.zeros(())
        self._steps: list[Step] = []

    # Any thread.

    def capacity(self) -> Capacity:
        with self._lock:
            return Capacity(
                n_slots=self._n_slots,
                max_length=self._max_length,
                max_queue=self._max_queue,
                n_running=len(self._running) + (self._staged is not None),
                n_waiting=len(self._waiting),
            )

    def submit(self, *requests: Request) -> None:
        """Queue requests, all or none.

        Raises PromptTooLongError when one can never fit a slot, CapacityError when the
        queue has no room for all of them now.
        """
        for request in requests:
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
        """Prefill, decode, and say what happened to whom."""
        self._steps = []
        self._drop_overdue()
        self._prefill()
        self._decode()
        return self._steps

    def abandon(self) -> None:
        """Forget every request, after a failed step."""
        with self._lock:
            self._running, self._staged = [], None
            self._waiting.clear()
        self._cache.clear(slice(None))

    def close(self) -> None:
        """Take the engine's hooks off the model."""
        self._collector.close()

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

    def _prefill(self) -> None:
        if self._staged is None:
            batch = self._next_batch()
            if batch:
                self._prefill_batch([row for request in batch for row in self._rows(request)])
        if self._staged is not None:
            self._prefill_chunk(self._staged)

    def _next_batch(self) -> list[Request]:
        """Take waiting requests, first come first served, while they fit one prefill.

        A trace needs no slot, so it may pass generations that wait for one. A prompt over
        the budget goes to staging, alone. A request that has a first one waits until that is
        judged.
        """
        batch: list[Request] = []
        with self._lock:
            n_free = self._n_slots - len(self._running)
            longest = n_rows = 0
            for request in list(self._waiting):
                if request.response is None and not n_free:
                    continue
                if request.first is not None and (
                    request.first in batch or request.first in self._waiting
                ):
                    continue
                rows = self._rows(request)
                length = max(longest, *(len(row.ids) for row in rows))
                if length * (n_rows + len(rows)) > self._prefill_tokens:
                    if batch:
                        break
                    if request.response is None and len(request.prompt) > self._prefill_tokens:
                        self._waiting.remove(request)
                        self._staged = request
                        break
                self._waiting.remove(request)
                batch.append(request)
                longest, n_rows = length, n_rows + len(rows)
                n_free -= request.response is None
        return batch

    def _rows(self, request: Request) -> list[_Row]:
        """The sequences to prefill for a request: its prompt, and its question if that is
        judged apart from it.
        """
        looks = self.looks
        rows = []
        if request.first is not None:
            looks -= PROMPT_LOOKS
        if request.question is not None and looks & PROMPT_LOOKS:
            rows.append(_Row.of(request, request.question, looks & PROMPT_LOOKS))
            looks -= PROMPT_LOOKS
        if request.response is None:
            rows.append(_Row.of(request, request.prompt, looks & PROMPT_LOOKS, starts=True))
        elif looks or not rows:
            rows.append(_Row.of(request, request.prompt, looks, response=request.response))
        return rows

    def _prefill_batch(self, rows: Sequence[_Row]) -> None:
        """Whole prompts and traces: start the generations, finish the traces."""
        starting = [index for index, row in enumerate(rows) if row.starts_response]
        started = [rows[index].request for index in starting]
        first = len(self._running)
        means, logits = self._forward_rows(rows, starting)
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

    def _forward_rows(self, rows: Sequence[_Row], starting: Sequence[int]) -> tuple[Tensor, Tensor]:
        """One forward pass over whole sequences, right-padded.

        Returns the means over each row's spans (L + 1, rows, spans, d) and, for the rows
        `starting`, whose keys go to the free slots in order, the logits after their last
        token. Under the causal mask no position sees the padding after it, and padded keys
        are overwritten by decode before its mask lets them be seen.
        """
        device = self._positions.device
        n = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + (0,) * (n - len(row.ids)) for row in rows])
        kept = torch.tensor(starting, dtype=torch.long, device=device)
        self._cache.prompts(kept, len(self._running) + torch.arange(len(kept), device=device))
        means = self._collector.prefill([row.spans for row in rows], n)
        ends = [len(rows[index].ids) - 1 for index in starting]
        wanted = sorted(set(ends)) or [0]
        positions = self._positions[:n]
        logits = self._forward(
            ids.to(device),
            positions.expand(len(rows), n),
            (positions[None] <= positions[:, None])[None, None],
            logits_to_keep=torch.tensor(wanted, device=device),
        )
        return means, logits[kept, [wanted.index(end) for end in ends]]

    def _prefill_chunk(self, request: Request) -> None:
        """The next chunk of a long prompt, in the staging slot."""
        rows = self._rows(request)
        judged_apart = not rows[0].starts_response
        if request.n_cached == 0 and judged_apart:
            # The question is judged first: refused, its long prompt is never prefilled.
            means, _ = self._forward_rows(rows[:1], [])
            if ended := self._observe_rows(rows[:1], means):
                self._staged = None
                self._end(request, ended[request])
                return
        start = request.n_cached
        stop = min(start + self._prefill_tokens, len(request.prompt))
        n = stop - start
        positions = self._positions[start:stop]
        self._cache.chunk(self._staging, start)
        means = self._collector.prefill([[(n - 1, n), (0, n)]], n)
        logits = self._forward(
            torch.tensor([request.prompt[start:stop]], device=positions.device),
            positions[None],
            (self._positions[None, :stop] <= positions[:, None])[None, None],
            logits_to_keep=1,
        )
        request.n_cached = stop
        # Chunks weigh into the mean over the prompt by their length.
        self._staged_mean = means[:, :, 1:] * n + (self._staged_mean if start else 0.0)
        if stop < len(request.prompt):
            return
        means[:, :, 1:] = self._staged_mean / stop
        slot = len(self._running)
        self._cache.move(self._staging, slot, stop)
        self._collector.sums[:, slot] = means[:, 0, 0]
        with self._lock:
            self._staged = None
            self._running.append(request)
        ended = {} if judged_apart else self._observe_rows(rows, means)
        self._emit([request], logits[:, -1], ended)

    def _observe_rows(self, rows: Sequence[_Row], means: Tensor) -> dict[Request, Finish]:
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
        n = len(self._running)
        if not n:
            return
        device = self._positions.device
        positions = torch.tensor([request.n_cached for request in self._running], device=device)
        longest = max(request.n_cached for request in self._running) + 1
        length = min(self._max_length, -(-longest // _LENGTH_BUCKET) * _LENGTH_BUCKET)
        newest = [[request.generated[-1]] for request in self._running]
        self._cache.decode(positions, length)
        self._collector.decode(n if self._judges_responses else 0)
        logits = self._forward(
            torch.tensor(newest, device=device),
            positions[:, None],
            (self._positions[None, :length] <= positions[:, None])[:, None, None],
            logits_to_keep=1,
        )[:, -1]
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

    def _forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor, logits_to_keep: Tensor | int
    ) -> Tensor:
        logits: Tensor = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
        ).logits
        return logits

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
        counts = torch.tensor(
            [request.n_cached - len(request.prompt) + 1 for request in requests],
            device=self._positions.device,
        )
        means = self._collector.sums[:, slots] / counts[:, None]
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
            self._cache.clear(slot)
        with self._lock:
            last = self._running.pop()
            if last is not request:
                self._running[slot] = last
        if last is not request:
            self._cache.move(len(self._running), slot, last.n_cached)
            self._collector.move(len(self._running), slot)


def _require_full_attention(checkpoint: Checkpoint) -> None:
    config = checkpoint.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    if kinds != {"full_attention"} or (window and getattr(config, "use_sliding_window", True)):
        raise UnsupportedModelError(
            f"model {checkpoint.name!r} has layers that are not full attention "
            f"({', '.join(sorted(kinds))}; window {window}): use a full-attention decoder",
            param="model",
        )
