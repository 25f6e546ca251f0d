"""What goes into the audit log: a row for every request that was judged, or failed, and for what an
admin did.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from app.audit import AuditLog
from app.audit_format import AuditError
from app.judging import Judged
from app.settings import Settings

_KEY_BYTES = 32


def open_audit(settings: Settings) -> AuditLog | None:
    """The log that the settings name, if any. Raises AuditError where it cannot be written."""
    if settings.audit is None:
        return None
    return AuditLog(
        settings.audit,
        read_key(key_file_of(settings.audit, settings.audit_key_file), make=True),
        max_bytes=settings.audit_megabytes * 2**20,
        n_kept=settings.audit_files - 1,
    )


def key_file_of(log: Path, named: Path | None) -> Path:
    return named or log.with_name(log.name + ".key")


def read_key(path: Path, *, make: bool = False) -> bytes:
    """A log's key, in hex in a file; `make` one where there is none, for its owner's eyes alone.

    Raises AuditError where it cannot be read, or is none.
    """
    try:
        if make and not path.exists():
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            os.write(file, secrets.token_hex(_KEY_BYTES).encode())
            os.close(file)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise AuditError(
            f"audit key file {str(path)!r} cannot be read ({type(error).__name__}): name the file "
            "that was made with the log",
            param="audit_key_file",
        ) from None
    if len(key) < _KEY_BYTES:
        raise AuditError(
            f"audit key file {str(path)!r} holds {len(key)} bytes in hex: {_KEY_BYTES} are needed",
            param="audit_key_file",
        )
    return key


@dataclass(frozen=True)
class Acted:
    """What an admin did: `action` is "reload", "rollback" or "drift_reset:traffic", with a colon
    and an error's code behind it where it was refused. `model` and `artifact` are those in force.
    """

    action: str
    request_id: str
    key_id: str | None
    model: str
    artifact: str


def write_action(audit: AuditLog, acted: Acted) -> None:
    """A row of what an admin did."""
    audit.append(
        {
            "time": time.time(),
            "request_id": acted.request_id,
            "key_id": acted.key_id,
            "model": acted.model,
            "artifact": acted.artifact,
            "outcome": f"admin:{acted.action}",
        }
    )


def write_row(audit: AuditLog, event: Judged, *, prompts: bool = False) -> None:
    """A row of what came of a request; with what was asked as a text where `prompts` are kept."""
    verdict, opinion = event.verdict, event.opinion
    audit.append(
        {
            "time": time.time(),
            "request_id": event.request_id,
            "key_id": event.key_id,
            "model": event.model,
            "artifact": event.artifact,
            "stage": None if verdict is None else verdict.stage,
            "score": None if verdict is None else verdict.score,
            "p_value": None if verdict is None else verdict.p_value,
            "threshold": None if verdict is None else verdict.threshold,
            "mode": event.mode,
            "outcome": event.decision or event.error or "left",
            "n_prompt": event.n_prompt,
            "n_response": event.n_response,
            "prompt_hmac": audit.hmac_of(event.question),
            "prompt": event.question if prompts else None,
            "second_opinion": None if opinion is None else f"{opinion.name}:{opinion.outcome}",
            "second_p_value": None if opinion is None else opinion.p_value,
        }
    )
