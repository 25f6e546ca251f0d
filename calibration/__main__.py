"""The calibration command line: generate, collect, fit, report, ask, timing."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from calibration.fit import FitOptions, fit
from calibration.generate import write_questions
from calibration.questions import Split, read_questions
from calibration.report import report
from detector import artifact as artifacts
from detector.conformal import Guarantee
from detector.detector import Part
from detector.engine.default_model import NAME
from detector.errors import CalibrationError, TrajGuardError
from detector.manifest import Context, Judged, Sampling, system_prompt_digest
from detector.scores import SCORE_NAMES
from detector.trajectory import Look, parse_look


def _alpha(text: str) -> float:
    alpha = float(text)
    if not 0 < alpha < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return alpha


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

    collect = commands.add_parser(
        "collect", help="run the model over questions files and keep trajectories; resumes"
    )
    collect.add_argument("questions", type=Path, nargs="+", metavar="QUESTIONS.jsonl")
    collect.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="one sub-folder a file"
    )
    collect.add_argument("--model", default=NAME, help="this name, a folder or a hub id")
    collect.add_argument("--dtype", default="auto", help="auto, bfloat16, float16 or float32")
    collect.add_argument(
        "--looks", default="prompt", help="comma-separated: prompt, numbers of tokens, end"
    )
    collect.add_argument("--judged", choices=get_args(Judged), default="question")
    collect.add_argument("--template", default="chat", help="'chat', or a text with {question}")
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
        "(mahalanobis at every look collected); scores: " + ", ".join(SCORE_NAMES),
    )
    fitting.add_argument("--rank", type=int, default=128, help="of the covariances (128)")
    fitting.add_argument("--alpha", type=_alpha, default=0.05)
    fitting.add_argument("--guarantee", choices=get_args(Guarantee), default="marginal")

    reporting = commands.add_parser("report", help="false alarms on holdout, recall on OOD")
    reporting.add_argument("artifact", type=Path, metavar="ARTIFACT.safetensors")
    reporting.add_argument("collected", type=Path, nargs="+", metavar="COLLECTION")
    reporting.add_argument("--ood", type=Path, nargs="+", default=[], metavar="COLLECTION")
    reporting.add_argument("--alpha", type=_alpha, help="instead of the artifact's")
    reporting.add_argument("--guarantee", choices=get_args(Guarantee))

    asking = commands.add_parser("ask", help="count what a running service refuses or flags")
    asking.add_argument("url", metavar="URL", help="such as http://127.0.0.1:8000")
    asking.add_argument("questions", type=Path, nargs="+", metavar="QUESTIONS.jsonl")
    asking.add_argument("--split", choices=get_args(Split), help="only questions of this split")
    asking.add_argument("--n", type=int, default=300, help="how many (300)")
    asking.add_argument("--max-tokens", type=int, default=8, help="of each response (8)")

    timing = commands.add_parser("timing", help="what scoring a trajectory costs on one thread")
    timing.add_argument("artifact", type=Path, metavar="ARTIFACT.safetensors")
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


def _collect(options: argparse.Namespace) -> None:
    looks = _looks(options.looks)
    read = [read_questions(path) for path in options.questions]
    # transformers takes seconds to import; bad input is told before that.
    from calibration.collect import collect, default_max_tokens
    from detector.engine.checkpoint import load_checkpoint

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
    began = time.monotonic()
    artifact = fit(
        options.collected,
        options.scope,
        FitOptions(
            parts=_parts(options.guard) if options.guard else None,
            rank=options.rank,
            alpha=options.alpha,
            guarantee=options.guarantee,
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


def _ask(options: argparse.Namespace) -> None:
    from calibration.ask import ask, choose, describe

    questions = choose(options.questions, options.split, options.n)
    print(describe(ask(options.url, questions, options.max_tokens)))  # noqa: T201


def _timing(options: argparse.Namespace) -> None:
    from calibration.timing import timings

    for timing in timings(artifacts.load(options.artifact)):
        print(timing)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 2 when its input was at fault."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    options = _parser().parse_args(arguments)
    commands = {
        "generate": _generate,
        "collect": _collect,
        "fit": _fit,
        "report": _report,
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
