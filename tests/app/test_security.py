"""Who may ask: keys and their roles, what each sees, and who is told of an open door."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends
from starlette.testclient import TestClient

from app.__main__ import main
from app.load_settings import BadSettingError, load_settings
from app.security import ROLES, Keys, Role, new_key, require_admin
from app.settings import Settings
from detector.backend import Ask
from detector.groups import Grouping
from detector.trajectory import Look
from tests.app.clients import CHAT, IN_SCOPE, SECRET, client_of, error_of, served, user
from tests.app.recorded import recorded_app
from trajguard import main as trajguard

KEYS = {role: new_key(role) for role in ROLES}
ENTRIES = " ".join(entry for _, entry in KEYS.values())
ASKED = {"messages": user(IN_SCOPE), "max_tokens": 2}
FIELDS = {"fields": {"route": "a"}}
TELLING = {"score", "p_value", "threshold", "alpha", "looks", "group"}
NUMBERS = TELLING - {"looks"}


def bearer(role: Role) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[role][0]}"}


def keyed_app(**settings: Any) -> Any:
    grouped: dict[str, Any] = {
        "manifest": {"grouping": Grouping(by="route")},
        "groups": {"a": 9.0},
    }
    app = recorded_app(**({"api_keys": ENTRIES} | grouped | settings))

    @app.get("/admin/nothing", dependencies=[Depends(require_admin)])
    def nothing() -> None: ...

    return app


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(keyed_app()) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer -"},
        {"authorization": f"Bearer {SECRET}\xe9"},
        {"authorization": f"Basic {KEYS['user'][0]}"},
        {"authorization": KEYS["user"][0]},
        {"x-api-key": KEYS["user"][1]},
        {"x-api-key": KEYS["user"][1].partition(":")[2]},
        {"x-api-key": ""},
    ],
)
def test_without_a_key_nothing_but_the_probes_answers(
    client: TestClient, headers: dict[str, str]
) -> None:
    raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    for method, path in (
        ("POST", CHAT),
        ("POST", "/v1/score"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/v2/nothing"),
        ("GET", "/health/"),
    ):
        response = client.request(method, path, headers=raw)
        assert error_of(response, 401)["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == 'Bearer realm="trajguard"'
        assert response.headers["x-request-id"]
    assert client.get("/health", headers=raw).status_code == 200
    ready = client.get("/readyz", headers=raw)
    assert ready.status_code == 200
    assert not NUMBERS & ready.json().keys()


def test_any_key_asks_by_either_header(client: TestClient) -> None:
    for role in ROLES:
        key = KEYS[role][0]
        for headers in (bearer(role), {"authorization": f"bearer  {key}"}, {"x-api-key": key}):
            assert client.post(CHAT, json=ASKED, headers=headers).status_code == 200
    both = {"x-api-key": KEYS["user"][0]} | bearer("privileged")
    assert client.get("/metrics", headers=both).status_code == 200
    for unknown in ({"authorization": "Bearer -"}, {"x-api-key": "-"}):
        for known in ({"x-api-key": KEYS["user"][0]}, bearer("user")):
            status = 200 if unknown.keys() == known.keys() else 401
            assert client.get("/v1/models", headers=unknown | known).status_code == status


def test_a_body_is_not_read_of_who_has_no_key(client: TestClient) -> None:
    read = []

    def body() -> Iterator[bytes]:
        read.append(1)
        yield b"{"

    assert client.post(CHAT, content=body()).status_code == 401
    assert error_of(client.post(CHAT, content=b"{" * 10**7), 401)


@pytest.mark.parametrize("path", [CHAT, "/v1/score"])
def test_a_group_is_picked_by_privileged_keys_alone(client: TestClient, path: str) -> None:
    asked: dict[str, Any] = {"messages": user(IN_SCOPE)}
    asked |= {"trajguard": FIELDS} if path == CHAT else FIELDS
    error = error_of(client.post(path, json=asked, headers=bearer("user")), 403)
    assert error["code"] == "forbidden"
    assert error["param"] in ("trajguard.fields", "fields")
    for role in ("privileged", "admin"):
        answer = client.post(path, json=asked, headers=bearer(role)).json()
        assert (answer.get("trajguard") or answer["verdict"])["group"] == "a"
    with client_of(keyed_app(api_keys="")) as open_to_all:
        assert open_to_all.post(path, json=asked).status_code == 200


def test_metrics_are_for_privileged_keys_and_admin_routes_for_admin(client: TestClient) -> None:
    for path, least in (("/metrics", 1), ("/admin/nothing", 2)):
        for place, role in enumerate(ROLES):
            status = 200 if place >= least else 403
            assert client.get(path, headers=bearer(role)).status_code == status
    with client_of(keyed_app(api_keys="")) as open_to_all:
        assert open_to_all.get("/metrics").status_code == 200
        error = error_of(open_to_all.get("/admin/nothing"), 403)
        assert "trajguard key --role admin" in error["message"]


def scores(ask: Ask, look: Look) -> float:
    return 5.0 if bytes(ask.prompt).startswith(b"OOD") else 0.0


@pytest.mark.parametrize("stream", [False, True])
def test_who_is_told_the_decision_alone(stream: bool) -> None:
    """Nothing that a question could be changed by, step by step, until it passes."""
    with client_of(keyed_app(verdict_detail="decision", scores=scores)) as client:
        for content, decision in ((IN_SCOPE, "allow"), ("OOD", "refuse")):
            for n in (1, 2):
                asked = {**ASKED, "messages": user(content), "n": n, "stream": stream}
                told = client.post(CHAT, json=asked, headers=bearer("user")).text
                whole = client.post(CHAT, json=asked, headers=bearer("privileged")).text
                for name in TELLING:
                    assert f'"{name}"' not in told
                assert f'"decision":"{decision}"' in told
                assert '"threshold"' in whole
            asked = {"messages": user(content)}
            verdict = client.post("/v1/score", json=asked, headers=bearer("user")).json()["verdict"]
            assert verdict == {
                "is_ood": content == "OOD",
                "stage": "prompt",
                "decision": decision,
                "mode": "refuse",
                "artifact": "recorded-id",
                "text": "canonical/1",
                "second_opinion": None,
            }
            whole = client.post("/v1/score", json=asked, headers=bearer("admin")).json()
            assert whole["verdict"]["looks"][0]["distances"]
        assert not NUMBERS & client.get("/readyz", headers=bearer("user")).json().keys()
        assert client.get("/readyz", headers=bearer("privileged")).json()["threshold"] == 1.0


def test_without_keys_a_decision_alone_is_told_to_everybody() -> None:
    with client_of(recorded_app(verdict_detail="decision")) as client:
        assert "threshold" not in client.post(CHAT, json=ASKED).json()["trajguard"]
        assert "threshold" not in client.get("/readyz").json()
    with client_of(recorded_app()) as client:
        assert "threshold" in client.post(CHAT, json=ASKED).json()["trajguard"]
        assert "threshold" in client.get("/readyz").json()


def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    (key, entry), (other, its_entry) = new_key("user"), new_key("privileged")
    path.write_text(f"# who asks\n\n{entry}  # the app\n")
    with client_of(recorded_app(api_keys=its_entry, api_keys_file=path)) as client:
        for shown in (key, other):
            answer = client.post(CHAT, json=ASKED, headers={"x-api-key": shown})
            assert answer.status_code == 200
    assert str(path) not in entry


@pytest.mark.parametrize(
    ("settings", "written", "says"),
    [
        ({"api_keys": SECRET}, None, "TRAJGUARD_API_KEYS, entry 1, is no role"),
        ({"api_keys": f"{ENTRIES},root:{'0' * 64}"}, None, "TRAJGUARD_API_KEYS, entry 4, is no"),
        ({}, f"# mine\n{SECRET}", "TRAJGUARD_API_KEYS_FILE, line 2, is no role"),
        ({}, "# none yet\n", "holds no key"),
        ({}, None, "cannot be read (FileNotFoundError)"),
    ],
)
def test_entries_that_are_none_are_told_and_not_quoted(
    settings: dict[str, Any], written: str | None, says: str, tmp_path: Path
) -> None:
    if "api_keys" not in settings:
        settings = {"api_keys_file": tmp_path / "keys"}
    if written is not None:
        (tmp_path / "keys").write_text(written)
    with pytest.raises(BadSettingError) as caught:
        Keys.of(Settings.model_validate(settings))
    assert says in caught.value.message
    assert SECRET not in caught.value.message


def test_a_key_is_printed_with_the_entry_that_lets_it_in(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trajguard(["key", "--role", "privileged"]) == 0
    key, entry = (line.split(": ")[1] for line in capsys.readouterr().out.splitlines())
    with client_of(recorded_app(api_keys=entry)) as client:
        assert client.get("/metrics", headers={"x-api-key": key}).status_code == 200
    # A key in place of its entry ends the start, and is not shown.
    monkeypatch.setenv("TRAJGUARD_API_KEYS", key)
    assert main([]) == 2
    assert key not in capsys.readouterr().err


def test_questions_are_asked_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from calibration.ask import ask
    from calibration.questions import Question
    from detector.errors import CalibrationError

    questions = [Question(tuple(user(IN_SCOPE)), "0" * 16)]
    with served(keyed_app()) as url:
        with pytest.raises(CalibrationError, match="the service answered 401: no key"):
            ask(url, questions, 1)
        monkeypatch.setenv("TRAJGUARD_API_KEY", KEYS["user"][0])
        assert [answer.decision for answer in ask(url, questions, 1)] == ["allow"]
    # A service may be started beside it.
    assert load_settings().api_keys == ""


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "0.0.0.0", "api_keys": ENTRIES}, False),
    ],
)
def test_an_open_door_is_warned_of(
    settings: dict[str, Any], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert Settings().host == "127.0.0.1"
    with caplog.at_level(logging.WARNING), client_of(recorded_app(**settings)):
        pass
    assert ("without a key" in caplog.text) == warned


def test_keys_reach_no_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.post(CHAT, json=ASKED, headers=bearer("user"))
        client.post(CHAT, json=ASKED, headers={"x-api-key": SECRET})
    assert " 401 " in caplog.text
    assert KEYS["user"][0] not in caplog.text
    assert SECRET not in caplog.text
