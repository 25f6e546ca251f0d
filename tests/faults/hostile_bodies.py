"""Bodies that a stranger sends to hold up all others, each as long as a limit lets it be."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

Body = tuple[dict[str, str], bytes]
"""Headers besides the usual ones, and the content."""


def _said(content: object, **more: object) -> Body:
    return {}, json.dumps({"messages": [{"role": "user", "content": content}], **more}).encode()


def _filled(unit: str, n_bytes: int) -> Body:
    return _said(unit * (n_bytes // len(json.dumps(unit)[1:-1])))


def _raw(unit: str, n_bytes: int) -> Body:
    """Not escaped, so that as many characters fit as can."""
    content = unit * (n_bytes // len(unit.encode()))
    return {}, f'{{"messages": [{{"role": "user", "content": "{content}"}}]}}'.encode()


def _more(value: str) -> Body:
    message = '[{"role": "user", "content": "1 + 1?"}]'
    return {}, f'{{"messages": {message}, "more": {value}}}'.encode()


def _messages(n: int, content: str = "1?") -> Body:
    return {}, json.dumps({"messages": [{"role": "user", "content": content}] * n}).encode()


def _parts(n_messages: int, n_parts: int) -> Body:
    parts = [{"type": "text", "text": "a"}] * n_parts
    return {}, json.dumps({"messages": [{"role": "user", "content": parts}] * n_messages}).encode()


def _keys(n_bytes: int) -> Body:
    return _more("{" + ",".join(f'"{key}":0' for key in range(n_bytes // 11)) + "}")


def _gzip(n_bytes: int) -> Body:
    return {"content-encoding": "gzip"}, gzip.compress(b" " * 100 * n_bytes)


BODIES: dict[str, Callable[[int, int], Body]] = {
    "letters": lambda body, text: _filled("a", body - 1000),
    "letters that may fit": lambda body, text: _filled("a", text),
    "words that may fit": lambda body, text: _filled("seven cats ", text),
    "spaces that may fit": lambda body, text: _filled(" ", text),
    "line breaks that may fit": lambda body, text: _filled("\n", text),
    "markup that may fit": lambda body, text: _filled("**<b>_$4$ - a.", text),
    "quotation marks that may fit": lambda body, text: _filled('"', text // 2),
    "digits that may fit": lambda body, text: _filled("1 ", text),
    "emoji, escaped": lambda body, text: _filled("\U0001f600", body - 1000),
    "emoji that may fit": lambda body, text: _raw("\U0001f600", text),
    "wide letters that may fit": lambda body, text: _raw("\uff21", text),
    "backslashes": lambda body, text: _more('"' + "\\\\" * (body // 2 - 1000)),
    "2,048 messages": lambda body, text: _messages(2048),
    "2,048 messages that may fit": lambda body, text: _messages(2048, "a" * (text // 2048)),
    "100,000 messages": lambda body, text: _messages(min(100_000, body // 35)),
    "parts of messages": lambda body, text: _parts(body // 35 // 250, 250),
    "few messages of many parts": lambda body, text: _parts(20, 256),
    "100,000 stop texts": lambda body, text: _said("1 + 1?", stop=["a"] * min(100_000, body // 6)),
    "long stop texts": lambda body, text: _said("1 + 1?", stop=["a" * 1024] * 4),
    "fields": lambda body, text: _said("1?", trajguard={"fields": {"a": "b" * (body - 1000)}}),
    "a list of zeros": lambda body, text: _more(f"[{'0,' * ((body - 1000) // 2)}0]"),
    "lists": lambda body, text: _more(f"[{'[],' * ((body - 1000) // 3)}0]"),
    "keys": lambda body, text: _keys(body - 1000),
    "300,000 deep": lambda body, text: _more("[" * min(300_000, body - 1000)),
    "a number": lambda body, text: _more("9" * (body - 1000)),
    "gzip": lambda body, text: _gzip(body),
    "over the limit": lambda body, text: _filled("a", 4 * body),
}
"""By name, each made for a service that takes `body` bytes and `text` bytes of text."""
