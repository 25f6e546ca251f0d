"""The engine: runs a causal language model and collects trajectories as it goes.

    engine.submit(ask)              from any thread; raises before anything is promised
    while engine.busy:
        for step in engine.step():  on the one thread that owns the model
            ...

A step asks the schedule what is next, runs that through the model, shows the observer every
trajectory that is due, and emits a token or an end for each request. The prompt look comes
before the first token, the look at t tokens before token t is emitted. A request whose numbers
are NaN or infinite fails alone, and one whose deadline has passed ends with the next step.

This file knows nothing of HTTP, asyncio, detectors or thresholds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from detector.backend import Ask, Capacity, Finish, Observer, Step, TokenLogprobs
from detector.engine.borders import Borders
from detector.engine.claims import claim, release, require_free
from detector.engine.collector import Collector
from detector.engine.logprobs import add_to_totals, token_logprobs
from detector.engine.model.checkpoint import Checkpoint
from detector.engine.observing import observe
from detector.engine.prefill import Row
from detector.engine.run import Kept, PromptEnd, Run, advance
from detector.engine.runner import StateBytes, open_runner
from detector.engine.sampling import draw
from detector.engine.schedule import Schedule
from detector.engine.work import Chunk, Decode, Prefill, Resume, Share, Sharing
from detector.trajectory import END, PROMPT_LOOKS, Look, in_order


class Engine:
    """Continuous batching over dense cache slots: a `Backend`. See the module's docstring.

    `looks` are the looks that the observer is shown. On a CPU the model's linear layers are
    packed, for it to be run and no longer trained or saved. `clock` tells the seconds that
    deadlines are measured in. A model that slots cannot hold runs one request at a time, so
    `capacity().n_slots` may be less than asked for. Raises UnsupportedModelError for a model
    that is not decoder-only or has no layers to hook, EngineError for one that another engine
    runs: `close` that first.
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
        max_queue_tokens: int | None = None,
        prefill_tokens: int = 512,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        model = checkpoint.model
        require_free(checkpoint)
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        length = min(max_length, positions or max_length)
        self.checkpoint = checkpoint
        self.looks = frozenset(looks)
        self._borders = Borders(self.looks)
        self._observer = observer
        self._judges_responses = bool(self.looks - PROMPT_LOOKS)
        self._collector = Collector(model, n_slots)
        if not self.looks:
            self._collector.close()
        try:
            self._runner = open_runner(
                checkpoint,
                self._collector,
                n_slots=n_slots,
                max_length=length,
                prefill_tokens=prefill_tokens,
            )
        except BaseException:
            self._collector.close()
            raise
        claim(checkpoint)
        self._schedule = Schedule(
            self.looks,
            n_slots=self._runner.n_slots,
            max_length=length,
            max_queue=max_queue,
            max_queue_tokens=max_queue_tokens or max_queue * length,
            prefill_tokens=self._runner.prefill_tokens,
            alone=self._runner.alone,
            n_tokens=cast("Tensor", model.get_input_embeddings().weight).shape[0],
            clock=clock,
        )
        self._steps: list[Step] = []

    # Any thread.

    def capacity(self) -> Capacity:
        return self._schedule.capacity()

    @property
    def busy(self) -> bool:
        return self._schedule.busy

    def submit(self, *asks: Ask) -> None:
        self._schedule.add(asks)

    def cancel(self, ask: Ask) -> None:
        self._schedule.cancel(ask)

    @property
    def state_bytes(self) -> StateBytes:
        """What each of the slots takes."""
        return StateBytes(self._runner.slot_bytes, self._collector.sums[:, 0].nbytes)

    # The engine's own thread.

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """Prefill or decode, and say what happened to whom."""
        self._steps = []
        for run, finish in self._schedule.overdue().items():
            self._end(run, finish)
        match self._schedule.next():
            case Prefill(rows):
                self._prefill(rows)
            case Resume(resumed):
                self._resume(resumed)
            case Share(begun):
                self._share(begun)
            case Chunk() as chunk:
                self._prefill_chunk(chunk)
            case Decode(runs):
                self._decode(runs)
        return self._steps

    def abandon(self) -> None:
        self._schedule.clear()
        self._runner.reset()

    def close(self) -> None:
        """Take the engine's hooks off the model, which another engine may then run, and give
        its memory back.
        """
        self._collector.close()
        self._runner.close()
        release(self.checkpoint)

    def _prefill(self, rows: Sequence[Row]) -> None:
        """Whole sequences: start the generations, finish the traces, judge those who wait."""
        starting = [index for index, row in enumerate(rows) if row.starts_response]
        kept = [index for index, row in enumerate(rows) if row.kept]
        started = [rows[index].run for index in starting]
        first = self._schedule.start(started)
        means, logits, keys = self._runner.prefill(rows, starting, first, kept)
        for place, index in enumerate(kept):
            logits_after = logits[len(starting) + place].clone()
            rows[index].run.kept = Kept(keys[place], logits_after, means[:, index, 0].clone())
        for place, (index, run) in enumerate(zip(starting, started, strict=True)):
            self._begin(run, first + place, means[:, index, 0], logits[place])
        ended = self._observe_rows(rows, means)
        self._end_judged(dict.fromkeys(r.run for r in rows if r.run not in started), ended)
        if started:
            self._emit(started, logits[: len(started)], ended)

    def _resume(self, runs: Sequence[Run]) -> None:
        """Start the generations whose prompts were prefilled, and judged, ahead."""
        first = self._schedule.start(runs)
        logits = []
        for slot, run in enumerate(runs, start=first):
            kept, run.kept = run.kept, None
            assert kept is not None
            self._runner.restore(slot, kept.keys)
            self._begin(run, slot, kept.state, kept.logits)
            logits.append(kept.logits)
        self._emit(runs, torch.stack(logits), {})

    def _share(self, begun: Sequence[Sharing]) -> None:
        """Start the generations whose prompts are in the slots of others."""
        runs = [each.run for each in begun]
        first = self._schedule.start(runs)
        for slot, (run, source, end) in enumerate(begun, start=first):
            self._runner.move(self._schedule.slot(source), slot, len(run.ask.prompt))
            self._begin(run, slot, end.state, end.logits)
        self._emit(runs, torch.stack([each.end.logits for each in begun]), {})

    def _begin(self, run: Run, slot: int, state: Tensor, logits: Tensor) -> None:
        """A response begins in a slot that has its prompt's keys, after a state (L + 1, d)."""
        self._collector.sums[:, slot] = state
        run.n_cached = len(run.ask.prompt)
        if run.shares:
            run.prompt_end = PromptEnd(logits.clone(), state.clone())

    def _prefill_chunk(self, chunk: Chunk) -> None:
        """The next chunk of a long row; what follows a whole prefill follows the last one."""
        row, run = chunk.row, chunk.row.run
        means, logits = self._runner.prefill_chunk(row, chunk.start, chunk.stop)
        run.n_cached = chunk.stop
        if chunk.stop < len(row.ids):
            return
        if row.starts_response:
            slot = self._schedule.start([run])
            self._runner.unstage(slot, chunk.stop)
            self._begin(run, slot, means[:, 0, 0], logits[0])
            self._emit([run], logits, self._observe_rows([row], means))
            return
        run.n_cached = 0
        ended = self._observe_rows([row], means)
        if chunk.is_last or run.ask.response is None or ended.get(run) == "failed":
            self._end_judged([run], ended)

    def _end_judged(self, runs: Iterable[Run], ended: Mapping[Run, Finish]) -> None:
        """End those that are judged and go no further: every trace, and who is in `ended`."""
        for run in runs:
            if run.ask.response is not None:
                self._end(run, "failed" if ended.get(run) == "failed" else "traced")
            elif run in ended:
                self._end(run, ended[run])

    def _decode(self, runs: Sequence[Run]) -> None:
        """One token for every running request."""
        tokens, positions = [run.generated[-1] for run in runs], [run.n_cached for run in runs]
        logits = self._runner.decode(tokens, positions, collect=self._judges_responses)
        due: dict[Look, list[Run]] = {}
        for run in runs:
            run.n_cached += 1
            for look in self._borders.looks_at(len(run.generated) + 1):
                due.setdefault(look, []).append(run)
        ended: dict[Run, Finish] = {}
        for look in in_order(due):
            ended |= self._observe_responses(look, due[look])
        self._emit(runs, logits, ended)

    def _observe_rows(self, rows: Sequence[Row], means: Tensor) -> dict[Run, Finish]:
        """Show the observer every look of a prefill; returns whom to end, and how."""
        ended: dict[Run, Finish] = {}
        for look in in_order({look for row in rows for look in row.looks}):
            picked = [(n, row.looks[look]) for n, row in enumerate(rows) if look in row.looks]
            indices, spans = zip(*picked, strict=True)
            runs = [rows[index].run for index in indices]
            shown = means[:, indices, spans].transpose(0, 1)
            ended |= observe(self._observer, look, runs, shown)
        return ended

    def _observe_responses(self, look: Look, runs: Sequence[Run]) -> dict[Run, Finish]:
        """Show the observer the running means of running requests, or those of a patch."""
        means = self._borders.since(look, runs, self._running_means(runs))
        return observe(self._observer, look, runs, means)

    def _running_means(self, runs: Sequence[Run]) -> Tensor:
        """(n, L + 1, d)."""
        slots = [self._schedule.slot(run) for run in runs]
        counts = [run.n_cached - len(run.ask.prompt) + 1 for run in runs]
        return self._collector.running_means(slots, counts).transpose(0, 1)

    def _emit(self, runs: Sequence[Run], logits: Tensor, ended: dict[Run, Finish]) -> None:
        """Draw, record and report each request's next token, or its end."""
        self._borders.keep(runs, ended, self._running_means)
        eos_ids = self.checkpoint.eos_ids
        tokens, failed = draw(logits, runs, eos_ids)
        logprobs = token_logprobs(logits, tokens, [run.ask.n_logprobs for run in runs])
        add_to_totals(logits, runs)
        finishes = advance(runs, tokens, eos_ids, ended | failed)
        if END in self.looks:
            finished = [run for run in finishes if finishes[run] in ("stop", "length")]
            if finished:
                finishes |= self._observe_responses(END, finished)
        for run, of_token in zip(runs, logprobs, strict=True):
            end = finishes.get(run)
            if end is None:
                self._steps.append(run.step(run.generated[-1], logprobs=of_token))
            elif end in ("stop", "length"):
                self._end(run, end, run.generated[-1], of_token)
            else:
                self._end(run, end)

    def _end(
        self,
        run: Run,
        finish: Finish,
        token: int | None = None,
        logprobs: TokenLogprobs | None = None,
    ) -> None:
        """Report a request's end and give its slot, if it has one, to the last one."""
        run.finish, run.kept = finish, None
        self._steps.append(run.step(token, finish, logprobs))
        freed = self._schedule.end(run)
        if freed is None:
            return
        if finish == "failed":
            self._runner.clear(freed.slot)
        if freed.moved is not None:
            self._runner.move(freed.source, freed.slot, freed.moved.n_cached)
            self._collector.move(freed.source, freed.slot)
