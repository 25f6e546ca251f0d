"""`collect`: questions files through the model, trajectories kept."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg

from calibration.command_line import ALPHA, QUESTIONS, Column, ModelCommand, set_threads
from calibration.paths import require_folder, require_model
from calibration.questions import is_made, read_questions
from calibration.reading import require_questions
from detector.backend import Sampling
from detector.canonical import CANONICAL, TextVersion
from detector.errors import CalibrationError
from detector.manifest import Context, Judged, system_prompt_digest
from detector.trajectory import Look, parse_look

log = logging.getLogger(__name__)


def _parse_looks(names: str) -> tuple[Look, ...]:
    looks = tuple(parse_look(name.strip()) for name in names.split(","))
    if len(set(looks)) < len(looks):
        raise CalibrationError(
            f"--looks {names!r} names one look twice: name each once", param="looks"
        )
    return looks


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


class Collect(ModelCommand):
    """Run the model over questions files and keep trajectories; resumes where it was."""

    questions: CliPositionalArg[list[Path]] = Field(description=QUESTIONS)
    column: Column = None
    out: Path = Field(description="folder; one sub-folder a file")
    looks: str = Field(
        default="prompt", description="comma-separated: prompt, numbers of tokens, end"
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
        default=None, ge=1, description="response length; as long as the last look needs"
    )
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="share of the likeliest tokens")
    top_k: int = Field(default=0, ge=0, description="number of the likeliest tokens; 0 is all")

    def run(self) -> None:
        looks = _parse_looks(self.looks)
        text = self._text()
        require_questions(self.questions)
        require_folder(self.out)
        require_model(self.model)
        read = [read_questions(path, self.column) for path in self.questions]
        _require_names_of_their_own([source.name for _, source in read])
        # transformers takes seconds to import; bad input is told before that.
        from calibration.collect import QuestionsFile, collect, default_max_tokens
        from calibration.enough import outlook
        from calibration.templates import splits_and_templates
        from detector.engine.model.checkpoint import load_checkpoint
        from detector.engine.self_test import self_test

        set_threads()
        typed = {q.key: q.text for questions, _ in read for q in questions if not is_made(q.fields)}
        log.info(outlook(*splits_and_templates(typed), ALPHA))
        digests = {system_prompt_digest(q.messages) for questions, _ in read for q in questions}
        context = Context(
            judged=self.judged,
            text=text,
            template=self.template,
            sampling=Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k),
            max_tokens=self.max_tokens or default_max_tokens(looks),
            system_prompts=tuple(sorted(digests)) if self.judged == "conversation" else (),
        )
        checkpoint = load_checkpoint(self.model, self.dtype)
        self_test(checkpoint)
        files = [
            QuestionsFile(questions, source, self.out / source.name) for questions, source in read
        ]
        collect(checkpoint, files, context=context, looks=looks)

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
