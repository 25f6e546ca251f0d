"""The sandbox: functions answer, and whatever else a program tries ends it and leaves nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibration.bench.sandbox import running
from calibration.bench.sandbox.running import Json, Limits, Outcome, Sandbox, equal
from tests.calibration.bench.sandbox.attacks import ATTACKS, Attack

QUICK = Limits(cpu_s=1)
ROOT = Path(__file__).parents[4]


def sandboxed() -> set[int]:
    """Processes of this sandbox that are there now, whoever's child they have become."""
    inside = str(Path(running.__file__).with_name("inside.py")).encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if inside in arguments:
                found.add(int(folder.name))
    return found


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_ends_is_told_and_leaves_nothing(attack: Attack, tmp_path: Path) -> None:
    path = tmp_path / "left"
    (outcome,) = Sandbox(QUICK).run(attack.program, "attack", [[str(path)]])
    assert outcome.kind in attack.ends, outcome
    assert not path.exists()
    assert not sandboxed()


def test_functions_answer_with_what_json_has() -> None:
    program = "def f(*given):\n    return {'given': list(given), 'n': len(given)}"
    given: list[Json] = [None, True, 1, 0.5, "ö\n", [1, [2]], {"a": {}}]
    (outcome,) = Sandbox().run(program, "f", [given])
    assert outcome == Outcome("answer", {"given": given, "n": 7})


def test_calls_end_one_by_one() -> None:
    program = "def f(a):\n    print('noise')\n    return 12 // a if a else open('/')"
    outcomes = Sandbox().run(program, "f", [[3], ["x"], [4], [0], [6]])
    assert [outcome.kind for outcome in outcomes] == [
        "answer",
        "error",
        "answer",
        "forbidden",
        "forbidden",
    ]
    assert [outcome.value for outcome in outcomes[:3]] == [4, None, 3]
    assert outcomes[1].detail == "TypeError"


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("def f(", "SyntaxError"),
        ("def f():\n  return 1\n return 2", "IndentationError"),
        ("def g(): return 1", "KeyError"),
        ("import numpy\ndef f(): return 1", "ModuleNotFoundError"),
        ("def f(): return {1}", "TypeError"),
        ("def f(): return float('nan')", "ValueError"),
        ("f = 3", "TypeError"),
    ],
)
def test_mistakes_are_errors_and_no_attacks(program: str, detail: str) -> None:
    assert Sandbox().run(program, "f", [[]]) == (Outcome("error", detail=detail),)


def test_a_line_that_the_compiler_warns_of_is_not_looked_up() -> None:
    (outcome,) = Sandbox().run("def f(): return 1 is 1 or '\\d'", "f", [[]])
    assert outcome == Outcome("answer", True)


def test_the_same_program_answers_the_same_in_every_run() -> None:
    program = (
        "import random\nrandom.seed(1)\ndef f(): return [list(set('abcdef')), random.random()]"
    )
    runs = [Sandbox().run(program, "f", [[]]) for _ in range(3)]
    assert runs[0][0].kind == "answer"
    assert runs[0] == runs[1] == runs[2]


def test_nothing_of_this_process_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_SECRET", "hunter2")
    program = "import os, sys\ndef f(): return [dict(os.environ), list(sys.modules), sys.argv]"
    (outcome,) = Sandbox().run(program, "f", [[]])
    assert isinstance(outcome.value, list)
    environment, modules, _ = outcome.value
    assert isinstance(environment, dict)
    assert environment.keys() <= {"PYTHONHASHSEED", "PYTHONUTF8", "TZ", "LC_CTYPE"}
    assert isinstance(modules, list)
    assert not {"calibration", "detector", "torch", "site", "socket", "subprocess"} & set(modules)


def test_no_file_of_this_process_is_open_there(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        program = "import os\ndef f(n): os.write(n, b'here')"
        (outcome,) = Sandbox().run(program, "f", [[file.fileno()]])
    assert outcome.kind == "forbidden"
    assert (tmp_path / "open").read_text() == ""


def test_a_job_larger_than_a_pipe() -> None:
    long = "x" * 500_000
    (outcome,) = Sandbox().run("def f(a): return len(a)", "f", [[long]])
    assert outcome.value == 500_000


def test_time_on_the_wall_ends_what_takes_none_of_the_cpu() -> None:
    """Less than a start takes: nothing of it was run, and so there is nothing to report."""
    Sandbox()
    with pytest.raises(running.SandboxUnavailableError, match="did not start in time"):
        Sandbox(Limits(wall_s=0.0)).run("def f(): return 1", "f", [[]])
    assert not sandboxed()


def test_equality_is_python_s_but_for_booleans() -> None:
    assert equal(1, 1.0)
    assert equal({"a": [1, "b", None]}, {"a": [1, "b", None]})
    assert not equal(True, 1)
    assert not equal([False], [0])
    assert not equal({"a": 1}, {"a": 1, "b": 2})
    assert not equal([1], [1, 2])
    assert not equal("1", 1)


@pytest.fixture
def copied() -> Iterator[Path]:
    """The sandbox where any user can read it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name in ("calibration/bench/sandbox", "detector"):
        (folder / name).mkdir(parents=True)
    for name in ("calibration/bench/sandbox/inside.py", "calibration/bench/sandbox/running.py"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "detector/errors.py", folder / "detector/errors.py")
    yield folder
    shutil.rmtree(folder)


_ASKED = """
from calibration.bench.sandbox.running import Sandbox
fork, write, add = (
    Sandbox().run(f"def f(a):\\n    import os\\n    return {body}", "f", [[1]])[0]
    for body in ("os.fork()", "open('/tmp', 'w')", "a + 1")
)
print(fork.kind, write.kind, add.kind, add.value)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_is_held_as_root_is(copied: Path) -> None:
    python = next(
        (
            path
            for path in (sys.executable, "/usr/bin/python3")
            if subprocess.run(["test", "-x", path], user=65534).returncode == 0
        ),
        None,
    )
    if python is None:
        pytest.skip("no Python that an ordinary user may run")
    done = subprocess.run(
        [python, "-B", "-c", _ASKED], cwd=copied, user=65534, capture_output=True, text=True
    )
    assert done.stdout.split() == ["forbidden", "forbidden", "answer", "2"], done.stderr


_WITHOUT_SECCOMP = """
import ctypes, struct
from calibration.bench.sandbox.running import Sandbox, SandboxUnavailableError
libc = ctypes.CDLL(None)
prctl = {{"x86_64": 157, "aarch64": 167}}[__import__("platform").machine()]
rules = [(0x20, 0, 0, 0), (0x15, 0, 3, prctl), (0x20, 0, 0, 16), (0x15, 0, 1, 22),
         (0x06, 0, 0, 0x00050000 | {number}), (0x06, 0, 0, 0x7FFF0000)]
held = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HP", len(rules), ctypes.addressof(held)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
try:
    Sandbox()
except SandboxUnavailableError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("number", "said"),
    [(22, "could not shut its door"), (0, "does not confine programs by seccomp")],
    ids=["a kernel without filters", "one that takes a filter and does not keep it"],
)
def test_where_nothing_confines_nothing_runs(number: int, said: str) -> None:
    """prctl(PR_SET_SECCOMP) fails there, or does nothing: by a filter of this test's own."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_SECCOMP.format(number=number)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said in done.stdout


def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    running._require_confinement.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(running.SandboxUnavailableError, match="riscv64"):
        Sandbox()
    running._require_confinement.cache_clear()
