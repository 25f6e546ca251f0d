"""The calibration command line: generate, collect, fit, report, ask, timing."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from calibration.fit import FitOptions, fit
from calibration.generate import write_questions
from calibration.ladder import write_ladder
from calibration.questions import Split, in_first, read_questions, read_rows, require_answers
from calibration.report import report
from detector import artifact as artifacts
from detector.atomic import write_atomically
from detector.backend import Sampling
from detector.detector import Part
from detector.engine.model.default_model import NAME
from detector.errors import CalibrationError, TrajGuardError
from detector.manifest import Context, Judged, system_prompt_digest
from detector.scores import SCORES
from detector.trajectory import Look, parse_look
from detector.verdict import Guarantee

_THREADS_VARIABLE = "TRAJGUARD_THREADS"
_DTYPES = ("bfloat16", "float16", "float32")


def _alpha(text: str) -> float:
    alpha = float(text)
    if not 0 < alpha < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return alpha


def _template(text: str) -> str:
    """Shells pass a backslash and an n; what is meant is a line break."""
    return text.replace("\\n", "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calibration",
        description="Calibrate TrajGuard for your own questions, model or alpha.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    generate = commands.add_parser(
        "generate", help="write a questions file of made-up grade-school word problems"
    )
    generate.add_argument("--n", type=int, default=1500, help="how many (1500)")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--out", type=Path, required=True, metavar="FILE")

    rungs = commands.add_parser(
        "ladder", help="write question sets alike in surface and different in procedure"
    )
    rungs.add_argument("--n", type=int, default=300, help="questions a set (300)")
    rungs.add_argument("--seed", type=int, default=0)
    rungs.add_argument("--out", type=Path, required=True, metavar="FOLDER")

    collect = commands.add_parser(
        "collect", help="run the model over questions files and keep trajectories; resumes"
    )
    collect.add_argument("questions", type=Path, nargs="+", metavar="QUESTIONS.jsonl")
    collect.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="one sub-folder a file"
    )
    collect.add_argument("--model", default=NAME, help="this name, a folder or a hub id")
    collect.add_argument("--dtype", default="auto", choices=("auto", *_DTYPES))
    collect.add_argument(
        "--looks", default="prompt", help="comma-separated: prompt, numbers of tokens, end"
    )
    collect.add_argument("--judged", choices=get_args(Judged), default="question")
    collect.add_argument(
        "--template",
        type=_template,
        default="chat",
        help="'chat', or a text with {question}; \\n is a line break",
    )
    collect.add_argument("--max-tokens", type=int, help="response length (the last look's)")
    collect.add_argument("--temperature", type=float, default=0.0)
    collect.add_argument("--top-p", type=float, default=1.0)
    collect.add_argument("--top-k", type=int, default=0)

    fitting = commands.add_parser("fit", help="fit collections into an artifact; seconds")
    fitting.add_argument("collected", type=Path, nargs="+", metavar="COLLECTION")
    fitting.add_argument("--out", type=Path, required=True, metavar="ARTIFACT.safetensors")
    fitting.add_argument("--scope", required=True, help="what is in distribution, in words")
    fitting.add_argument(
        "--guard",
        nargs="+",
        metavar="LOOK:SCORE[:ORDER]",
        help="what the guard consists of, such as prompt:mahalanobis 16:tv-paper:1 "
        "(mahalanobis at every look collected); scores: " + ", ".join(SCORES),
    )
    fitting.add_argument("--rank", type=int, default=128, help="of the covariances (128)")
    fitting.add_argument("--alpha", type=_alpha, default=0.05)
    fitting.add_argument("--guarantee", choices=get_args(Guarantee), default="marginal")

    fitting.add_argument(
        "--group-by",
        metavar="length|FIELD",
        help="a threshold for each third by length, or for each value of a text field",
    )

    reporting = commands.add_parser("report", help="false alarms on holdout, recall on OOD")
    reporting.add_argument("artifact", type=Path, metavar="ARTIFACT.safetensors")
    reporting.add_argument("collected", type=Path, nargs="+", metavar="COLLECTION")
    reporting.add_argument("--ood", type=Path, nargs="+", default=[], metavar="COLLECTION")
    reporting.add_argument("--alpha", type=_alpha, help="instead of the artifact's")
    reporting.add_argument("--guarantee", choices=get_args(Guarantee))

    dropping = commands.add_parser(
        "dropout", help="add the Monte-Carlo dropout baseline to collections, for the benchmark"
    )
    dropping.add_argument("collected", type=Path, nargs="+", metavar="COLLECTION")
    dropping.add_argument("--model", default=NAME, help="the one that collected")
    dropping.add_argument("--dtype", default="auto", choices=("auto", *_DTYPES))
    dropping.add_argument("--passes", type=int, default=5, help="with dropout (5)")

    measuring = commands.add_parser(
        "benchmark", help="every score by the paper's protocol and beyond; table, JSON, page"
    )
    measuring.add_argument("id", type=Path, nargs="+", metavar="ID.jsonl")
    measuring.add_argument(
        "--in-turn",
        action="store_true",
        help="several ID files, each in turn ID and the others near OOD: the paper's MMLU table",
    )
    measuring.add_argument("--near", type=Path, nargs="*", default=[], metavar="OOD.jsonl")
    measuring.add_argument("--far", type=Path, nargs="*", default=[], metavar="OOD.jsonl")
    measuring.add_argument(
        "--collected", type=Path, required=True, metavar="FOLDER", help="`collect`'s --out"
    )
    measuring.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    measuring.add_argument("--first", type=int, default=60, help="of every 100 rows fit (60)")
    measuring.add_argument("--alpha", type=_alpha, default=0.05)

    tuning = commands.add_parser(
        "finetune", help="train the model on questions and answers, as the paper does first"
    )
    tuning.add_argument("questions", type=Path, metavar="QUESTIONS.jsonl")
    tuning.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    tuning.add_argument("--model", default=NAME, help="this name, a folder or a hub id")
    tuning.add_argument(
        "--first", type=int, default=60, help="train on the first of every 100 rows (60)"
    )
    tuning.add_argument("--template", type=_template, default="Q: {question}\nA:")
    tuning.add_argument("--epochs", type=int, default=6, help="at most (6)")
    tuning.add_argument("--learning-rate", type=float, default=3e-5)
    tuning.add_argument("--batch-size", type=int, default=8)
    tuning.add_argument("--lora", type=int, default=0, metavar="RANK", help="train adapters only")
    tuning.add_argument("--patch-size", type=int, default=1, metavar="K", help="patch level first")

    racing = commands.add_parser(
        "throughput", help="tokens a second, guarded and not, beside other engines"
    )
    racing.add_argument("artifact", type=Path, metavar="ARTIFACT.safetensors")
    racing.add_argument("--model", default=NAME, help="this name, a folder or a hub id")
    racing.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    racing.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"], choices=_DTYPES)
    racing.add_argument("--rounds", type=int, default=7, help="each contender once a round (7)")
    beside = racing.add_mutually_exclusive_group()
    beside.add_argument("--ours", action="store_true", help="the engine alone, guarded and not")
    beside.add_argument(
        "--vllm", type=Path, metavar="PYTHON", help="an interpreter that has vLLM installed"
    )
    racing.add_argument("--out", type=Path, required=True, metavar="FILE.json")

    loading = commands.add_parser(
        "load", help="the engine under Poisson arrivals, refusals and many requests"
    )
    loading.add_argument("artifact", type=Path, metavar="ARTIFACT.safetensors")
    loading.add_argument("--model", default=NAME, help="this name, a folder or a hub id")
    loading.add_argument("--dtype", default="auto", choices=("auto", *_DTYPES))
    loading.add_argument("--n", type=int, default=300, help="arrivals (300)")
    loading.add_argument("--n-memory", type=int, default=2000, help="requests for memory (2000)")

    growing = commands.add_parser(
        "growth", help="plot a step's time by batch, prompt length and layers"
    )
    growing.add_argument("--model", default=NAME, help="this name, a folder or a hub id")
    growing.add_argument("--dtype", default="auto", choices=("auto", *_DTYPES))
    growing.add_argument("--out", type=Path, required=True, metavar="FILE.svg")

    flooring = commands.add_parser(
        "floor", help="decode steps of a random model beside what reading memory takes"
    )
    flooring.add_argument("shape", choices=["135m", "7b"], help="of a Llama")
    flooring.add_argument(
        "--batches", type=int, nargs="+", default=[1, 8, 32, 128], metavar="N", help="requests"
    )
    flooring.add_argument("--dtype", default="auto", choices=("auto", *_DTYPES))

    asking = commands.add_parser("ask", help="count what a running service refuses or flags")
    asking.add_argument("url", metavar="URL", help="such as http://127.0.0.1:8000")
    asking.add_argument("questions", type=Path, nargs="+", metavar="QUESTIONS.jsonl")
    asking.add_argument("--split", choices=get_args(Split), help="only questions of this split")
    asking.add_argument("--n", type=int, default=300, help="how many (300)")
    asking.add_argument("--max-tokens", type=int, default=8, help="of each response (8)")

    timing = commands.add_parser("timing", help="what scoring a trajectory costs on one thread")
    timing.add_argument("artifact", type=Path, metavar="ARTIFACT.safetensors")
    timing.add_argument(
        "--fit", action="store_true", help="also fit 5,000 trajectories of 33 x 4096 (minutes)"
    )
    return parser


def _looks(names: str) -> tuple[Look, ...]:
    looks = tuple(parse_look(name.strip()) for name in names.split(","))
    if len(set(looks)) < len(looks):
        raise CalibrationError(
            f"looks {names!r} name one look twice: name each once", param="looks"
        )
    return looks


def _parts(texts: Sequence[str]) -> tuple[Part, ...]:
    parts = tuple(Part.parse(text) for text in texts)
    if len(set(parts)) < len(parts):
        raise CalibrationError(
            f"--guard {' '.join(texts)} names one part twice: name each once", param="guard"
        )
    return parts


def _generate(options: argparse.Namespace) -> None:
    write_questions(options.out, options.n, options.seed)
    print(f"wrote {options.n} questions to {options.out}")  # noqa: T201


def _ladder(options: argparse.Namespace) -> None:
    paths = write_ladder(options.out, options.n, options.seed)
    print(f"wrote {len(paths)} sets of {options.n} questions to {options.out}")  # noqa: T201


def _set_threads() -> None:
    """As many threads as the service would take with this environment."""
    from detector.engine.model.threads import set_threads

    asked = os.environ.get(_THREADS_VARIABLE)
    if asked is not None and not (asked.isdecimal() and int(asked)):
        raise CalibrationError(
            f"{_THREADS_VARIABLE} is {asked!r}: set it to a number of threads over 0 or unset it",
            param=_THREADS_VARIABLE,
        )
    set_threads(int(asked) if asked else None)


def _collect(options: argparse.Namespace) -> None:
    looks = _looks(options.looks)
    read = [read_questions(path) for path in options.questions]
    # transformers takes seconds to import; bad input is told before that.
    from calibration.collect import collect, default_max_tokens
    from detector.engine.model.checkpoint import load_checkpoint
    from detector.engine.self_test import self_test

    _set_threads()
    max_tokens = options.max_tokens or default_max_tokens(looks)
    digests = {system_prompt_digest(q.messages) for questions, _ in read for q in questions}
    context = Context(
        judged=options.judged,
        template=options.template,
        sampling=Sampling(
            temperature=options.temperature, top_p=options.top_p, top_k=options.top_k
        ),
        max_tokens=max_tokens,
        system_prompts=tuple(sorted(digests)) if options.judged == "conversation" else (),
    )
    checkpoint = load_checkpoint(options.model, options.dtype)
    self_test(checkpoint)
    for questions, source in read:
        collect(
            checkpoint,
            questions,
            source,
            options.out / source.name,
            context=context,
            looks=looks,
        )


def _fit(options: argparse.Namespace) -> None:
    _set_threads()
    began = time.monotonic()
    artifact = fit(
        options.collected,
        options.scope,
        FitOptions(
            parts=_parts(options.guard) if options.guard else None,
            rank=options.rank,
            alpha=options.alpha,
            guarantee=options.guarantee,
            group_by=options.group_by,
        ),
    )
    artifact.save(options.out)
    splits = artifact.manifest.splits
    print(  # noqa: T201
        f"fitted {artifact.manifest.scope!r} in {time.monotonic() - began:.1f} s: "
        f"{splits.fit} fit, {splits.conformal} conformal, {splits.holdout} holdout questions\n"
        f"wrote artifact {artifact.id} to {options.out} "
        f"({options.out.stat().st_size / 1e6:.1f} MB)"
    )


def _report(options: argparse.Namespace) -> None:
    artifact = artifacts.load(options.artifact)
    detector = artifact.detector.at(
        options.alpha or artifact.detector.alpha,
        options.guarantee or artifact.detector.guarantee,
    )
    judged = artifacts.Artifact(detector, artifact.manifest, artifact.id)
    print(report(judged, options.collected, options.ood))  # noqa: T201


def _dropout(options: argparse.Namespace) -> None:
    if options.passes < 2:
        raise CalibrationError(
            f"--passes {options.passes} has no deviation: give at least 2", param="passes"
        )
    from calibration.dropout import measure
    from detector.engine.model.checkpoint import load_checkpoint

    _set_threads()
    checkpoint = load_checkpoint(options.model, options.dtype)
    for folder in options.collected:
        measure(checkpoint, folder, options.passes)


def _benchmark(options: argparse.Namespace) -> None:
    n_sets = len(options.near) + len(options.far)
    if options.in_turn and (len(options.id) < 2 or n_sets):
        raise CalibrationError(
            "--in-turn takes two or more ID files and no others: leave --near and --far out",
            param="in-turn",
        )
    if not options.in_turn and (len(options.id) > 1 or not n_sets):
        raise CalibrationError(
            "one ID file and some OOD files are needed: give these after --near or --far",
            param="near",
        )
    from calibration.benchmark import benchmark
    from calibration.page import html_page, terminal_table

    _set_threads()
    for path in options.id:
        others = [other for other in options.id if other != path]
        result = benchmark(
            path,
            others or options.near,
            options.far,
            options.collected,
            first=options.first,
            alpha=options.alpha,
            progress=lambda name: print(f"scoring: {name}", file=sys.stderr),  # noqa: T201
        )
        out = options.out / path.stem if options.in_turn else options.out
        document = json.dumps(asdict(result), indent=1, allow_nan=False)
        write_atomically(out / "benchmark.json", document.encode())
        write_atomically(out / "benchmark.html", html_page(result).encode())
        print(f"ID = {path.stem}\n{terminal_table(result)}\n")  # noqa: T201
        print(f"wrote {out / 'benchmark.json'} and benchmark.html\n")  # noqa: T201


def _finetune(options: argparse.Namespace) -> None:
    rows, _ = read_rows(options.questions)
    require_answers(rows, options.questions, "fine-tuning")
    from calibration.finetune import FinetuneOptions, finetune
    from detector.engine.model.checkpoint import load_checkpoint

    _set_threads()
    chosen = [(row.text, row.answer) for n, row in enumerate(rows) if in_first(n, options.first)]
    finetuned = finetune(
        load_checkpoint(options.model, "float32"),
        chosen,
        options.out,
        FinetuneOptions(
            template=options.template,
            n_epochs=options.epochs,
            learning_rate=options.learning_rate,
            batch_size=options.batch_size,
            lora_rank=options.lora,
            patch_size=options.patch_size,
        ),
    )
    print(  # noqa: T201
        f"{finetuned}\nwrote {options.out}; "
        f"collect with --model {options.out} --template {options.template!r}"
    )


def _throughput(options: argparse.Namespace) -> None:
    artifact = artifacts.load(options.artifact)
    from calibration.throughput import document, throughput

    _set_threads()
    from detector.engine.model.default_model import default_checkpoint

    folder = default_checkpoint() if options.model == NAME else Path(options.model)
    comparisons = []
    for comparison in throughput(
        artifact,
        options.model,
        sizes=options.at_once,
        dtypes=options.dtype,
        rounds=options.rounds,
        ours_alone=options.ours,
        vllm_python=options.vllm,
        vllm_model=folder,
    ):
        print(comparison, flush=True)  # noqa: T201
        comparisons.append(comparison)
        write_atomically(options.out, document(comparisons))
    print(f"wrote {options.out}")  # noqa: T201


def _load(options: argparse.Namespace) -> None:
    artifact = artifacts.load(options.artifact)
    from calibration.load import load

    _set_threads()
    measured = load(artifact, options.model, options.dtype, n=options.n, n_memory=options.n_memory)
    print(measured)  # noqa: T201


def _growth(options: argparse.Namespace) -> None:
    from calibration.growth import growth, picture

    _set_threads()
    curves = growth(options.model, options.dtype)
    write_atomically(options.out, picture(curves))
    print(*curves, f"wrote {options.out}", sep="\n")  # noqa: T201


def _floor(options: argparse.Namespace) -> None:
    from calibration.floor import floor

    _set_threads()
    for point in floor(options.shape, options.batches, options.dtype):
        print(point, flush=True)  # noqa: T201


def _ask(options: argparse.Namespace) -> None:
    from calibration.ask import ask, choose, describe

    questions = choose(options.questions, options.split, options.n)
    print(describe(ask(options.url, questions, options.max_tokens)))  # noqa: T201


def _timing(options: argparse.Namespace) -> None:
    from calibration.timing import fit_cost, timings

    if options.fit:
        print(fit_cost())  # noqa: T201
    for timing in timings(artifacts.load(options.artifact)):
        print(timing)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 when its input was at fault."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    options = _parser().parse_args(arguments)
    commands = {
        "generate": _generate,
        "ladder": _ladder,
        "collect": _collect,
        "fit": _fit,
        "report": _report,
        "dropout": _dropout,
        "benchmark": _benchmark,
        "finetune": _finetune,
        "throughput": _throughput,
        "load": _load,
        "growth": _growth,
        "floor": _floor,
        "ask": _ask,
        "timing": _timing,
    }
    try:
        commands[options.command](options)
    except TrajGuardError as error:
        print(f"error [{error.code}]: {error.message}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("interrupted; `collect` resumes where it was", file=sys.stderr)  # noqa: T201
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
