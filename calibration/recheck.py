"""`trajguard recheck`, its options read: from questions with answers to the artifact written.

What a second answer has to show before it may go out: of the answers that go out and differ in
being right from the first, more became right than wrong, with 95 % confidence (a paired
comparison: the exact interval of McNemar's proportion lies above one half); and the critic calls
wrong answers wrong more often than right ones (Fisher's exact test at 5 %). Who shows nothing is
refused: the paper shows that answers improve where critiques are accurate, and says nothing of
a critic that guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from scipy.stats import hypergeom
from tqdm import tqdm

from calibration.checking import Asked, Checked, Checking, Kept, check, require_numbers
from calibration.engines import open_backend, record
from calibration.questions import Question, read_questions, require_answers
from detector.artifact import Artifact
from detector.conformal import proportion_interval
from detector.engine.model.checkpoint import load_checkpoint
from detector.engine.model.text import Text
from detector.errors import QuestionsError
from detector.judge import Judge
from detector.manifest import Source
from detector.recheck_record import RecheckCounts, Rechecking, RecheckRecord

LEVEL = 0.05
MAX_LENGTH = 2048
_FLAG_RATE = 0.05
"""The share of flags in the traffic that costs are told of."""


@dataclass(frozen=True)
class Options:
    """Those of the command line."""

    questions: Sequence[Path]
    out: Path
    model: str
    ood: Sequence[Path] = ()
    asking: Rechecking = field(default_factory=Rechecking)
    dtype: str = "auto"
    n: int = 200
    n_ood: int = 100
    at_once: int = 16
    keep: Path | None = None
    column: str | None = None


def recheck(artifact: Artifact, options: Options, say: Callable[[str], None]) -> Artifact:
    """Run the rounds, tell what came of them, and write the artifact that says whether second
    answers may go out.

    Raises QuestionsError for questions without answers that are numbers, ArtifactMismatchError for
    another model, and as `Checking.rounds` does.
    """
    manifest = artifact.manifest
    files, questions = _read(options.questions, options.column, answered=True)
    _, others = _read(options.ood, options.column, answered=False)
    dtype = manifest.fingerprint.dtype if options.dtype == "auto" else options.dtype
    checkpoint = load_checkpoint(options.model, dtype)
    engine = record("own", checkpoint)
    manifest.require(checkpoint.fingerprint, checkpoint.name, engine)
    judge = Judge(artifact.detector.to(checkpoint.model.device))
    backend = open_backend(
        "own",
        checkpoint,
        looks=judge.looks,
        observer=judge.observe,
        n_slots=options.at_once,
        max_length=MAX_LENGTH,
        max_queue=2 * options.at_once,
    )
    checking = Checking(
        backend,
        judge,
        Text(checkpoint.tokenizer, manifest.context.template, manifest.context.text),
        manifest.context,
        options.asking,
        MAX_LENGTH,
        options.at_once,
    )
    asked = Asked(
        artifact=artifact.id,
        weights=checkpoint.fingerprint.weights,
        dtype=dtype,
        engine=engine,
        asking=options.asking,
    )
    with ExitStack() as stack:
        stack.callback(backend.close)
        folder = options.keep or Path(stack.enter_context(TemporaryDirectory()))
        kept = Kept(folder, asked)
        inside, outside = measure(checking, questions, others, kept, options.n, options.n_ood)
    counts = counted(inside)
    why = refusal_of(counts)
    for line in [*told_of(counts), *freed_of(inside, outside), *cost_of([*inside, *outside])]:
        say(line)
    recheck_record = RecheckRecord(
        asking=options.asking,
        digest=options.asking.digest,
        counts=counts,
        allowed=why is None,
        why=why or "",
        dtype=dtype,
        engine=engine,
        sources={source.name: source.sha256 for source in files},
    )
    written = Artifact.of(
        artifact.detector, manifest.model_copy(update={"recheck": recheck_record})
    )
    written.save(options.out)
    say(
        "recheck is allowed: its answers are better, and its critic tells them apart"
        if why is None
        else f"recheck is refused: {why}"
    )
    say(f"artifact {artifact.id} with that is {written.id}: {options.out}")
    return written


def measure(
    checking: Checking,
    questions: Sequence[Question],
    others: Sequence[Question],
    kept: Kept,
    n: int,
    n_ood: int,
) -> tuple[list[Checked], list[Checked]]:
    """Rounds of `n` questions in scope, those flagged first, since second opinions are asked of
    them, and of `n_ood` flagged ones out of scope.
    """
    # In the order of their hashes, which says nothing of them.
    inside, outside = (sorted(each, key=lambda one: one.key[::-1]) for each in (questions, others))
    left = [one for one in (*inside, *outside) if one.key not in kept.flags]
    flags = zip((one.key for one in left), checking.flagged(left), strict=True)
    kept.add_flags(dict(flags))
    chosen = sorted(inside, key=lambda one: not kept.flags[one.key])[:n]
    doubted = [one for one in outside if kept.flags[one.key]][:n_ood]
    rows: list[list[Checked]] = []
    for asked, in_scope in ((chosen, True), (doubted, False)):
        found = check(checking, asked, kept, in_scope=in_scope)
        what = "in scope" if in_scope else "out of scope"
        rows.append(list(tqdm(found, total=len(asked), desc=f"rounds {what}", disable=None)))
    return rows[0], rows[1]


def counted(rows: Sequence[Checked]) -> RecheckCounts:
    sent = [row for row in rows if row.sent]
    return RecheckCounts(
        n=len(rows),
        n_flagged=sum(row.flagged for row in rows),
        right_before=sum(bool(row.right) for row in rows),
        right_after=sum(bool(row.right_after) for row in rows),
        n_more_ood=sum(row.is_more_ood for row in rows),
        n_sent=len(sent),
        became_right=sum(bool(row.right_after) and not row.right for row in sent),
        became_wrong=sum(bool(row.right) and not row.right_after for row in sent),
        wrong_told=sum(row.told is False and not row.right for row in rows),
        right_told=sum(row.told is True and bool(row.right) for row in rows),
        false_told=sum(row.told is False and bool(row.right) for row in rows),
        n_untold=sum(row.told is None for row in rows),
    )


def refusal_of(counts: RecheckCounts) -> str | None:
    """Why second answers may not go out, or None."""
    better, worse = counts.became_right, counts.became_wrong
    if not better + worse:
        return (
            f"none of the {counts.n_sent} second answers that go out is right where the first is "
            "wrong, or the other way, and so nothing shows that they are better"
        )
    low, _ = proportion_interval(better, better + worse)
    if low < 0.5:
        found = "worse" if worse > better else "not shown to be better"
        return (
            f"answers are {found}: {better} became right and {worse} wrong of the "
            f"{counts.n_sent} that go out, a gain of {_gain(counts)}"
        )
    if (p := critic_p_value(counts)) > LEVEL:
        return (
            f"the critic is not shown to be better than chance: it calls {counts.wrong_told} of "
            f"{counts.wrong_before} wrong answers wrong, and {counts.false_told} of "
            f"{counts.right_before} right ones (p = {p:.2g})"
        )
    return None


def critic_p_value(counts: RecheckCounts) -> float:
    """Fisher's exact test, one-sided: of as many calls of "wrong", so many or more on wrong
    answers.
    """
    called = counts.wrong_told + counts.false_told
    tail = hypergeom.sf(counts.wrong_told - 1, counts.n, counts.wrong_before, called)
    return float(tail)


def told_of(counts: RecheckCounts) -> list[str]:
    """What came of questions in scope, with exact 95 % intervals."""
    n, sent = counts.n, counts.n_sent
    return [
        f"{n} questions with answers, {counts.n_flagged} of them flagged at the prompt",
        f"critic: calls {_share(counts.wrong_told, counts.wrong_before)} wrong answers wrong, and "
        f"{_share(counts.right_told, counts.right_before)} right answers right; "
        f"says neither of {counts.n_untold}",
        f"right before: {_share(counts.right_before, n)}; after: {_share(counts.right_after, n)}",
        f"second answer more OOD than the first: {_share(counts.n_more_ood, n)}",
        f"second answers that go out: {_share(sent, n)}; of these {counts.became_right} became "
        f"right and {counts.became_wrong} wrong, a gain of {_gain(counts)}",
    ]


def freed_of(inside: Sequence[Checked], outside: Sequence[Checked]) -> list[str]:
    """What of the flagged would be freed, were it allowed."""
    lines = []
    for what, rows in (("in scope", inside), ("out of scope", outside)):
        flagged = [row for row in rows if row.flagged]
        if flagged:
            freed = sum(row.sent for row in flagged)
            lines.append(f"flagged {what}: {_share(freed, len(flagged))} would be freed")
    return lines


def cost_of(rows: Sequence[Checked]) -> list[str]:
    """Of one question's round, and of a question of all traffic."""
    tokens = sum(row.n_tokens for row in rows) / len(rows)
    plain = sum(row.n_plain for row in rows) / len(rows)
    seconds = sum(row.seconds for row in rows) / len(rows)
    return [
        f"a round: {tokens:.0f} tokens read and generated ({plain:.0f} for a question and its "
        f"answer alone), {1000 * seconds:.0f} ms beside the others",
        f"of all traffic at {_FLAG_RATE:.0%} flags: {_FLAG_RATE * tokens:.1f} tokens a question, "
        f"{_FLAG_RATE * tokens / plain:.1%} more",
    ]


def _gain(counts: RecheckCounts) -> str:
    """Of those that go out, in points, with the exact interval given how many changed."""
    changed = counts.became_right + counts.became_wrong
    if not changed:
        return "0.0 points"
    shares = proportion_interval(counts.became_right, changed)
    low, high = (100 * (2 * share - 1) * changed / counts.n_sent for share in shares)
    gain = 100 * (counts.became_right - counts.became_wrong) / counts.n_sent
    return f"{gain:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"


def _share(count: int, n: int) -> str:
    if not n:
        return "0 of 0"
    low, high = proportion_interval(count, n)
    return f"{count} of {n} ({count / n:.1%}, {low:.1%} to {high:.1%})"


def _read(
    paths: Sequence[Path], column: str | None, *, answered: bool
) -> tuple[list[Source], list[Question]]:
    """The distinct questions of files that are asked alone: a recheck is of no conversation.

    Raises QuestionsError where answers are wanted and missing or no numbers, or no such question is
    there.
    """
    sources, found = [], dict[str, Question]()
    for path in paths:
        questions, source = read_questions(path, column)
        if answered:
            require_answers(questions, path, "a recheck")
            require_numbers(questions, path)
        sources.append(source)
        found |= {each.key: each for each in questions if len(each.messages) == 1}
    if answered and not found:
        raise QuestionsError(
            "every question is of a conversation, and a recheck is of questions asked alone: give "
            "such ones",
            param="questions",
        )
    return sources, list(found.values())
