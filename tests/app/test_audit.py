"""The audit log: every row, in order, none changed, and no prompt in it."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.audit import AuditLog, rotated, rows_of, verify
from app.audit_format import COLUMNS, AuditError, link_of
from tests.app.clients import SECRET

KEY = b"k" * 32


def row(n: int, **fields: Any) -> dict[str, Any]:
    return {"time": float(n), "request_id": f"id-{n}", "outcome": "allow", "score": n / 3} | fields


def log_of(path: Path, *, max_bytes: int = 10**9, n_kept: int = 3) -> AuditLog:
    return AuditLog(path, KEY, max_bytes=max_bytes, n_kept=n_kept)


def written(path: Path, n: int, **settings: Any) -> Path:
    log = log_of(path, **settings)
    for number in range(n):
        log.append(row(number))
    log.close()
    return path


def change(path: Path, statement: str, *, triggers: bool = True) -> None:
    """As somebody would who can write the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        for trigger in ("unchanged", "kept") if triggers else ():
            file.execute(f"DROP TRIGGER {trigger}")
        file.execute(statement)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.sqlite", 5)
    rows = list(rows_of(path))
    assert [each["number"] for each in rows] == [1, 2, 3, 4, 5]
    assert [each["request_id"] for each in rows] == [f"id-{n}" for n in range(5)]
    assert [each["score"] for each in rows] == [n / 3 for n in range(5)]
    assert set(rows[0]) == {"number", "link", *COLUMNS}
    assert verify(path, KEY) == 5
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_restart_goes_on_with_the_chain(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.sqlite", 3)
    written(path, 2)
    assert [each["number"] for each in rows_of(path)] == [1, 2, 3, 4, 5]
    assert verify(path, KEY) == 5


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE audit SET outcome = 'refuse' WHERE number = 3", "row 3 is not as it was written"),
        ("UPDATE audit SET score = 0.5 WHERE number = 1", "row 1 is not as it was written"),
        ("DELETE FROM audit WHERE number = 2", "row 2 is missing: 3 comes"),
        ("DELETE FROM audit WHERE number = 1", "row 1 is missing: 2 comes"),
        (
            "INSERT INTO audit SELECT 6, time, request_id, key_id, model, artifact, stage, score, "
            "p_value, threshold, mode, outcome, n_prompt, n_response, prompt_hmac, "
            "prompt, second_opinion, second_p_value, link FROM audit WHERE number = 5",
            "row 6 is not as it was written",
        ),
    ],
)
def test_what_was_changed_shows(tmp_path: Path, statement: str, said: str) -> None:
    path = written(tmp_path / "audit.sqlite", 5)
    change(path, statement)
    with pytest.raises(AuditError, match=said):
        verify(path, KEY)


def test_nobody_changes_a_row_by_mistake(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.sqlite", 2)
    with closing(sqlite3.connect(path)) as file:
        for statement in ("UPDATE audit SET score = 0", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                file.execute(statement)


def test_another_key_does_not_verify(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.sqlite", 2)
    with pytest.raises(AuditError, match="or the key is another"):
        verify(path, b"other")


def test_a_prompt_is_there_by_its_hmac_alone(tmp_path: Path) -> None:
    path = tmp_path / "audit.sqlite"
    log = log_of(path)
    log.append(row(0, prompt_hmac=log.hmac_of(SECRET)))
    log.close()
    (only,) = rows_of(path)
    assert only["prompt_hmac"] == log.hmac_of(SECRET) != log.hmac_of(SECRET + "!")
    assert SECRET.encode() not in path.read_bytes()


def test_files_are_put_aside_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "audit.sqlite"
    for _ in range(6):
        written(path, 3, max_bytes=1, n_kept=2)
    aside = rotated(path)
    assert len(aside) == 2
    assert [each.name for each in aside] == [
        "audit.sqlite.000000000013",
        "audit.sqlite.000000000016",
    ]
    assert [each["number"] for each in rows_of(path)] == list(range(13, 19))
    assert verify(path, KEY) == 6
    aside[1].unlink()
    assert verify(path, KEY) == 3
    written(path, 1)
    with pytest.raises(AuditError, match="row 16 is missing: 19 comes"):
        verify(path, KEY)


class Full:
    """Stands in for a file on a disk that is full, until there is room again."""

    in_transaction = False

    def __init__(self, log: AuditLog) -> None:
        self._log, self._file = log, log._file
        self.n_tried = 0
        self.tried = threading.Event()
        self.room = threading.Event()

    def execute(self, statement: str) -> None:
        self.n_tried += 1
        if self.n_tried == 2:
            self._log._file = self._file
            self.tried.set()
            assert self.room.wait(10)
        raise sqlite3.OperationalError("database or disk is full")

    def close(self) -> None: ...


def test_a_full_disk_is_told_and_nothing_is_lost_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.audit._RETRY_SECONDS", 0.001)
    path = tmp_path / "audit.sqlite"
    log = log_of(path)
    full = Full(log)
    log._file = full  # type: ignore[assignment]
    log.append(row(0))
    assert full.tried.wait(10)
    assert log.failure == "database or disk is full"
    log.append(row(1))
    full.room.set()
    log.close()
    assert (log.n_lost, log.n_written) == (0, 2)
    assert [each["request_id"] for each in rows_of(path)] == ["id-0", "id-1"]
    assert verify(path, KEY) == 2
    assert "the audit log cannot be written: database or disk is full" in caplog.text
    assert "is written again; 0 rows were lost" in caplog.text


def test_rows_that_can_never_be_written_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(rows: object) -> None:
        if rows:
            raise sqlite3.OperationalError("database or disk is full")

    log = log_of(tmp_path / "audit.sqlite")
    monkeypatch.setattr(log, "_append", full)
    for n in range(3):
        log.append(row(n))
    log.close()
    assert (log.n_lost, log.n_written) == (3, 0)
    assert log.failure == "database or disk is full"


def test_a_log_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "audit.sqlite", tmp_path):
        with pytest.raises(AuditError, match="cannot be written"):
            log_of(path)
    other = tmp_path / "other"
    other.write_text("Nothing of SQLite's is in here, whatever its name may say to the contrary.")
    with pytest.raises(AuditError, match="cannot be written"):
        log_of(other)
    with pytest.raises(AuditError, match="cannot be read"):
        list(rows_of(other))


def test_many_threads_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.sqlite"
    log = log_of(path)

    def append() -> None:
        for n in range(100):
            log.append(row(n))

    threads = [threading.Thread(target=append) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert verify(path, KEY) == 800 == log.n_written


BEFORE = {
    "prompts": ("prompt", "second_opinion", "second_p_value"),
    "second opinions": ("second_opinion", "second_p_value"),
}


def as_it_was_before(what: str, path: Path, n: int) -> Path:
    """A log as an earlier version wrote it: without some columns, and links over the others."""
    columns = [name for name in COLUMNS if name not in BEFORE[what]]
    kinds = ", ".join(f"{name} {COLUMNS[name]}" for name in columns)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(
            f"CREATE TABLE audit (number INTEGER PRIMARY KEY, {kinds}, link TEXT NOT NULL)"
        )
        file.execute("CREATE TABLE follows (link TEXT NOT NULL, number INTEGER NOT NULL)")
        file.execute("INSERT INTO follows VALUES (?, 0)", ("0" * 64,))
        link = "0" * 64
        for number in range(1, n + 1):
            link = link_of(KEY, link, number, row(number), columns)
            values = [number, *(row(number).get(name) for name in columns), link]
            file.execute(f"INSERT INTO audit VALUES ({', '.join('?' * len(values))})", values)
    return path


@pytest.mark.parametrize("what", BEFORE)
@pytest.mark.parametrize("n", [0, 3])
def test_a_log_of_a_version_before_goes_on_in_a_new_file(tmp_path: Path, n: int, what: str) -> None:
    path = as_it_was_before(what, tmp_path / "audit.sqlite", n)
    assert verify(path, KEY) == n
    written(path, 2)
    assert [each.name for each in rotated(path)] == ["audit.sqlite.000000000001"]
    assert [each["number"] for each in rows_of(path)] == list(range(1, n + 3))
    assert verify(path, KEY) == n + 2
    # And once more, into the same file.
    written(path, 1)
    assert len(rotated(path)) == 1
    assert verify(path, KEY) == n + 3
    if n:
        change(rotated(path)[0], "UPDATE audit SET score = 0.5 WHERE number = 2", triggers=False)
        with pytest.raises(AuditError, match="row 2 is not as it was written"):
            verify(path, KEY)


def test_a_log_with_unknown_columns_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.sqlite", 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("ALTER TABLE audit ADD COLUMN mood TEXT")
    with pytest.raises(AuditError, match="columns that this version does not know: move the file"):
        log_of(path)
    with pytest.raises(AuditError, match="does not know"):
        verify(path, KEY)


def test_a_prompt_that_is_kept_is_under_the_link(tmp_path: Path) -> None:
    path = tmp_path / "audit.sqlite"
    log = log_of(path)
    log.append(row(1, prompt="How many?"))
    log.append(row(2))
    log.close()
    assert [each["prompt"] for each in rows_of(path)] == ["How many?", None]
    change(path, "UPDATE audit SET prompt = 'How much?' WHERE number = 1")
    with pytest.raises(AuditError, match="row 1 is not as it was written"):
        verify(path, KEY)
