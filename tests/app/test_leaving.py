"""A stream whose client leaves before its first byte is not generated for nobody."""

from __future__ import annotations

import pytest

from detector.artifact import Artifact
from detector.backend import Step
from tests.app.clients import IN_SCOPE, client_of, user
from tests.app.leaver import Leaver
from tests.app.serving import engine_of, make_app

URL = "/v1/chat/completions"


@pytest.mark.parametrize(("at_once", "status"), [(True, 499), (False, 200)])
@pytest.mark.parametrize("n", [1, 3])
def test_client_that_leaves_before_the_first_byte_frees_its_slot(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, at_once: bool, status: int, n: int
) -> None:
    app = make_app(artifact, n_slots=1, mode="flag")
    body = {"messages": user(IN_SCOPE), "max_tokens": 400, "ignore_eos": True, "stream": True}
    with client_of(app) as client:
        assert client.portal is not None
        engine = engine_of(app)
        ended: list[Step] = []
        step = engine.step

        def watched() -> list[Step]:
            steps = step()
            ended.extend(each for each in steps if each.finish is not None)
            return steps

        monkeypatch.setattr(engine, "step", watched)
        leaver = Leaver(URL, {**body, "n": n}, at_once=at_once)
        client.portal.call(leaver.call, app)
        # With one slot, this one is answered only after the engine is done with the others.
        answer = client.post(URL, json={**body, "max_tokens": 2, "stream": False})
        counted = client.get("/metrics").text
    assert leaver.status == status
    assert answer.status_code == 200
    assert [each.finish for each in ended] == ["cancelled"] * n + ["length"]
    assert f'code="{status}",route="{URL}"' in counted
