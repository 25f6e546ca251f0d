"""Settings: flags over environment (TRAJGUARD_*) over a TOML file over defaults."""

from __future__ import annotations

import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from app.policy import Mode
from detector.engine.model.default_model import NAME
from detector.errors import TrajGuardError
from detector.verdict import Guarantee

PREFIX = "TRAJGUARD_"
CONFIG_VARIABLE = PREFIX + "CONFIG"


class BadSettingError(TrajGuardError):
    """A setting has a value that the service cannot start with."""

    code = "bad_setting"


def default_artifact() -> Path:
    """The artifact that comes with TrajGuard, for the default model."""
    return Path(str(files("detector.artifacts") / "grade-school.safetensors"))


class Settings(BaseSettings):
    """Every setting of the service, each TRAJGUARD_<NAME> in the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", cli_prog_name="trajguard serve", cli_kebab_case=True
    )

    model: str = Field(default=NAME, description="default model's name, a local folder or a hub id")
    artifact: Path = Field(
        default_factory=default_artifact, description="calibration artifact to judge by"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="auto takes the artifact's"
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
    refusal: str = Field(
        default="This question is outside the scope that this service answers.",
        description="text of a refusal",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on")
    api_keys: str = Field(
        default="", description="ROLE:SHA256 of each key that may ask, with spaces between"
    )
    api_keys_file: Path | None = Field(default=None, description="file of such entries, one a line")
    verdict_detail: Literal["full", "decision"] = Field(
        default="full",
        description="decision tells scores and thresholds to privileged keys alone",
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
    max_choices: int = Field(default=16, ge=1, description="choices a request may ask for as n")
    timeout_seconds: float = Field(
        default=600,
        gt=0,
        allow_inf_nan=False,
        description="time a request may take, waiting included; it may ask for less",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of the model (OMP_NUM_THREADS, else usable cores)",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="logging"
    )

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
        return (init_settings, env_settings, *file)


def load_settings(arguments: list[str] | None = None) -> Settings:
    """Read settings, with command-line flags if `arguments` is given.

    Raises BadSettingError naming the variable, its value and the range.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        raise BadSettingError(
            f"{CONFIG_VARIABLE} names {path!r}, which is not a file: correct the path or unset it",
            param=CONFIG_VARIABLE,
        )
    unknown = sorted(
        name
        for name in os.environ
        if name.startswith(PREFIX)
        and name.removeprefix(PREFIX).lower() not in Settings.model_fields
        and name not in (CONFIG_VARIABLE, PREFIX + "CACHE", PREFIX + "API_KEY")
    )
    if unknown:
        raise BadSettingError(
            f"{unknown[0]} is not a setting: see `trajguard serve --help` for all of them",
            param=unknown[0],
        )
    try:
        if arguments is None:
            return Settings()
        flags = CliSettingsSource[object](Settings, cli_parse_args=arguments)
        return Settings(_cli_settings_source=flags)  # type: ignore[call-arg]
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"][:1]).upper()
        raise BadSettingError(f"{name} is {first['input']!r}: {first['msg']}", param=name) from None
    except tomllib.TOMLDecodeError as error:
        raise BadSettingError(
            f"{CONFIG_VARIABLE} names {path!r}, which is not TOML: {error}", param=CONFIG_VARIABLE
        ) from None
    except (SettingsError, ValueError) as error:
        raise BadSettingError(f"settings cannot be read: {error}", param="settings") from None
