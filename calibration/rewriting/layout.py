"""Spaces, line breaks and markup: the same words, set otherwise."""

from __future__ import annotations

import json
import random
import re
import textwrap

_SENTENCES = re.compile(
    r"(?<=[.?!])(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bMrs\.)(?<![ap]\.m\.)\s+(?=\S)"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the space around them."""
    return _SENTENCES.split(text.strip())


def line_per_sentence(text: str, draw: random.Random) -> str:
    return "\n".join(sentences(text))


def paragraphs(text: str, draw: random.Random) -> str:
    """A blank line after each sentence."""
    return "\n\n".join(sentences(text))


def crlf(text: str, draw: random.Random) -> str:
    """The line ends of Windows; a line for each sentence where there are none."""
    lines = text.splitlines()
    return "\r\n".join(lines if len(lines) > 1 else sentences(text))


def wrapped(text: str, draw: random.Random) -> str:
    """Broken at a column, as mail and PDF are."""
    width = draw.randint(25, 72)
    return "\n".join(
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )


def doubled_spaces(text: str, draw: random.Random) -> str:
    """Here and there, or after every sentence."""
    if draw.random() < 0.5:
        return re.sub(r"(?<=[.?!]) (?=\S)", "  ", text)
    return re.sub(r"(?<=\S) (?=\S)", lambda match: " " * draw.choice([1, 1, 2]), text)


def tabs(text: str, draw: random.Random) -> str:
    """Between sentences, before the first, or in place of some spaces."""
    form = draw.randrange(3)
    if form == 0:
        return "\t" + text
    if form == 1:
        return "\t".join(sentences(text))
    return re.sub(r"(?<=\S) (?=\S)", lambda match: draw.choice("   \t"), text)


def trailing_space(text: str, draw: random.Random) -> str:
    return text + draw.choice([" ", "  ", "\n", "\n\n", " \n", "\n\n\n"])


def tokenised(text: str, draw: random.Random) -> str:
    """Spaces before the signs of a sentence, as old data sets have them."""
    text = re.sub(r"(?<=[\w)\"'])([.,;:?!]+)(?=\s|$)", r" \1", text)
    return re.sub(r"(?<=[^\W\d_])(['’]s\b)", r" \1", text)


def no_space_after_stop(text: str, draw: random.Random) -> str:
    """As in "He has 5.How many": never before a digit, where a point would be a decimal one."""
    return re.sub(r"(?<=[^\W_])\s*([.?!,]) +(?=[^\W\d_])", r"\1", text)


def quoted(text: str, draw: random.Random) -> str:
    left, right = draw.choice([('"', '"'), ("'", "'"), ("“", "”"), ("«", "»")])
    return left + text.strip() + right


def bold(text: str, draw: random.Random) -> str:
    """All of it, or its last sentence."""
    *before, last = sentences(text)
    mark = draw.choice(["**", "__"])
    if before and draw.random() < 0.5:
        return " ".join([*before, mark + last + mark])
    return mark + text.strip() + mark


def italic(text: str, draw: random.Random) -> str:
    mark = draw.choice("*_")
    return mark + text.strip() + mark


def heading(text: str, draw: random.Random) -> str:
    """The first sentence, or a title above it."""
    first, *after = sentences(text)
    marks = "#" * draw.randint(1, 4)
    if after and draw.random() < 0.5:
        return f"{marks} {first}\n\n{' '.join(after)}"
    title = draw.choice(["Question", "Problem", "Word problem", "Math", "Task"])
    return f"{marks} {title}\n\n{text.strip()}"


def bullets(text: str, draw: random.Random) -> str:
    """A bullet for each sentence."""
    mark = draw.choice(["- ", "* ", "• "])
    return "\n".join(mark + sentence for sentence in sentences(text))


def code_fence(text: str, draw: random.Random) -> str:
    language = draw.choice(["", "", "text", "txt"])
    return f"```{language}\n{text.strip()}\n```"


def block_quote(text: str, draw: random.Random) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())


def as_json(text: str, draw: random.Random) -> str:
    """An object with one field, or with a type beside it."""
    field = draw.choice(["question", "problem", "query", "input", "text"])
    row = {field: text.strip()}
    if draw.random() < 0.3:
        row = {"type": "word_problem", **row}
    return json.dumps(row, ensure_ascii=False, indent=draw.choice([None, None, 2]))


def tagged(text: str, draw: random.Random) -> str:
    tag = draw.choice(["question", "problem", "task", "input", "user_question"])
    space = draw.choice(["", "\n"])
    return f"<{tag}>{space}{text.strip()}{space}</{tag}>"


def latex_numbers(text: str, draw: random.Random) -> str:
    """Dollars around numbers; not in a text that has dollars, of either sort."""
    if "$" in text or "\\" in text:
        return text
    return re.sub(r"(?<![\w.,/:-])\d[\d,.]*(?<=\d)(?![\w/:%]|-\w)", r"$\g<0>$", text)
