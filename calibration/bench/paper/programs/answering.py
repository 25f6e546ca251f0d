"""Whether a response answers a few-shot question exactly: labels for quality estimation.

The answer is what the program gave in the sandbox, and a response is right when it begins with it,
written as the examples write theirs. Whatever goes on after it is not looked at.
"""

from __future__ import annotations

import re

_LEADING = re.compile(r"^(?:.*?(?:->|=)\s*)?\??\s*[`\"']*", re.DOTALL)


def answered(response: str, answer: object) -> bool:
    """Whether the first line with anything on it gives the answer and no more than a full stop.

    A line may repeat the question before it ("21 + 4 = 25"), and quote the answer.
    """
    lines = [line.strip() for line in response.splitlines() if line.strip()]
    if not lines:
        return False
    given = _LEADING.sub("", lines[0], count=1)
    return given.rstrip("`\"'. ") == str(answer)
