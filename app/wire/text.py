"""Text from outside, as JSON carries it."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator

T = TypeVar("T")


def _unicode(value: T) -> T:
    """JSON can escape half of a surrogate pair, which is no character and has no UTF-8."""
    for text in value if isinstance(value, list) else [value]:
        try:
            if isinstance(text, str):
                text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"half of a surrogate pair at character {error.start}: send whole characters"
            ) from None
    return value


Unicode = AfterValidator(_unicode)
"""For a field that is a text, or a list with texts in it: refuses what UTF-8 cannot hold."""

UnicodeText = Annotated[str, Unicode]
