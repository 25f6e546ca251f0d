"""`collect`: questions files, or files of questions and responses, through the model."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg, CliVariadicArg

from calibration.command_line import ALPHA, QUESTIONS, Column, ModelCommand, set_threads
from calibration.paths import require_folder, require_model
from calibration.questions import Question, is_made, read_questions
from calibration.reading import require_questions
from calibration.responses import RESPONSES, GivenResponses, read_responses
from calibration.trained import warning
from detector.backend import Sampling
from detector.canonical import CANONICAL, TextVersion
from detector.errors import CalibrationError
from detector.manifest import Context, Judged, Source, system_prompt_digest
from detector.trajectory import PROMPT_LOOKS, Look, patches

log = logging.getLogger(__name__)


def parse_looks(names: str) -> tuple[Look, ...]:
    named = [name.strip() for name in names.split(",")]
    # The first of all patches is a running mean, which may be named beside them.
    looks = [look for name in named for look in patches(name)]
    if len(set(named)) < len(named):
        raise CalibrationError(
            f"--looks {names!r} names one look twice: name each once", param="looks"
        )
    return tuple(dict.fromkeys(looks))


def _require_names_of_their_own(names: list[str]) -> None:
    (name, n), *_ = Counter(names).most_common(1)
    if n > 1:
        raise CalibrationError(
            f"{n} questions files are named {name!r}, and each needs a folder of its own in --out: "
            "rename them, or collect them one by one into several folders",
            param="questions",
        )


def unescape(template: str) -> str:
    """Shells pass a backslash and an n; what is meant is a line break."""
    return template.replace("\\n", "\n")


Template = Annotated[str, AfterValidator(unescape)]


_DRAWING = ("temperature", "top_p", "top_k")
_OF_RESPONSES: tuple[str, ...] = ("responses_from", "response_column")


class Collect(ModelCommand):
    """Run the model over questions, or read responses; keep trajectories; resumes where it was."""

    questions: CliPositionalArg[list[Path]] = Field(default=[], description=QUESTIONS)
    responses: CliVariadicArg[list[Path]] = Field(
        default=[],
        description="instead, such files with a response in each row, made by any model",
    )
    responses_from: str | None = Field(
        default=None, min_length=1, description="the name of what made these, for the artifact"
    )
    response_column: str | None = Field(
        default=None,
        description="column of the response; else " + ", ".join(RESPONSES) + ", the first there",
    )
    column: Column = None
    out: Path = Field(description="folder; one sub-folder a file")
    looks: str = Field(
        default="prompt",
        description="comma-separated: prompt, numbers of tokens, end; 9-16 is a patch of "
        "tokens, 1-64/8 are all patches of 8 up to 64",
    )
    judged: Judged = Field(default="question", description="what the prompt looks see")
    text: TextVersion | None = Field(
        default=None,
        description="how questions are written to be judged: canonical/1 for a judged question; "
        "typed is as they are, as for a judged conversation",
    )
    template: Template = Field(
        default="chat", description=r"'chat', or a text with {question}; \n is a line break"
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="response length; as long as the last look needs, and with the end "
        "of --responses as long as each is",
    )
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="share of the likeliest tokens")
    top_k: int = Field(default=0, ge=0, description="number of the likeliest tokens; 0 is all")
    ray: int | None = Field(
        default=None,
        ge=1,
        description="run the model so many times at once, on a Ray cluster (RAY_ADDRESS) or here",
    )

    def run(self) -> None:
        looks = parse_looks(self.looks)
        text = self._text()
        self._require_one_kind(looks)
        require_questions([*self.questions, *self.responses])
        require_folder(self.out)
        require_model(self.model)
        pairs = [self._read_responses(path) for path in self.responses]
        read: list[tuple[Sequence[Question], Source, Mapping[str, str] | None]] = [
            *((pair.questions, pair.source, pair.responses) for pair in pairs),
            *((*read_questions(path, self.column), None) for path in self.questions),
        ]
        _require_names_of_their_own([source.name for _, source, _ in read])
        # transformers takes seconds to import; bad input is told before that.
        from calibration.collect import QuestionsFile, collect, default_max_tokens
        from calibration.enough import outlook
        from calibration.templates import splits_and_templates
        from detector.engine.model.checkpoint import load_checkpoint
        from detector.engine.self_test import self_test

        set_threads()
        asked = [question for questions, _, _ in read for question in questions]
        typed = {q.key: q.text for q in asked if not is_made(q.fields)}
        log.info(outlook(*splits_and_templates(typed), ALPHA))
        if told := warning(self.model, (question.key for question in asked)):
            log.warning(told)
        digests = {system_prompt_digest(question.messages) for question in asked}
        context = Context(
            judged=self.judged,
            text=text,
            template=self.template,
            responses="given" if pairs else "own",
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k),
            max_tokens=self.max_tokens or default_max_tokens(looks, given=bool(pairs)),
            system_prompts=tuple(sorted(digests)) if self.judged == "conversation" else (),
        )
        files = [
            QuestionsFile(questions, source, self.out / source.name, responses)
            for questions, source, responses in read
        ]
        if self.ray is not None:
            from calibration.collect_over_ray import collect_over_ray

            collect_over_ray(
                self.model, self.dtype, files, context=context, looks=looks, n_actors=self.ray
            )
            return
        checkpoint = load_checkpoint(self.model, self.dtype)
        self_test(checkpoint)
        collect(checkpoint, files, context=context, looks=looks)

    def _read_responses(self, path: Path) -> GivenResponses:
        read = read_responses(
            path,
            judged=self.judged,
            column=self.column,
            response_column=self.response_column,
            made_by=self.responses_from,
        )
        if read.n_repeated:
            log.info(
                f"{read.source.name}: {read.n_repeated} rows repeat a question and are left out: "
                "the first response to each counts"
            )
        return read

    def _require_one_kind(self, looks: Sequence[Look]) -> None:
        """Raise CalibrationError unless there are questions or responses, and no option of the
        other.
        """
        if bool(self.questions) == bool(self.responses):
            raise CalibrationError(
                "questions are answered by the model, and responses of --responses are read: name "
                "files of the one or of the other",
                param="responses",
            )
        if self.responses and PROMPT_LOOKS.issuperset(looks):
            raise CalibrationError(
                f"--looks {self.looks} sees no response: add numbers of tokens or the end, such as "
                "--looks 16,64,end",
                param="looks",
            )
        idle, why = _OF_RESPONSES, "is said of --responses, and there are none"
        if self.responses:
            idle, why = _DRAWING, "draws responses, and those of --responses are there already"
        for name in idle:
            if name in self.model_fields_set:
                option = name.replace("_", "-")
                raise CalibrationError(f"--{option} {why}: leave it out", param=option)

    def _text(self) -> TextVersion:
        if self.judged == "question":
            return self.text or CANONICAL
        if self.text not in (None, "typed"):
            raise CalibrationError(
                f"--text {self.text} rewrites questions, and --judged conversation takes prompts "
                "as they are served: leave one out",
                param="text",
            )
        return "typed"
