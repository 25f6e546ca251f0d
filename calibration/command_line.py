"""Command lines: options classes read by pydantic-settings, and the options that commands share."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)

from detector.engine.model.default_model import NAME
from detector.errors import CalibrationError, FalseAlarmsError, TrajGuardError

THREADS_VARIABLE = "TRAJGUARD_THREADS"
EXTRA = ("httpx2", "matplotlib", "peft", "pyarrow", "sklearn", "tqdm")
"""What the `calibration` extra installs, by the names that are imported."""

Dtype = Literal["bfloat16", "float16", "float32"]
ModelName = Annotated[str, Field(description="this name, a folder or a hub id")]
Alpha = Annotated[float, Field(gt=0, lt=1)]
ALPHA = 0.05
"""The target false-alarm rate of who names none."""
QUESTIONS = "questions files or folders: JSON Lines, JSON, CSV, TSV, Parquet, Arrow"
Column = Annotated[
    str | None,
    Field(description="column of the question; else question, prompt or messages, the first there"),
]

_LIST = re.compile(r"list\[(.*)\]")
_NO_DEFAULT = re.compile(r" \(default: (None|False|\[\])\)")
_POSITIONAL = get_args(CliPositionalArg[str])[1]


class BadOptionError(TrajGuardError):
    """A command line has an option, or a value of one, that its command does not take."""

    code = "bad_option"


class Command(BaseModel, ABC):
    """A command's options; `run` does what they say."""

    model_config = ConfigDict(frozen=True)

    @abstractmethod
    def run(self) -> None: ...


class ModelCommand(Command):
    """A command that runs a model."""

    model: ModelName = NAME
    dtype: Literal["auto", Dtype] = Field(
        default="auto", description="of the weights; auto takes the fastest of the device"
    )


class CommandLine(BaseSettings):
    """A program: a field a command, each `CliSubCommand[...]`. Only arguments fill it."""

    model_config = SettingsConfigDict(
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_enforce_required=True,
        cli_exit_on_error=False,
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
        # A variable that happens to be named FIT or LOAD is no command.
        return (init_settings,)


def run(program: type[CommandLine], arguments: Sequence[str] | None, name: str) -> int:
    """Run the command that `arguments` (the process's, if None) ask of `program`, called `name`.

    0 when it succeeded, 1 when an artifact's alpha was found not to hold, 2 when its input was at
    fault, 130 when it was interrupted.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        _parse(program, sys.argv[1:] if arguments is None else list(arguments), name).run()
    except TrajGuardError as error:
        return _failed(error, 1 if isinstance(error, FalseAlarmsError) else 2)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in EXTRA:
            raise
        return _failed(
            CalibrationError(
                f"{error.name} is not installed: install what calibration needs with "
                "`pip install 'trajguard[calibration]'`"
            )
        )
    except OSError as error:
        if error.filename is None:
            raise
        return _failed(
            BadOptionError(
                f"{str(error.filename)!r} cannot be used ({error.strerror}): correct the path"
            )
        )
    except KeyboardInterrupt:
        print("interrupted; `collect` and --keep resume where they were", file=sys.stderr)  # noqa: T201
        return 130
    return 0


def _failed(error: TrajGuardError, status: int = 2) -> int:
    print(f"error [{error.code}]: {error.message}", file=sys.stderr)  # noqa: T201
    return status


def _parse(program: type[CommandLine], arguments: list[str], name: str) -> Command:
    """Raises BadOptionError naming the option, its value and what it should be."""
    source = CliSettingsSource[Any](
        program,
        cli_prog_name=name,
        parse_args_method=_parse_args,
        add_argument_method=_add_argument,
    )
    try:
        parsed = CliApp.run(program, arguments, source)
        command = get_subcommand(parsed, cli_exit_on_error=False)
    except ValidationError as error:
        raise _bad_option(program, error) from None
    except SettingsError as error:
        what = str(error).removeprefix("error parsing CLI: ").removeprefix("Error: ")
        for field in program.model_fields:
            what = what.replace(field, field.replace("_", "-"))  # as it is typed
        asked = arguments[:1] if arguments[:1] and arguments[0] in program.model_fields else []
        helping = " ".join([name, *asked, "--help"])
        raise BadOptionError(f"{what}: see `{helping}`", param="options") from None
    assert isinstance(command, Command)
    return command


def _add_argument(parser: Any, *names: str, **said: Any) -> None:
    """Argparse's, with two dashes before every name however short, one value in place of a
    list's type, no default where there is none, and the values of all times an option is given.
    """
    longer = [f"-{name}" if len(names) == 1 and len(name) == 2 else name for name in names]
    if listed := _LIST.fullmatch(said.get("metavar") or ""):
        said["metavar"] = listed[1]
    if "nargs" in said and longer[0].startswith("-"):
        # Argparse would keep those of the last time alone, and say nothing.
        said["action"] = "extend"
    said["help"] = _NO_DEFAULT.sub("", said["help"])
    parser.add_argument(*longer, **said)


def _parse_args(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Argparse's, with several values of an option as one JSON list: the library would
    split each of them at its commas, and file names may have some.
    """
    parsed = parser.parse_args(arguments)
    for name, value in vars(parsed).items():
        if isinstance(value, list):
            setattr(parsed, name, json.dumps(value))
    return parsed


def _bad_option(program: type[CommandLine], error: ValidationError) -> BadOptionError:
    first = error.errors()[0]
    command, *place = first["loc"]
    (model,) = (
        kind
        for kind in get_args(program.model_fields[str(command)].annotation)
        if kind is not type(None)
    )
    field = str(place[0])
    positional = _POSITIONAL in model.model_fields[field].metadata
    option = field.upper() if positional else f"--{field.replace('_', '-')}"
    return BadOptionError(f"{option} is {first['input']!r}: {first['msg']}", param=field)


def set_threads() -> None:
    """As many threads as the service would take with this environment.

    Raises BadOptionError when TRAJGUARD_THREADS is not a number over 0.
    """
    from detector.engine.model.threads import set_threads

    set_threads(threads_asked())


def threads_asked() -> int | None:
    """TRAJGUARD_THREADS, if it is set. Raises BadOptionError when it is not a number over 0."""
    asked = os.environ.get(THREADS_VARIABLE)
    if asked is not None and not (asked.isdecimal() and int(asked)):
        raise BadOptionError(
            f"{THREADS_VARIABLE} is {asked!r}: set it to a number of threads over 0 or unset it",
            param=THREADS_VARIABLE,
        )
    return int(asked) if asked else None
