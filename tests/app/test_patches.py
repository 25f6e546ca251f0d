"""A look at a patch of a response: it flags what the running mean does not, and stops a stream."""

from __future__ import annotations

from typing import Any

from detector.backend import Ask
from detector.trajectory import Look, patch
from tests.app.clients import CHAT, IN_SCOPE, client_of, user
from tests.app.recorded import RESPONSE, recorded_app
from tests.app.test_moderation import events

LOOKS = ("prompt", "4", "8", "5-8", "9-12")


def second(ask: Ask, look: Look) -> float:
    return 5.0 if look == patch(5, 8) else 0.0


def streamed(**settings: Any) -> tuple[str, dict[str, Any], str]:
    """The text shown, the last verdict and the metrics."""
    app = recorded_app(scores=second, looks=LOOKS, **settings)
    with client_of(app) as client:
        body = {"messages": user(IN_SCOPE), "stream": True, "max_tokens": 16}
        chunks = events(client.post(CHAT, json=body))
        metrics = client.get("/metrics").text
    choices = [chunk["choices"][0] for chunk in chunks]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text, chunks[-1]["trajguard"], metrics


def test_a_patch_ends_a_stream() -> None:
    text, verdict, metrics = streamed()
    # The look is taken before token 8 is shown; a refusal follows.
    assert text.startswith(RESPONSE[:7])
    assert not text.startswith(RESPONSE[:8])
    assert [look["look"] for look in verdict["looks"]] == ["prompt", "4", "8", "5-8"]
    assert verdict["stage"] == "response"
    assert verdict["decision"] == "refuse"
    assert 'trajguard_stopped_total{look="5-8"} 1.0' in metrics
    assert 'trajguard_stopped_total{look="9-12"} 0.0' in metrics


def test_what_a_patch_sees_is_held_until_it_is_looked_at() -> None:
    text, _, _ = streamed(hold_back=True)
    assert text.startswith(RESPONSE[:4])
    assert not text.startswith(RESPONSE[:5])


def test_a_patch_that_is_as_it_should_be_stops_nothing() -> None:
    text, verdict, _ = streamed(mode="flag")
    assert text == RESPONSE[:16]
    assert verdict["decision"] == "flag"
