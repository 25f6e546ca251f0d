"""Groups of questions, each with a threshold of its own (Mondrian conformal prediction).

A threshold for all questions together keeps alpha on average over them; within a kind of
question the false-alarm rate may lie above or below. With groups it is kept within each
(Vovk, Gammerman and Shafer, 2005, section 4.5), at the price of fewer calibration questions
a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from pydantic import BaseModel, ConfigDict

LENGTH = "length"


class Grouping(BaseModel):
    """By a field of the question, or by its number of words ("length") between `edges`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    edges: tuple[int, ...] = ()

    def group_of(self, text: str, fields: Mapping[str, str]) -> str | None:
        """The name of a question's group, or None if it does not have the field."""
        if self.by != LENGTH:
            return fields.get(self.by)
        n_words = len(text.split())
        if not self.edges:
            return "any length"
        if n_words < self.edges[0]:
            return f"under {self.edges[0]} words"
        for low, high in pairwise(self.edges):
            if n_words < high:
                return f"{low} to {high - 1} words"
        return f"{self.edges[-1]} words and over"
