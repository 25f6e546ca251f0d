"""Streams past a guard: when it flags, and what that says of its power and delay.

Power, false-alarm rate and delay are those of Schirmer and others (2026, "Online safety monitoring
for LLMs", arXiv:2607.02510): the share flagged of what should be, of what should not be, and how
much of the whole response was seen at the flag, on average over what is flagged rightly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.collection import Collection
from calibration.fit import FitOptions, Material, fit_material
from calibration.pooling import Pool, pooled
from calibration.reporting.false_alarms import FalseAlarms
from detector import conformal
from detector.conformal import Calibration
from detector.detector import Detector
from detector.errors import TooFewQuestionsError
from detector.fitted_look import Part
from detector.trajectory import END, Look, taken_at

Numbers = NDArray[np.float64]
Spread = tuple[float, float, float]
"""A mean, and the 10 and 90 % points."""

RANK = 128
N_DRAWS = 100
"""How often conformal and holdout questions are dealt anew."""


@dataclass(frozen=True)
class Stream:
    """n responses as a guard sees them: standardised `scores` (n, looks), minus infinity where the
    response ended before the look; how many tokens each has, and each one's unit.
    """

    looks: tuple[Look, ...]
    scores: Numbers
    lengths: Numbers
    units: tuple[int, ...]

    def at(self, looks: Sequence[Look]) -> Stream:
        """As a guard sees them that takes some of the looks."""
        places = [self.looks.index(look) for look in looks]
        return replace(self, looks=tuple(looks), scores=self.scores[:, places])

    def take(self, rows: NDArray[np.intp]) -> Stream:
        units = tuple(self.units[row] for row in rows)
        return Stream(self.looks, self.scores[rows], self.lengths[rows], units)

    def calibration(self) -> Calibration:
        """Of the maximum over all looks, by units."""
        return Calibration.of(torch.from_numpy(self.scores.max(1)), self.units)

    def flagged_at(self, threshold: float) -> Numbers:
        """How many tokens of each response there were at the first look that flags it; NaN of what
        is never flagged.
        """
        flags = self.scores > threshold
        seen = np.stack([self._tokens(look) for look in self.looks], axis=1)
        first = seen[np.arange(len(flags)), flags.argmax(1)]
        return np.where(flags.any(1), first, np.nan)

    def _tokens(self, look: Look) -> Numbers:
        return self.lengths if look == END else np.full_like(self.lengths, taken_at(look))


@dataclass(frozen=True)
class Delay:
    """Of n responses that should be flagged, `n_flagged` after `since` tokens, and `n_before`
    before; `power` is of the others. `at_prompt` is the share flagged before the first token.
    `tokens` are quartiles of how many there were since then at the flag, and `share` is how much of
    the response, on average, both over those flagged; `expected` is the mean of the tokens, with
    what is never flagged counted by its whole length. `saved` is the share of all tokens since then
    that a refusal leaves unsaid.
    """

    n: int
    n_before: int
    n_flagged: int
    at_prompt: float
    tokens: tuple[float, float, float] | None
    share: float | None
    expected: float
    saved: float

    @property
    def power(self) -> float:
        return self.n_flagged / max(1, self.n - self.n_before)

    @property
    def interval(self) -> tuple[float, float]:
        left = self.n - self.n_before
        return conformal.proportion_interval(self.n_flagged, left) if left else (0.0, 1.0)

    @classmethod
    def of(cls, stream: Stream, threshold: float, since: int = 0) -> Delay:
        at = stream.flagged_at(threshold)
        # What is flagged at the change itself has seen nothing of what comes after it.
        before = at <= since if since else np.zeros(len(at), dtype=bool)
        at, lengths = at[~before], stream.lengths[~before]
        flagged = ~np.isnan(at)
        found = at[flagged] - since
        until = np.where(flagged, at, lengths) - since
        low, median, high = np.quantile(found, [0.25, 0.5, 0.75]) if len(found) else [np.nan] * 3
        whole = np.maximum(lengths, 1)[flagged]
        return cls(
            n=len(before),
            n_before=int(before.sum()),
            n_flagged=len(found),
            at_prompt=float((at == 0).mean()),
            tokens=(float(low), float(median), float(high)) if len(found) else None,
            share=float((at[flagged] / whole).mean()) if len(found) else None,
            expected=float(until.mean()),
            saved=1 - float(until.sum() / (lengths - since).sum()),
        )


@dataclass(frozen=True)
class Measured:
    """One guard at one alpha: false alarms on holdout, the delay on each stream that should be
    flagged, and the share flagged of each by the tokens seen. `drawn_alarms` and `drawn_power` are
    the mean and the 10 and 90 % points when conformal and holdout questions are dealt anew.
    """

    alpha: float
    false_alarms: FalseAlarms
    drawn_alarms: Spread
    drawn_power: Mapping[str, Spread]
    delays: Mapping[str, Delay]
    power_by: Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Guarded:
    """Streams in scope by split, and others by their name, of one kind of responses. `since` is
    how many tokens those had that should not be flagged.
    """

    conformal: Stream
    holdout: Stream
    others: Mapping[str, Stream]
    since: int = 0

    def at(self, looks: Sequence[Look]) -> Guarded:
        return Guarded(
            self.conformal.at(looks),
            self.holdout.at(looks),
            {name: stream.at(looks) for name, stream in self.others.items()},
            self.since,
        )

    def measured(self, alpha: float) -> Measured | None:
        """None where calibration cannot carry it."""
        try:
            threshold = self.conformal.calibration().threshold(alpha)
        except TooFewQuestionsError:
            return None
        flagged = ~np.isnan(self.holdout.flagged_at(threshold))
        return Measured(
            alpha,
            FalseAlarms.of("holdout", flagged, self.holdout.units),
            *self._drawn(alpha),
            {name: Delay.of(each, threshold, self.since) for name, each in self.others.items()},
            {name: self._power_by(each, threshold) for name, each in self.others.items()},
        )

    def _power_by(self, stream: Stream, threshold: float) -> list[tuple[int, float]]:
        at = stream.flagged_at(threshold)
        at = at[~(at <= self.since)] if self.since else at
        longest = int(stream.lengths.max())
        ends = {longest if look == END else taken_at(look) for look in stream.looks}
        return [(end, float((at <= end).mean())) for end in sorted(ends) if end >= self.since]

    def _drawn(self, alpha: float) -> tuple[Spread, dict[str, Spread]]:
        """Units stay together, in as many for the threshold as in calibration."""
        whole = Stream(
            self.holdout.looks,
            np.concatenate([self.conformal.scores, self.holdout.scores]),
            np.concatenate([self.conformal.lengths, self.holdout.lengths]),
            self.conformal.units + self.holdout.units,
        )
        units, n = np.unique(whole.units), len(set(self.conformal.units))
        generator = np.random.default_rng(0)
        rates: list[float] = []
        powers: dict[str, list[float]] = {name: [] for name in self.others}
        for _ in range(N_DRAWS):
            inside = np.isin(whole.units, generator.permutation(units)[:n])
            threshold = whole.take(np.flatnonzero(inside)).calibration().threshold(alpha)
            rest = whole.take(np.flatnonzero(~inside))
            flagged = ~np.isnan(rest.flagged_at(threshold))
            rates.append(FalseAlarms.of("", flagged, rest.units).rate_by_unit)
            for name, stream in self.others.items():
                powers[name].append(Delay.of(stream, threshold, self.since).power)
        return _spread(rates), {name: _spread(found) for name, found in powers.items()}


def _spread(values: Sequence[float]) -> Spread:
    low, high = np.quantile(values, [0.1, 0.9])
    return float(np.mean(values)), float(low), float(high)


def guarded(
    inside: Collection,
    others: Mapping[str, Sequence[Collection]],
    alpha: float,
    since: int = 0,
    score: str = "mahalanobis",
) -> Guarded:
    """Fit a score at every look that was collected, and score everything."""
    pools = pooled([inside])
    pools.require("fit", "conformal", "holdout")
    looks = inside.record.parsed_looks
    parts = tuple(Part(look, score) for look in looks)
    options = FitOptions(alpha=alpha, rank=RANK)
    detector = fit_material(Material(pools, parts), "streams", options).detector
    return Guarded(
        _stream(detector, pools["conformal"], looks),
        _stream(detector, pools["holdout"], looks),
        {name: _stream(detector, Pool.whole(*found), looks) for name, found in others.items()},
        since,
    )


def _stream(detector: Detector, pool: Pool, looks: Sequence[Look]) -> Stream:
    planes = pool.at(looks)
    columns = []
    for look in looks:
        alone = replace(detector, looks=tuple(f for f in detector.looks if f.look == look))
        columns.append(alone.maxima({look: planes[look]}).numpy())
    tokens = [tokens for collection in pool.collections for tokens in collection.tokens]
    lengths = np.array([len(tokens[row]) for row in pool.rows], dtype=np.float64)
    units = pool.units or tuple(range(len(pool)))
    return Stream(tuple(looks), np.stack(columns, axis=1), lengths, units)
