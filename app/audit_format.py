"""The file of the audit log: its columns, and the link of a row to the one before."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detector.errors import TrajGuardError

COLUMNS = {
    "time": "REAL",
    "request_id": "TEXT",
    "key_id": "TEXT",
    "model": "TEXT",
    "artifact": "TEXT",
    "stage": "TEXT",
    "score": "REAL",
    "p_value": "REAL",
    "threshold": "REAL",
    "mode": "TEXT",
    "outcome": "TEXT",
    "n_prompt": "INTEGER",
    "n_response": "INTEGER",
    "prompt_hmac": "TEXT",
    "prompt": "TEXT",
    "second_opinion": "TEXT",
    "second_p_value": "REAL",
}
"""What a row has, beside its number and its link; `time` is in seconds of Unix time, and `prompt`
NULL unless it is asked for. `second_opinion` is NULL unless one was asked for, and else its name
and its outcome with a colon between."""

_WITH_PROMPTS = tuple(COLUMNS)[:-2]
KNOWN_COLUMNS = (tuple(COLUMNS), _WITH_PROMPTS, _WITH_PROMPTS[:-1])
"""The columns of files that can be read: this version's, those before there were second opinions,
and those before prompts could be kept."""

Row = Mapping[str, Any]

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, {", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())},
    link TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS follows (link TEXT NOT NULL, number INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS unchanged BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS kept BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
"""


class AuditError(TrajGuardError):
    """The audit log cannot be written or read, or is not what was written."""

    code = "audit_error"


def link_of(
    key: bytes, before: str, number: int, row: Row, columns: Iterable[str] = COLUMNS
) -> str:
    """A row's HMAC over itself and the `before` link, in hex."""
    written = json.dumps([before, number, [row.get(name) for name in columns]])
    return hmac.new(key, b"row\0" + written.encode(), hashlib.sha256).hexdigest()


def columns_of(file: sqlite3.Connection, path: Path) -> tuple[str, ...]:
    """Those of its rows. Raises AuditError where they are none of an audit log's that is known."""
    names = [row[1] for row in file.execute("PRAGMA table_info(audit)")]
    columns = tuple(name for name in names if name not in ("number", "link"))
    if not names:
        return KNOWN_COLUMNS[0]  # an empty file
    if columns not in KNOWN_COLUMNS:
        raise AuditError(
            f"audit log {str(path)!r} has columns that this version does not know: move the file "
            "away, or name another",
            param="audit",
        )
    return columns
