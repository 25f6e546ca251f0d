"""What an artifact says about itself, as it is written in JSON.

`Fingerprint` identifies the model that made the trajectories; `Context` says under which
prompts and sampling, and `EngineRecord` what ran it; `Manifest` holds these beside what was fitted
and from what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from detector.backend import Sampling
from detector.canonical import CANONICAL, TextVersion
from detector.engine_record import EngineName, EngineRecord, Standing
from detector.errors import ArtifactMismatchError
from detector.groups import Grouping
from detector.neighbour_names import NeighbourNames
from detector.opinion_record import OpinionRecord
from detector.recheck_record import RecheckRecord
from detector.verdict import Guarantee

Judged = Literal["question", "conversation"]
Responses = Literal["own", "given"]
"""Whose responses were read: this model's, drawn as `Context` says, or those that came with the
questions, whoever made them."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fingerprint(_Frozen):
    """What must be equal for two trajectories to be comparable.

    `weights` is a SHA-256 digest of every parameter and persistent buffer, `config` of what in
    the model's config changes a forward pass (rotary base, norm epsilon, windows and the like),
    `tokenizer` and `chat_template` of these.
    """

    weights: str
    config: str
    tokenizer: str
    chat_template: str
    dtype: str
    layer_convention: str


class Context(_Frozen):
    """Under which conditions the calibration's trajectories came about.

    `judged` is what the prompt looks see: the user's messages rendered alone by `template`,
    the last one being the question ("question"), or the whole served prompt ("conversation").
    `text` is how a question is written for that (see `detector.canonical`). `template` is
    "chat" for the tokenizer's own chat template, or a text with {question} in it. Of given
    responses `sampling` says nothing, and `max_tokens` is how much of each was read at most.
    `system_prompts` are SHA-256 digests of the system prompts met in calibration.
    """

    judged: Judged = "question"
    template: str = "chat"
    text: TextVersion = CANONICAL
    responses: Responses = "own"
    sampling: Sampling = Sampling()
    max_tokens: int = Field(default=1, ge=1)
    system_prompts: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _served_is_typed(cls, values: Any) -> Any:
        """A prompt that is judged as it is served is judged as it was typed."""
        if isinstance(values, dict) and values.get("judged") == "conversation":
            return {"text": "typed"} | values
        return values


def system_prompt_digest(messages: Iterable[Mapping[str, str]]) -> str:
    """SHA-256 of a conversation's system prompt; of the empty text, if it has none."""
    system = [m["content"] for m in messages if m["role"] in ("system", "developer")]
    return hashlib.sha256("\n".join(system).encode()).hexdigest()


class GroupManifest(_Frozen):
    """One group of conformal questions, and how many it has."""

    name: str
    n_conformal: int


class LookManifest(_Frozen):
    """One score at a look, and how many clusters it is standardised in. `learned` is the place
    of the score whose Gaussians it shares.

    The score's name is checked where artifacts are loaded, for this file to need no torch.
    """

    look: str
    score: str
    order: int = Field(ge=0)
    n_clusters: int = Field(default=1, ge=1)
    learned: int | None = None


class Source(_Frozen):
    """A questions file: its name, distinct questions, and SHA-256 of its bytes; where responses
    came with them, what is said of who made these.
    """

    name: str
    n_questions: int
    sha256: str
    responses_from: str | None = None


class Splits(_Frozen):
    fit: int
    conformal: int
    holdout: int


class Canary(_Frozen):
    """A question whose standardised score is known, the largest over the looks at its prompt: all
    `scores` that it had, which are few, since what is prefilled beside it changes the last digits
    in one way or another.
    """

    messages: tuple[dict[str, str], ...] = Field(min_length=1)
    scores: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(min_length=1)

    def distance(self, score: float) -> float:
        """How far a score lies from the nearest of those."""
        return min(abs(score - each) for each in self.scores)


class Canaries(_Frozen):
    """Questions that show whether a guard is still the one calibrated, whatever users ask.

    Scored again, beside whatever else, one of them lies further than `tolerance` from its scores
    with a probability of at most `rate`, where the kernels are those of `numerics`. Others round
    otherwise, and there `elsewhere` takes its place. `n_scored` says how often each was scored, and
    `dtype` in which dtype, where that is not the calibration's.
    """

    questions: tuple[Canary, ...] = Field(min_length=1)
    tolerance: float = Field(ge=0, allow_inf_nan=False)
    elsewhere: float = Field(ge=0, allow_inf_nan=False)
    rate: float = Field(gt=0, lt=1)
    numerics: str
    n_scored: int = Field(ge=1)
    dtype: str = ""

    def tolerance_on(self, numerics: str) -> float:
        return self.tolerance if numerics == self.numerics else self.elsewhere


class Place(_Frozen):
    """A model in one dtype, and the engine that ran it."""

    fingerprint: Fingerprint
    engine: EngineRecord

    def __str__(self) -> str:
        return f"{self.fingerprint.dtype} by {self.engine}"


class Revalidation(Place):
    """A place other than the calibration's where questions in scope were scored again.

    `n_flagged` of `n_questions` were flagged at `alpha`. `rate` is the mean over `n_units`
    (templates, or questions where templates are known) of the share flagged, `low` and `high` its
    95 % interval. `sources` are the files that they are of.
    """

    alpha: float = Field(gt=0, lt=1)
    guarantee: Guarantee
    n_questions: int = Field(ge=1)
    n_flagged: int = Field(ge=0)
    n_units: int = Field(ge=1)
    rate: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    sources: tuple[Source, ...]


class _ContextOfAny(BaseModel):
    text: str = "typed"


class ManifestFormat(BaseModel):
    """The format, of a manifest of any, and how it writes texts."""

    format: int
    context: _ContextOfAny = _ContextOfAny()


class Manifest(_Frozen):
    """Everything in an artifact but the numbers.

    `n_templates` counts those of the conformal questions, by which alpha is promised of new ones; 0
    where the promise is of questions alike. `contrasted_with` are files of other questions, which
    gave power and no say in the rate. `canaries`, `neighbours`, `second_opinion` and `recheck` may
    be put in later. The threshold is that of `fingerprint` and `engine`, and was seen to hold in
    `revalidated`; `fitted_in` is where the Gaussians were fitted, if elsewhere.
    """

    format: Literal[3] = 3
    scope: str
    model_name: str
    n_layers: int
    hidden_size: int
    fingerprint: Fingerprint
    context: Context
    looks: tuple[LookManifest, ...]
    alpha: float = Field(gt=0, lt=1)
    guarantee: Guarantee
    splits: Splits
    n_templates: int = Field(default=0, ge=0)
    contrasted_with: tuple[Source, ...] = ()
    sources: tuple[Source, ...]
    grouping: Grouping | None = None
    groups: tuple[GroupManifest, ...] = ()
    canaries: Canaries | None = None
    neighbours: NeighbourNames | None = None
    engine: EngineRecord = EngineRecord()
    revalidated: tuple[Revalidation, ...] = ()
    fitted_in: Place | None = None
    second_opinion: OpinionRecord | None = None
    recheck: RecheckRecord | None = None

    @property
    def place(self) -> Place:
        """Where the threshold was calibrated."""
        return Place(fingerprint=self.fingerprint, engine=self.engine)

    def require(self, served: Fingerprint, model_name: str, engine: EngineRecord) -> Standing:
        """How far the false-alarm rate holds for `served`, run by `engine`.

        In less than float32 another kind of device rounds otherwise and moves every score a
        little: there it is unverified until it was seen. Raises ArtifactMismatchError for another
        model, and for another dtype or engine in which it was not seen.
        """
        met = [
            (place, standing)
            for place, standing in self._places()
            if place.fingerprint == served and place.engine.name == engine.name
        ]
        for place, standing in met:
            if place.engine.agrees(engine, served.dtype):
                return standing
        if met:
            return "unverified"
        raise self._mismatch(served, model_name, engine)

    def canaries_in(self, dtype: str) -> Canaries | None:
        """Those whose scores are of this dtype."""
        if self.canaries is None:
            return None
        return self.canaries if (self.canaries.dtype or self.fingerprint.dtype) == dtype else None

    def dtypes(self, engine: EngineName) -> tuple[str, ...]:
        """Those in which it may be served by an engine, the calibration's first."""
        found = [each.fingerprint.dtype for each, _ in self._places() if each.engine.name == engine]
        return tuple(dict.fromkeys(found))

    def _places(self) -> list[tuple[Place, Standing]]:
        seen: list[tuple[Place, Standing]] = [(each, "revalidated") for each in self.revalidated]
        return [(self.place, "calibrated"), *seen]

    def _mismatch(
        self, served: Fingerprint, model_name: str, engine: EngineRecord
    ) -> ArtifactMismatchError:
        """What differs. Weights' digest is of their dtype: in another it says nothing."""
        names = [name for name, value in self.fingerprint if value != getattr(served, name)]
        if "dtype" in names and "weights" in names:
            names.remove("weights")
        differing = [
            f"{name} (calibrated {getattr(self.fingerprint, name):.12}, served "
            f"{getattr(served, name):.12})"
            for name in names
        ]
        if self.engine.name != engine.name:
            differing.append(f"engine (calibrated {self.engine.name}, served {engine.name})")
        fix = "serve the calibrated model or calibrate this one"
        if set(names) <= {"dtype"}:
            places = "; or ".join(str(place) for place, _ in self._places())
            fix = (
                f"serve it in {places}, or see whether its false-alarm rate holds here, with "
                "`trajguard revalidate`"
            )
        return ArtifactMismatchError(
            f"the artifact was calibrated for {self.model_name!r} and does not match "
            f"{model_name!r} in {', '.join(differing)}: {fix}",
            param="artifact",
        )
