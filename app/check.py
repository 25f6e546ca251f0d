"""Check: `trajguard check`, with any setting as a flag: what `serve` would start with, not started.

Weights are not read: whether the model is the calibrated one is seen as far as its config says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.load_settings import BadSettingError, load_settings
from app.settings import Settings
from detector.errors import ArtifactMismatchError, CheckpointError, TrajGuardError

if TYPE_CHECKING:
    from detector.artifact import Artifact
    from detector.manifest import Manifest, Place

_DEFAULT_MODEL = Settings.model_fields["model"].default
_NEEDED = ("config.json", "tokenizer.json")


def main(arguments: list[str]) -> int:
    """0 when `serve` may start, 1 when artifact or model are at fault, 2 when a setting is."""
    try:
        settings = load_settings(arguments, "trajguard check")
    except BadSettingError as error:
        _tell("settings", error)
        return 2
    _say("settings", "in order")
    try:
        artifact = _artifact(settings)
    except TrajGuardError as error:
        _tell("artifact", error)
        return 1
    try:
        _say("model", _model(settings, artifact.manifest))
    except TrajGuardError as error:
        _tell("model", error)
        return 1
    return 0


def _artifact(settings: Settings) -> Artifact:
    from app.at_alpha import detector_of, others_of
    from app.loading import dtype_of
    from app.second_opinion.known import require_second_opinion
    from detector import artifact as artifacts

    artifact = artifacts.load(settings.artifact)
    detector = detector_of(settings, artifact)
    others_of(settings, artifact)
    manifest = artifact.manifest
    dtype = dtype_of(settings, manifest)
    if dtype not in manifest.dtypes(settings.engine):
        raise ArtifactMismatchError(
            f"the artifact was calibrated in {manifest.place} and is asked to be served in {dtype} "
            f"by the engine {settings.engine!r}: serve it where it was calibrated or see whether "
            "it holds there, with `trajguard revalidate`",
            param="engine" if dtype in manifest.dtypes("own") else "dtype",
        )
    require_second_opinion(settings, manifest, _place(settings, manifest, dtype))
    looks = ", ".join(dict.fromkeys(look.look for look in artifact.manifest.looks))
    _say(
        "artifact",
        f"{artifact.id} in order: {artifact.manifest.scope!r} for "
        f"{artifact.manifest.model_name!r}, looks {looks}, alpha {detector.alpha:g} "
        f"({detector.guarantee}), threshold {detector.threshold:.3f}",
    )
    return artifact


def _place(settings: Settings, manifest: Manifest, dtype: str) -> Place:
    """Where it would be served, as far as that is known without the device."""
    from detector.manifest import Place

    engine = manifest.engine.model_copy(update={"name": settings.engine})
    return Place(
        fingerprint=manifest.fingerprint.model_copy(update={"dtype": dtype}), engine=engine
    )


def _model(settings: Settings, manifest: Manifest) -> str:
    """What is known of the model without reading it. Raises CheckpointError when its folder is
    not whole, ArtifactMismatchError when the artifact is another model's.
    """
    folder = Path(settings.model)
    if settings.model.startswith(("/", ".", "~")) and not folder.is_dir():
        raise CheckpointError(
            f"model folder {settings.model!r} is not there: correct the path", param="model"
        )
    if settings.model == _DEFAULT_MODEL or not folder.is_dir():
        return f"{settings.model!r} is no folder and was not looked at"
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("weights (*.safetensors)")
    if missing:
        raise CheckpointError(
            f"model folder {settings.model!r} has no {', '.join(missing)}: save the model and its "
            "tokenizer there",
            param="model",
        )
    config = _config(folder / "config.json")
    sizes = {"hidden_size": manifest.hidden_size, "num_hidden_layers": manifest.n_layers}
    for name, calibrated in sizes.items():
        if config.get(name, calibrated) != calibrated:
            raise ArtifactMismatchError(
                f"the artifact was calibrated for a model of {name} {calibrated} and "
                f"{settings.model!r} has {config[name]}: serve the calibrated model or calibrate "
                "this one",
                param="artifact",
            )
    return f"{settings.model!r} is there; its weights were not read"


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{str(path)!r} is no JSON object: save the model again", param="model"
        )
    return config


def _say(what: str, text: str) -> None:
    print(f"{what}: {text}")  # noqa: T201


def _tell(what: str, error: TrajGuardError) -> None:
    print(f"{what}: error [{error.code}]: {error.message}", file=sys.stderr)  # noqa: T201
