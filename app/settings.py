"""Settings: flags over environment (TRAJGUARD_*) over a TOML file over defaults."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.environment import CONFIG_VARIABLE, PREFIX, Environment
from app.logs import LogFormat
from app.policy import FailPolicy, Mode, RefusalStyle
from app.second_opinion.giving import Name
from detector.engine.model.default_model import NAME
from detector.verdict import Guarantee
from detector.vllm.options import require_allowed

_ORIGIN = re.compile(r"\*|https?://[^/?#\s]+")

ONE_WORKER = (
    "one process serves one model, and each further worker would load it again and count for "
    "itself: leave it at 1 and run several replicas"
)


def default_artifact() -> Path:
    """The artifact that comes with TrajGuard, for the default model."""
    return Path(str(files("detector.artifacts") / "grade-school.safetensors"))


class Settings(BaseSettings):
    """Every setting of the service, each TRAJGUARD_<NAME> in the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", cli_kebab_case=True)

    model: str = Field(default=NAME, description="default model's name, a local folder or a hub id")
    model_names: str = Field(
        default="", description="further names that requests may give the model; * is any"
    )
    artifact: Path = Field(
        default_factory=default_artifact, description="calibration artifact to judge by"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="auto takes the artifact's"
    )
    engine: Literal["own", "vllm"] = Field(
        default="own", description="what runs the model; vllm has an environment of its own"
    )
    vllm_options: dict[str, Any] = Field(
        default_factory=dict, description="arguments of vLLM's engine, as a JSON object"
    )
    mode: Mode = Field(default="refuse", description="what happens to a question judged OOD")
    alpha: float | None = Field(
        default=None, gt=0, lt=1, description="target false-alarm rate (the artifact's)"
    )
    guarantee: Guarantee | None = Field(
        default=None, description="marginal or pac threshold (the artifact's)"
    )
    uncalibrated: Literal["exclude", "include"] = Field(
        default="exclude", description="whether looks in an uncalibrated context count"
    )
    on_prompt_failure: FailPolicy = Field(
        default="closed",
        description="closed refuses a question that cannot be judged, open not",
    )
    on_response_failure: FailPolicy = Field(
        default="closed", description="closed ends a response that cannot be judged, open not"
    )
    second_opinion: Name | Literal["none"] = Field(
        default="none", description="what is asked about a question flagged at its prompt"
    )
    second_opinion_alpha: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="p-value of the second opinion above which the question is freed: the share "
        "of flagged questions in scope that stay flagged",
    )
    second_opinion_at_once: int = Field(
        default=2, ge=1, description="second opinions asked for at once; 4 wait for each"
    )
    second_opinion_seconds: float = Field(
        default=30,
        gt=0,
        allow_inf_nan=False,
        description="time for a second opinion, waiting included; then the flag stays",
    )
    second_opinion_nli: str | None = Field(
        default=None,
        description="model that tells which answers without a number come to the same: a local "
        "folder or a hub id",
    )
    refusal: str = Field(
        default="This question is outside the scope that this service answers.",
        description="text of a refusal",
    )
    refusal_style: RefusalStyle = Field(
        default="content",
        description="where a refusal stands: in content and refusal, in refusal alone, or as an "
        "error",
    )
    hold_back: bool = Field(
        default=False, description="whether streams show text only after the look that covers it"
    )
    request_alphas: str = Field(
        default="", description="alphas that a request may ask for, with spaces between"
    )
    standard_categories: bool = Field(
        default=False, description="whether /v1/moderations names OpenAI's own categories too"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on")
    api_keys: str = Field(
        default="", description="ROLE:SHA256 of each key that may ask, with spaces between"
    )
    api_keys_file: Path | None = Field(default=None, description="file of such entries, one a line")
    cors_origins: str = Field(
        default="",
        description="origins whose web pages may ask, such as https://app.example, or *",
    )
    verdict_detail: Literal["full", "decision"] = Field(
        default="full",
        description="decision tells scores and thresholds to privileged keys alone",
    )
    audit: Path | None = Field(default=None, description="file of the audit log; none without it")
    audit_key_file: Path | None = Field(
        default=None, description="file of its key, made if it is not there (beside the log)"
    )
    audit_megabytes: int = Field(
        default=256, ge=1, description="size at which the audit log's file is put aside"
    )
    audit_files: int = Field(default=8, ge=2, description="files of the audit log that are kept")
    on_audit_failure: FailPolicy = Field(
        default="open", description="closed answers nothing while the audit log cannot be written"
    )
    audit_prompts: bool = Field(
        default=False, description="whether the audit log holds what was asked, as a text"
    )
    state: Path | None = Field(
        default=None, description="file that keeps the evidence of drift over restarts"
    )
    drift_level: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="probability at most that drift is ever told where there is none",
    )
    canaries: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="known questions judged to see whether the guard has changed, as a share of "
        "those of users; 0 is none",
    )
    page: bool = Field(default=True, description="whether / shows the page")
    telemetry: bool = Field(
        default=False, description="whether OpenTelemetry is told of requests and verdicts"
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="response length where a request names none (512, or the calibrated one "
        "where the artifact judges the response's end)",
    )
    max_length: int = Field(
        default=2048, ge=2, description="positions a slot holds, prompt and response"
    )
    n_slots: int = Field(default=16, ge=1, description="requests that run at once")
    max_queue: int = Field(default=64, ge=1, description="requests that may wait; more get 429")
    max_queue_tokens: int = Field(
        default=65536, ge=1, description="tokens that waiting requests may come to; more get 429"
    )
    max_choices: int = Field(default=16, ge=1, description="choices a request may ask for as n")
    timeout_seconds: float = Field(
        default=600,
        gt=0,
        allow_inf_nan=False,
        description="time a request may take, waiting included; it may ask for less",
    )
    step_timeout_seconds: float = Field(
        default=300,
        gt=0,
        allow_inf_nan=False,
        description="time of one step of the engine after which it is taken for dead",
    )
    drain_seconds: float = Field(
        default=20,
        ge=0,
        allow_inf_nan=False,
        description="time that requests under way have to end after SIGTERM",
    )
    workers: int = Field(default=1, description="1: one process serves one model")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of the model (OMP_NUM_THREADS, else usable cores)",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="logging"
    )
    log_format: LogFormat = Field(
        default="console", description="lines for people, or a JSON object each"
    )

    @field_validator("vllm_options")
    @classmethod
    def _served_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        require_allowed(options)
        return options

    @field_validator("request_alphas")
    @classmethod
    def _alphas(cls, written: str) -> str:
        for alpha in written.replace(",", " ").split():
            try:
                inside = 0 < float(alpha) < 1
            except ValueError:
                inside = False
            if not inside:
                raise ValueError(f"{alpha!r} is no number between 0 and 1: write '0.01 0.1'")
        return written

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, written: str) -> str:
        for origin in written.replace(",", " ").split():
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: write https://app.example, without a path, or *"
                )
        return written

    @property
    def origins(self) -> list[str]:
        """Those whose web pages may ask."""
        return self.cors_origins.replace(",", " ").split()

    @property
    def names(self) -> tuple[str, ...]:
        """The further names of the model."""
        return tuple(dict.fromkeys(self.model_names.replace(",", " ").split()))

    @property
    def alphas(self) -> tuple[float, ...]:
        """Those that a request may ask for."""
        return tuple(
            sorted({float(each) for each in self.request_alphas.replace(",", " ").split()})
        )

    @field_validator("workers")
    @classmethod
    def _one_worker(cls, workers: int) -> int:
        if workers != 1:
            raise ValueError(ONE_WORKER)
        return workers

    @property
    def fails_closed(self) -> frozenset[str]:
        """The stages at which a request that cannot be judged is refused."""
        policies = {"prompt": self.on_prompt_failure, "response": self.on_response_failure}
        return frozenset(stage for stage, policy in policies.items() if policy == "closed")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get(CONFIG_VARIABLE)
        file = [TomlConfigSettingsSource(settings_cls, Path(path))] if path else []
        return (init_settings, Environment(settings_cls), *file)
