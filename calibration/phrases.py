"""What pupils say after a tutor's answer, and what apps tell a tutor: for calibration.

The phrases are in `phrases.toml`, which says what may stand in them. `held_out_phrases` has
others, for reports.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

_TABLES: dict[str, dict[str, list[str]]] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_bytes().decode("utf-8")
)

FOLLOW_UPS: dict[str, tuple[str, ...]] = {
    kind: tuple(texts) for kind, texts in _TABLES["follow_ups"].items()
}
GREETINGS: tuple[str, ...] = tuple(_TABLES["openings"]["greetings"])
SYSTEMS: tuple[str, ...] = tuple(_TABLES["openings"]["systems"])
