"""Command lines: what can be typed, what is said of what cannot, and what they start with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import trajguard
from calibration.__main__ import main as calibration
from calibration.bench.paper.__main__ import main as paper
from calibration.bench.speed.__main__ import main as speed
from calibration.commands.fit import SCORES as SCORE_NAMES
from calibration.paths import RECORD
from detector.scores import SCORES

Main = Callable[[list[str]], int]


@pytest.mark.parametrize(
    ("main", "arguments", "says"),
    [
        (calibration, "fit c --out a --scope s --alpha 2", "--alpha is '2': Input should be less"),
        (calibration, "fit c --out a --scope s --rank few", "--rank is 'few': Input should be a"),
        (calibration, "fit c --scope s", "required: --out: see `python -m calibration fit --help`"),
        (calibration, "collect q --out c --dtype int8", "--dtype is 'int8': Input should be 'auto"),
        (calibration, "collect q --out c --max-tokens 0", "--max-tokens is '0': Input should be g"),
        (calibration, "collect q --out c --top-p 2", "--top-p is '2': Input should be less than"),
        (calibration, "collect q --out c --looks 4,4", "--looks '4,4' names one look twice"),
        (calibration, "generate --n 0 --out q", "--n is '0': Input should be greater than"),
        (calibration, "fit c --out a --scope s --no-such 1", "unrecognized arguments: --no-such 1"),
        (calibration, "dance", "invalid choice: 'dance'"),
        (
            calibration,
            "",
            "subcommand is required {generate, vary, collect, fit, report, canaries, neighbours, "
            "revalidate, influence, second-opinion, recheck, ask}",
        ),
        (trajguard.main, "fit c", "see `trajguard fit --help`"),
        (paper, "benchmark q --collected c --out o --first 0", "--first is '0': Input should be"),
        (speed, "floor 9b", "SHAPE is '9b': Input should be '135m' or '7b'"),
        (speed, "floor 7b --batches 1 none", "--batches is 'none': Input should be a valid int"),
        (speed, "floor 7b --batches", "--batches is []: List should have at least 1 item"),
        (speed, "throughput a --out o --ours --vllm p", "give only one of the two"),
        (
            calibration,
            "generate --n 1 --out /dev/null/q",
            "'/dev/null' cannot be used (F",
        ),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_fix(
    main: Main, arguments: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error [")
    assert says in line


def test_file_names_may_hold_what_lists_are_written_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a,b.jsonl", '["x"]', "{q}", "None", "1"):
        assert calibration(["collect", str(tmp_path / name), "--out", str(tmp_path)]) == 2
        assert f"questions file {str(tmp_path / name)!r} cannot be read" in capsys.readouterr().err


def test_environment_variables_are_no_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIT", '{"rank": "few"}')
    monkeypatch.setenv("GENERATE", "1")
    assert calibration(["generate"]) == 2
    assert "required: --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "commands"),
    [
        (trajguard.main, "serve check generate vary collect fit report ask"),
        (calibration, "generate vary collect fit report ask"),
        (paper, "ladder baselines benchmark finetune"),
        (speed, "throughput load growth floor timing"),
    ],
)
def test_help_lists_every_command_and_option(
    main: Main, commands: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for command in commands.split():
        assert f"\n    {command} " in shown
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert "--help" in capsys.readouterr().out


def test_serve_passes_its_flags_to_the_service(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAJGUARD_MODE", "refuse")
    assert trajguard.main(["serve", "--mode", "dance"]) == 2
    assert "TRAJGUARD_MODE is 'dance'" in capsys.readouterr().err


WRONG_PATHS = [
    ("collect none.jsonl --out c", "questions file 'none.jsonl' cannot be read (No such file"),
    ("collect q.jsonl --out q.jsonl", "--out 'q.jsonl' cannot be a folder, 'q.jsonl' is a file"),
    ("collect q.jsonl --out c --model ./none", "model './none' is not there: correct the path"),
    ("collect q.jsonl --out c --column text", "no column 'text' (there are: question)"),
    ("collect q.jsonl c/q.jsonl --out c", "2 questions files are named 'q', and each needs"),
    ("fit none --out a.safetensors --scope s", "'none' is not a collection: make one with"),
    ("fit c --out c --scope s", "--out 'c' is a folder: name a file in it"),
    ("fit c --out q.jsonl/a --scope s", "--out 'q.jsonl' cannot be a folder"),
    ("report none c", "artifact 'none' is not a file: make one with `trajguard fit`"),
    ("report q.jsonl none", "'none' is not a collection"),
    ("report q.jsonl c --ood c --ood none", "'none' is not a collection"),
    ("report q.jsonl c --json c", "--json 'c' is a folder: name a file in it"),
    ("report q.jsonl c --unseen-variations none", "'none' is not a collection"),
    ("fit c --out a --scope s --contrast none", "'none' is not a collection"),
    ("vary none.jsonl --out v", "questions file 'none.jsonl' cannot be read"),
    ("vary q.jsonl --out q.jsonl", "--out 'q.jsonl' cannot be a folder"),
    ("ask http://127.0.0.1:9 q.jsonl none.csv", "questions file 'none.csv' cannot be read"),
]


def test_wrong_paths_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    """In a process of its own, in which it cannot be."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / RECORD).touch()
    for name in ("q.jsonl", "c/q.jsonl"):
        (tmp_path / name).write_text('{"question": "1 + 2?"}')
    script = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('torch', 'transformers', 'numpy', 'scipy', 'pyarrow'))\n"
        "import trajguard\n"
        "for line in sys.argv[1:]:\n"
        "    assert trajguard.main(line.split()) == 2\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *(line for line, _ in WRONG_PATHS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(trajguard.__file__).parent)},
    )
    assert ended.returncode == 0, ended.stderr
    for said, (_, says) in zip(ended.stderr.splitlines(), WRONG_PATHS, strict=True):
        assert said.startswith("error [")
        assert says in said


def test_the_scores_that_help_names_are_those_there_are() -> None:
    assert SCORE_NAMES.split() == list(SCORES)


def test_without_what_calibration_needs_serving_starts_and_the_rest_says_why(
    tmp_path: Path,
) -> None:
    """In a process of its own, in which the calibration extra cannot be imported."""
    script = (
        "import sys\n"
        "extra = ('httpx2', 'matplotlib', 'peft', 'pyarrow', 'sklearn')\n"
        "sys.modules |= dict.fromkeys(extra)\n"
        "import trajguard\n"
        "print(trajguard.main(['serve', '--mode', 'dance']))\n"
        "print(trajguard.main(['generate', '--n', '20', '--out', sys.argv[1]]))\n"
        "print(trajguard.main(['ask', 'http://127.0.0.1:9', sys.argv[1]]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "q.jsonl")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line for line in ended.stdout.splitlines() if line.isdigit()] == ["2", "0", "2"]
    assert "pip install 'trajguard[calibration]'" in ended.stderr
