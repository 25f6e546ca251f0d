"""One error shape for everything: OpenAI's `{"error": {message, type, param, code}}`.

Messages name the field, a short value where it cannot be a prompt, and the fix. Prompts and
stack traces never reach a client.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.error_response import REFUSED, ErrorResponse
from app.wire.unserved import UNSUPPORTED
from detector.errors import (
    CapacityError,
    DeadlineError,
    EngineError,
    RequestError,
    TrajGuardError,
)

log = logging.getLogger(__name__)

_STATUS: dict[type[TrajGuardError], int] = {
    RequestError: 400,
    CapacityError: 429,
    EngineError: 500,
    DeadlineError: 504,
}
_HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": 'Bearer realm="trajguard"'},
    429: {"Retry-After": "1"},
    503: {"Retry-After": "1"},
    # OpenAI's clients try a 5xx twice again by themselves, which would take as long each time.
    504: {"x-should-retry": "false"},
}
_INTERNAL = "internal_error"
_CODES = {404: "not_found", 405: "method_not_allowed"}
_LONGEST_NAME = 64
"""Of what a client names its fields, as far as it is told back."""

_PYTHON = "dictionary or object to extract fields from"
_KIND = re.compile(r"Input should be (a )?(valid )?")
_HALF = "half of a surrogate pair: send whole characters"
_ECHOED_TEXTS = {"role", "mode", "type"}


class NotReadyError(TrajGuardError):
    """Nothing is served: model and artifact are not loaded or do not match, or the service
    drains, or its engine is dead.
    """

    code = "not_ready"


class ReloadError(TrajGuardError):
    """Another artifact was asked for and cannot be served; the one in force stays so."""

    code = "reload_refused"


class ModelNotFoundError(TrajGuardError):
    """A model is named that is not the one served."""

    code = "model_not_found"


class UnknownRequestError(TrajGuardError):
    """A request is named that is not known, or no longer."""

    code = "request_not_found"


class AuthenticationError(TrajGuardError):
    """A request has no key, or one that the service does not know."""

    code = "invalid_api_key"


class ForbiddenError(TrajGuardError):
    """Who sends a request may not have what it asks for."""

    code = "forbidden"


class RefusedError(TrajGuardError):
    """A question was refused, where refusals are errors: the client's to mend, never a fault.
    `headers` tell the verdict.
    """

    code = REFUSED

    def __init__(
        self, message: str, headers: Mapping[str, str], *, param: str = "messages"
    ) -> None:
        super().__init__(message, param=param)
        self.headers = headers


_STATUS |= {
    RefusedError: 400,
    NotReadyError: 503,
    ReloadError: 409,
    ModelNotFoundError: 404,
    UnknownRequestError: 404,
    AuthenticationError: 401,
    ForbiddenError: 403,
}


class BodyError(HTTPException):
    """A body at fault, whatever it would have asked for: `message` says why, and the fix."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(status, message)
        self.body = error_body(status, message, param, code)


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    error: ErrorDetail


def error_body(status: int, message: str, param: str | None, code: str) -> dict[str, Any]:
    return _error(status, message, param, code).model_dump()


def _error(status: int, message: str, param: str | None, code: str) -> ErrorBody:
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    if status == 429:
        kind = "rate_limit_error"
    return ErrorBody(error=ErrorDetail(message=message, type=kind, param=param, code=code))


def status_of(error: TrajGuardError) -> int:
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def body_of(error: TrajGuardError) -> dict[str, Any]:
    return error_body(status_of(error), error.message, error.param, error.code)


def response_of(error: TrajGuardError) -> ErrorResponse:
    """An error as a client gets it."""
    status = status_of(error)
    headers = dict(_HEADERS.get(status, {}))
    if isinstance(error, CapacityError) and error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, RefusedError):
        headers |= error.headers
    return ErrorResponse(status, body_of(error), headers)


def _on_trajguard_error(_: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, TrajGuardError)
    return response_of(error)


def _on_validation_error(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, RequestValidationError)
    is_json = "json" in request.headers.get("content-type", "")
    return invalid_body(error, is_json=is_json)


def invalid_body(error: RequestValidationError, *, is_json: bool = True) -> ErrorResponse:
    """What is told of a body that was declared as JSON, or not, and is at fault."""
    errors = error.errors()
    first = _furthest(errors)
    if not is_json and first["loc"] == ("body",):
        message = "the body is not declared as JSON: send the header content-type: application/json"
        return ErrorResponse(400, error_body(400, message, "content-type", "invalid_request"))
    if first["type"] == "json_invalid":
        position = first["loc"][-1]
        reason = first.get("ctx", {}).get("error", "syntax error")
        message = f"the body is not JSON ({reason} at character {position}): send a JSON object"
        return ErrorResponse(400, error_body(400, message, None, "invalid_json"))
    path = _sent(first, error.body)
    if name := first.get("ctx", {}).get("name"):
        # One of our own, of a member of what is at fault, which its message begins with.
        param, message = ".".join([*path, name]), ".".join([*path, first["msg"]])
        code = UNSUPPORTED if first["type"] == UNSUPPORTED else "invalid_request"
        return ErrorResponse(400, error_body(400, message, param, code))
    name = ".".join(path) or "the body"
    said = first["msg"].removeprefix("Value error, ").replace(_PYTHON, "JSON object")
    if first["type"] == "string_unicode":
        said = _HALF
    elif first["type"].endswith("_type"):
        # Of a field that may be of several kinds and is of none, all are told.
        kinds = [each for each in errors if _sent(each, error.body) == path]
        said = " or ".join(
            [said, *(_KIND.sub("", each["msg"]) for each in kinds if each is not first)]
        )
    message = f"{name}: {said}{_echo(path, first.get('input'))}"
    return ErrorResponse(400, error_body(400, message, ".".join(path) or None, "invalid_request"))


def _sent(error: dict[str, Any], body: Any) -> list[str]:
    """Where the client's body is at fault, by the names that it has there: a location has those
    of pydantic's own in between, such as `str` or `list[TextPart]` for the kinds of a union.
    """
    path: list[str] = []
    here, parts = body, error["loc"][1:]
    if error["loc"][:1] == ("query",):
        return [str(part)[:_LONGEST_NAME] for part in parts]
    for n_left, part in zip(range(len(parts))[::-1], parts, strict=True):
        if isinstance(here, dict) and isinstance(part, str):
            if part in here or (error["type"] == "missing" and not n_left):
                path.append(part[:_LONGEST_NAME])
                here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            path.append(str(part))
            here = here[part]
    return path


def _furthest(errors: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first error; of the kinds that a field may be, that of the kind that came furthest, and
    rather of one that it is than of one that it is not.
    """
    field = errors[0]["loc"][:-1]
    kinds = [e for e in errors if len(field) > 1 and e["loc"][: len(field)] == field]
    return max(
        kinds or errors[:1],
        key=lambda error: (len(error["loc"]), not error["type"].endswith("_type")),
    )


def _echo(path: list[str], value: Any) -> str:
    """The value at fault, where it can be no prompt."""
    short_text = isinstance(value, str) and len(value) <= 32 and path[-1:] != []
    if isinstance(value, bool | int | float) or (short_text and path[-1] in _ECHOED_TEXTS):
        return f", got {value!r}"
    return ""


def _on_http_error(_: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error, BodyError):
        return ErrorResponse(error.status_code, error.body, error.headers)
    code = _CODES.get(error.status_code, "http_error")
    message = f"{error.detail}: see /docs for the paths and methods served"
    return ErrorResponse(
        error.status_code, error_body(error.status_code, message, None, code), error.headers
    )


def code_of(error: Exception) -> str:
    return error.code if isinstance(error, TrajGuardError) else _INTERNAL


def error_in_stream(error: Exception, request_id: str) -> ErrorBody:
    """What a client is told when the status line is gone; what nobody foresaw is logged."""
    if isinstance(error, TrajGuardError):
        return _error(status_of(error), error.message, error.param, error.code)
    return _unforeseen(error, request_id)


def internal_error(error: Exception, request_id: str) -> ErrorResponse:
    """What a client is told of a failure that nobody foresaw, which is logged."""
    return ErrorResponse(500, _unforeseen(error, request_id).model_dump())


def _unforeseen(error: Exception, request_id: str) -> ErrorBody:
    # The message may quote a prompt, so only its type and place are logged.
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s internal error: %s\n%s", request_id, type(error).__name__, place)
    message = f"internal error ({type(error).__name__}): the service log has details"
    return _error(500, message, None, _INTERNAL)


def install(app: FastAPI) -> None:
    """Answer every error that is foreseen in the one shape."""
    app.add_exception_handler(TrajGuardError, _on_trajguard_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
