"""Who asks: keys, the roles they have, and what each role may see and do.

A key is 32 random bytes, so that its SHA-256 gives it away to nobody: only the hash is kept.
Without any key set the service is open to all who reach it, but for the admin routes.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from fastapi import Depends, FastAPI, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.environment import PREFIX
from app.errors import AuthenticationError, ForbiddenError, response_of
from app.load_settings import BadSettingError
from app.settings import Settings

Role = Literal["user", "privileged", "admin"]
"""user: asks. privileged: also picks a question's group, and sees verdicts and metrics whole.
admin: also calls the admin routes. Each may do what the ones before it may."""

ROLES: tuple[Role, ...] = get_args(Role)
OPEN = ("/health", "/healthz", "/livez", "/readyz")
"""What answers without a key: the probes."""

_ENTRY = re.compile(rf"({'|'.join(ROLES)}):([0-9a-f]{{64}})")


@dataclass(frozen=True)
class Caller:
    """Who sent a request. `role` is that of its key, None where it has none; `key_id` tells keys
    apart, by the first letters of their SHA-256.

    `is_trusted`: it may pick a group and see what would tell the threshold: a privileged key's,
    or anybody's where no keys are set. `sees_detail`: it gets verdicts whole.
    """

    role: Role | None
    key_id: str | None
    is_trusted: bool
    sees_detail: bool


class Keys:
    """The keys of a service: pairs of a role and the SHA-256 of a key."""

    def __init__(self, entries: Iterable[tuple[Role, bytes]], settings: Settings) -> None:
        self._entries = tuple(entries)
        self._settings = settings

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """Those of the settings and of the file that they name.

        Raises BadSettingError, which quotes no entry: somebody may have put a key there.
        """
        entries = list(_entries(settings.api_keys.replace(",", " ").split(), "API_KEYS", "entry"))
        path = settings.api_keys_file
        if path is not None:
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise BadSettingError(
                    f"{PREFIX}API_KEYS_FILE names {str(path)!r}, which cannot be read "
                    f"({type(error).__name__}): correct the path or its permissions",
                    param=f"{PREFIX}API_KEYS_FILE",
                ) from None
            written = [line.partition("#")[0].strip() for line in lines]
            entries += _entries(written, "API_KEYS_FILE", "line")
            if not any(written):
                raise BadSettingError(
                    f"{PREFIX}API_KEYS_FILE names {str(path)!r}, which holds no key: add a line "
                    "that `trajguard key` prints, or unset it",
                    param=f"{PREFIX}API_KEYS_FILE",
                )
        return cls(entries, settings)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def caller(self, headers: Headers) -> Caller:
        """Who presents these headers. Of a key that is known beside one that is not, nothing is
        made: something is set wrongly.
        """
        roles = [self._role_of(key) for key in _presented(headers)]
        role = None
        if roles and None not in roles:
            role = max((each for each in roles if each is not None), key=ROLES.index)
        known = not self or role is not None
        privileged = role in ("privileged", "admin")
        whole = self._settings.verdict_detail == "full"
        key_id = _key_id(_presented(headers)[0]) if role is not None else None
        return Caller(role, key_id, privileged or not self, privileged or (known and whole))

    def _role_of(self, key: str) -> Role | None:
        shown = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        # All are compared, however early one is equal.
        equal = [role for role, digest in self._entries if hmac.compare_digest(shown, digest)]
        return max(equal, key=ROLES.index, default=None)


class KeyRequired:
    """401 for all but the probes, and what else is `also_open`, to who has no key, once any is set,
    before a body is read.
    """

    def __init__(self, app: ASGIApp, keys: Keys, also_open: Collection[str] = ()) -> None:
        self._app = app
        self._keys = keys
        self._open = frozenset({*OPEN, *also_open})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = self._keys.caller(Headers(scope=scope))
        scope.setdefault("state", {})["caller"] = caller
        if self._keys and caller.role is None and scope["path"] not in self._open:
            error = AuthenticationError(
                "no key, or one that this service does not know: send it as "
                "'Authorization: Bearer KEY' or 'x-api-key: KEY'"
            )
            await response_of(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def describe_keys(app: FastAPI) -> None:
    """Say in the OpenAPI document that all but the probes needs a key."""
    openapi = app.openapi

    def with_keys() -> dict[str, Any]:
        document = openapi()
        document.setdefault("components", {})["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        for path, operations in document["paths"].items():
            for operation in operations.values() if path not in OPEN else ():
                operation["security"] = [{"bearer": []}, {"x-api-key": []}]
                operation["responses"].setdefault("401", {"description": "no key that is known"})
        return document

    app.openapi = with_keys  # type: ignore[method-assign]


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


CallerOf = Annotated[Caller, Depends(_caller)]


def require_trusted(caller: CallerOf) -> None:
    """Raises ForbiddenError for a key that is not privileged."""
    if not caller.is_trusted:
        raise ForbiddenError("this needs a privileged key: ask who runs the service for one")


def require_admin(caller: CallerOf) -> None:
    """Raises ForbiddenError for whoever has no admin key, where none is set too."""
    if caller.role != "admin":
        raise ForbiddenError(
            f"this needs an admin key: make one with `trajguard key --role admin` and set "
            f"{PREFIX}API_KEYS"
        )


def require_may_pick_group(caller: Caller, fields: dict[str, str], param: str) -> None:
    """Raises ForbiddenError where fields come with a key that is not privileged: a group has a
    threshold of its own, and who may pick one picks the highest.
    """
    if fields and not caller.is_trusted:
        raise ForbiddenError(
            f"{param} needs a privileged key: leave it out, or ask who runs the service for one",
            param=param,
        )


def require_may_explain(caller: Caller) -> None:
    """Raises ForbiddenError for who is told decisions alone: what layers add up to is the score."""
    if not caller.sees_detail:
        raise ForbiddenError(
            "explain needs a privileged key (TRAJGUARD_VERDICT_DETAIL is 'decision'): leave it "
            "out, or ask who runs the service for one",
            param="explain",
        )


def _key_id(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def new_key(role: Role) -> tuple[str, str]:
    """A new key, and the entry to set for it."""
    key = f"tg-{secrets.token_urlsafe(32)}"
    return key, f"{role}:{hashlib.sha256(key.encode()).hexdigest()}"


def _entries(texts: Iterable[str], name: str, what: str) -> Iterable[tuple[Role, bytes]]:
    for number, text in enumerate(texts, start=1):
        found = _ENTRY.fullmatch(text)
        if found is not None:
            yield found[1], bytes.fromhex(found[2])  # type: ignore[misc]
        elif text:
            raise BadSettingError(
                f"{PREFIX}{name}, {what} {number}, is no role ({', '.join(ROLES)}), colon and "
                "SHA-256 of a key: put there what `trajguard key` prints as its entry",
                param=PREFIX + name,
            )


def _presented(headers: Headers) -> list[str]:
    """The keys that a request shows: OpenAI's clients send a bearer, others x-api-key. An
    authorization of another kind is a key that nobody knows.
    """
    keys = [headers["x-api-key"]] if "x-api-key" in headers else []
    if "authorization" in headers:
        scheme, _, bearer = headers["authorization"].partition(" ")
        keys.append(bearer.strip() if scheme.lower() == "bearer" else "")
    return keys
