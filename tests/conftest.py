"""Fixtures shared by all tests: the tiny checkpoint and an artifact calibrated for it."""

import os

# The tests' tensors are tiny: more threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from calibration.collect import QuestionsFile, collect
from calibration.fit import FitOptions, fit
from calibration.generate import write_questions
from calibration.questions import read_questions
from detector.artifact import Artifact
from detector.engine.model.checkpoint import Checkpoint
from detector.manifest import Context
from detector.trajectory import PROMPT
from tests.tiny import tiny_checkpoint

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint()


@pytest.fixture(scope="session")
def artifact(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Fitted on generated questions, looks at the prompt and at 4 tokens, alpha 0.05."""
    folder = tmp_path_factory.mktemp("calibration")
    path = folder / "generated.jsonl"
    write_questions(path, n=400, seed=0)
    questions, source = read_questions(path)
    collect(
        checkpoint,
        [QuestionsFile(questions, source, folder / "collected")],
        context=Context(max_tokens=4),
        looks=(PROMPT, 4),
        max_length=512,
    )
    return fit([folder / "collected"], "tiny generated questions", FitOptions(rank=16))
