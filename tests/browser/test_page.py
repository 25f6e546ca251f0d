"""The page in a real browser: what people see, hear and reach of it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.main import create_app
from app.settings import Settings
from app.wire.page import Drift
from detector.backend import Ask
from detector.trajectory import Look
from tests.app.clients import served
from tests.app.recorded import RESPONSE, recorded_app, recorded_load, recorded_settings
from tests.app.test_page import ask_at
from tests.app.test_security import ENTRIES, KEYS, bearer
from tests.browser.seen import POEM, QUESTION, REFUSAL, Seen, poems_are_not, seen_at, seen_of

if TYPE_CHECKING:
    from detector.engine.model.checkpoint import Checkpoint

TEXT_COLOURS = ("--ink", "--soft", "--inside", "--outside", "--unsure")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(recorded_app(scores=poems_are_not)) as address:
        yield address


def open_page(seen: Seen) -> Page:
    expect(seen.page.locator("#open")).to_be_visible()
    return seen.page


def test_a_question_in_scope_is_answered(browser: Browser, address: str) -> None:
    with seen_at(browser, address) as seen:
        page = open_page(seen)
        expect(page.get_by_text("Nothing has been asked yet.")).to_be_visible()
        seen.ask(QUESTION)
        seen.told("In scope")
        expect(page.locator("#answer")).to_have_text(RESPONSE)
        expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
        expect(page.get_by_role("status").filter(has_text="In scope. Answered")).to_have_count(1)
        expect(page.get_by_role("img", name="p-value 0.50, over alpha, 0.05")).to_be_visible()
        expect(page.get_by_role("img", name="score 0.25, not over")).to_be_visible()
        plot = page.get_by_role("img", name="The end of the prompt, by layer. Within or under")
        expect(plot.locator("canvas")).to_be_visible()
        expect(page.locator("#plots figure")).to_have_count(2)
        expect(page.locator("#read-text")).to_have_text(QUESTION)
        expect(page.locator("#read-note")).to_have_text("Just as it was typed.")


def test_a_question_out_of_scope_is_refused(browser: Browser, address: str) -> None:
    with seen_at(browser, address) as seen:
        page = open_page(seen)
        seen.ask(f"**{POEM.upper().replace('POEM', 'poem')}**")
        seen.told("Out of scope")
        expect(page.locator("#answer")).to_have_text(REFUSAL)
        expect(page.get_by_role("img", name="p-value 0.010, not over alpha, 0.05")).to_be_visible()
        # Not by colour alone: in words too, for each layer.
        over = "Above the central 95 % at layers 0, 1 and 2."
        expect(page.get_by_role("img", name=over)).to_have_count(1)
        expect(page.get_by_text(over)).to_be_visible()
        expect(page.locator("#verdict td .word")).to_have_text(["over"])
        expect(page.locator("#read-text")).not_to_contain_text("**")
        expect(page.locator("#read-note")).to_contain_text("canonical/1")
        page.locator("summary").click()
        cells = page.locator("#plots tbody tr").first.locator("td")
        expect(cells).to_have_text(["0", "3.00", "−2.00", "−0.50", "0.00", "0.50", "2.00"])


def test_an_answer_shows_as_it_comes_and_can_be_stopped(browser: Browser) -> None:
    """The engine stands still at the look at four tokens until it may go on."""
    may_go_on = threading.Event()

    def scores(ask: Ask, look: Look) -> float:
        if look == 4 and b"pens" in bytes(ask.prompt):
            assert may_go_on.wait(60)
        return 0.25

    with seen_of(browser, recorded_app(scores=scores)) as seen:
        page = open_page(seen)
        seen.ask(QUESTION)
        answer = page.locator("#answer")
        expect(answer).to_have_text(RESPONSE[:3])
        expect(answer).to_have_attribute("aria-busy", "true")
        expect(page.locator("#verdict b").first).to_have_text("In scope")
        stop = page.get_by_role("button", name="Stop")
        stop.focus()
        page.keyboard.press("Enter")
        expect(answer).to_have_attribute("aria-busy", "false")
        expect(stop).to_be_hidden()
        expect(page.get_by_role("button", name="Ask", exact=True)).to_be_focused()
        may_go_on.set()
        seen.ask(QUESTION)
        expect(answer).to_have_text(RESPONSE)
        seen.told("In scope")


def test_all_of_it_by_keyboard(browser: Browser, address: str) -> None:
    with seen_at(browser, address) as seen:
        page = open_page(seen)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
        expect(page.get_by_role("link", name="Skip to the question")).to_be_in_viewport()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        if not page.get_by_label("Your question").evaluate("e => e === document.activeElement"):
            page.keyboard.press("Shift+Tab")
        expect(page.get_by_label("Your question")).to_be_focused()
        page.keyboard.type(POEM)
        page.keyboard.press("Control+Enter")
        seen.told("Out of scope")
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            name, outline = page.evaluate(
                "() => { const e = document.activeElement, s = getComputedStyle(e); return ["
                "e.textContent.trim().slice(0, 12) || e.id, s.outlineStyle + s.outlineWidth] }"
            )
            if name.startswith("Skip to"):
                break
            assert outline == "solid3px", name
            reached.append(name)
        assert [*reached[:2], *reached[4:6]] == ["Ask", QUESTION[:12], "Numbers", "TimeDecision"]
        assert reached[-1] == "API"
        page.get_by_role("button", name=QUESTION).focus()
        page.keyboard.press("Space")
        seen.told("In scope")


def test_what_a_screen_reader_is_told(browser: Browser, address: str) -> None:
    with seen_at(browser, address) as seen:
        page = open_page(seen)
        seen.ask(POEM)
        seen.told("Out of scope")
        expect(page.locator("#rows tbody tr")).not_to_have_count(0)
        told = page.locator("body").aria_snapshot()
        for role, name in (
            ("banner", ""),
            ("main", ""),
            ("contentinfo", ""),
            ("heading", '"Ask, and see how it is judged" [level=1]'),
            ("heading", '"Verdict" [level=2]'),
            ("heading", '"Flag rate" [level=3]'),
            ("textbox", '"Your question"'),
            ("group", '"Examples to ask"'),
            ("region", '"Trajectory by layer"'),
            ("table", '"Latest decisions"'),
            ("columnheader", '"p-value"'),
            ("cell", '"Out of scope, refused"'),
        ):
            assert f"- {role} {name}".rstrip() in told, (role, name)
        # Whatever is pressed or looked at has a name, and no picture is told twice.
        nameless = re.findall(
            r"- (?:img|button|link|textbox|table|region)(?: \[.*\])?:?$", told, re.MULTILINE
        )
        assert not nameless, nameless
        levels = [int(level) for level in re.findall(r"\[level=(\d)\]", told)]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert page.locator("html").get_attribute("lang") == "en"


def luminance(colour: str) -> float:
    def linear(value: float) -> float:
        return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2's, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_dark_and_light(browser: Browser, address: str) -> None:
    papers = []
    for dark in (False, True):
        with seen_at(browser, address, dark=dark) as seen:
            page = open_page(seen)
            seen.ask(POEM)
            seen.told("Out of scope")
            colours: dict[str, str] = page.evaluate(
                "names => Object.fromEntries(names.map(name => [name,"
                " getComputedStyle(document.documentElement).getPropertyValue(name).trim()]))",
                [*TEXT_COLOURS, "--paper", "--card", "--edge", "--focus"],
            )
            for name in TEXT_COLOURS:
                for paper in ("--paper", "--card"):
                    assert contrast(colours[name], colours[paper]) >= 4.5, (dark, name, paper)
            for name in ("--edge", "--focus"):
                assert contrast(colours[name], colours["--card"]) >= 3, (dark, name)
            button = page.locator("#send").evaluate("e => getComputedStyle(e).color")
            ink = "#" + "".join(f"{int(value):02x}" for value in re.findall(r"\d+", button)[:3])
            assert contrast(ink, colours["--inside"]) >= 4.5
            papers.append(luminance(colours["--paper"]))
            # The plots follow when the theme changes under them.
            before = page.locator("#plots canvas").evaluate("e => e.toDataURL()")
            page.emulate_media(color_scheme="light" if dark else "dark")
            page.wait_for_function(
                "before => document.querySelector('#plots canvas').toDataURL() !== before",
                arg=before,
            )
    assert papers[0] > 0.8
    assert papers[1] < 0.05


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_scrolls_sideways(browser: Browser, address: str, width: int) -> None:
    with seen_at(browser, address, width=width) as seen:
        page = open_page(seen)
        wide = "document.documentElement.scrollWidth"
        assert page.evaluate(wide) <= width
        seen.ask("poem " + "w" * 150)
        seen.told("Out of scope")
        expect(page.locator("#rows tbody tr")).not_to_have_count(0)
        page.locator("summary").click()
        assert page.evaluate(wide) <= width
        for target in page.locator("button:visible").all():
            box = target.bounding_box()
            assert box is not None
            assert box["height"] >= 24


def test_who_wants_no_motion_gets_none(browser: Browser, address: str) -> None:
    moving = "document.getAnimations().filter(each => each.playState === 'running').length"
    with seen_at(browser, address, calm=True) as seen:
        page = open_page(seen)
        seen.ask(QUESTION)
        seen.told("In scope")
        assert page.evaluate(moving) == 0


def test_it_loads_from_here_alone_and_little(browser: Browser, address: str) -> None:
    with seen_at(browser, address) as seen:
        open_page(seen)
        sizes = {
            response.url: int(response.headers["content-length"])
            for response in seen.responses
            if "content-length" in response.headers
        }
        assert len(sizes) >= 9
        assert 50_000 < sum(sizes.values()) < 150_000
        assert seen.page.context.cookies() == []
        assert seen.page.evaluate("localStorage.length") == 0


def test_traffic_of_others_shows_as_it_comes(browser: Browser) -> None:
    app = recorded_app(scores=poems_are_not)
    trajguard = app.state.trajguard
    evidence = [
        Drift(of="traffic", log_evidence=9.0, log_alarm=4.6, is_alarm=True, n_questions=40),
        Drift(of="canaries", log_evidence=-1.0, log_alarm=4.6, is_alarm=False, n_questions=4),
    ]
    told = list[Drift]()
    app.state.trajguard = replace(
        trajguard, showing=replace(trajguard.showing, drift=lambda: list(told))
    )
    with served(app) as address, seen_at(browser, address) as seen:
        page = open_page(seen)
        empty = page.get_by_text("No question has been judged yet.")
        expect(empty).to_have_count(3)
        expect(page.locator("#drift")).to_be_hidden()
        ask_at(address, QUESTION, **{"x-request-id": "another-s"})
        rows = page.locator("#rows tbody tr")
        expect(rows).to_have_count(1)
        expect(rows.first).to_contain_text("another-s")
        told += evidence
        ask_at(address, POEM)
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("Out of scope, refused")
        expect(empty.first).to_be_hidden()
        rate = page.get_by_role(
            "img", name="Flag rate of the last 2 questions: 50.0 %; alpha is 5 %."
        )
        expect(rate).to_be_visible()
        expect(page.get_by_role("img", name="1 of the last 2 p-values")).to_be_visible()
        expect(page.locator(".drift-row")).to_have_count(2)
        expect(page.locator(".drift-row").first).to_contain_text("Drift")
        expect(page.locator(".drift-row").last).to_contain_text("No sign of it")
        expect(page.get_by_text("2 judged since the start")).to_be_visible()
        assert QUESTION not in page.locator("#live").inner_text()


def test_a_key_is_asked_for_and_kept_in_the_tab(browser: Browser) -> None:
    app = recorded_app(api_keys=ENTRIES, scores=poems_are_not)
    with served(app) as address, seen_at(browser, address, refused=(401, 403)) as seen:
        page = seen.page
        expect(page.get_by_role("heading", name="This service asks for a key")).to_be_visible()
        expect(page.get_by_label("API key")).to_be_focused()
        expect(page.locator("#open")).to_be_hidden()
        page.keyboard.type("tg-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").filter(has_text="does not know this key")).to_be_visible()
        expect(page.locator("#open")).to_be_hidden()
        page.get_by_label("API key").fill(KEYS["user"][0])
        page.keyboard.press("Enter")
        open_page(seen)
        expect(page.get_by_text("shown to privileged keys")).to_be_visible()
        expect(page.locator("#live")).to_be_hidden()
        seen.ask(QUESTION)
        seen.told("In scope")
        page.reload()
        open_page(seen)
        page.get_by_role("button", name="Forget key").click()
        expect(page.get_by_label("API key")).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0
        page.get_by_label("API key").fill(KEYS["privileged"][0])
        page.get_by_role("button", name="Open").click()
        expect(page.locator("#rows tbody tr")).to_have_count(1)
        assert not any("tg-" in response.url for response in seen.responses)


def test_where_scores_are_for_privileged_keys(browser: Browser) -> None:
    app = recorded_app(api_keys=ENTRIES, verdict_detail="decision", scores=poems_are_not)
    with seen_of(browser, app) as seen:
        page = seen.page
        page.get_by_label("API key").fill(KEYS["user"][0])
        page.keyboard.press("Enter")
        open_page(seen)
        seen.ask(POEM)
        seen.told("Out of scope")
        expect(page.get_by_text("Scores are told to privileged keys alone.")).to_be_visible()
        expect(page.locator("#why")).to_be_hidden()
        expect(page.locator(".scale")).to_have_count(0)


async def at_once() -> None:
    """In place of what the server waits for before it is said to be up."""


def test_before_it_is_ready_it_says_why_and_waits(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_load = threading.Event()
    recorded = recorded_load(scores=poems_are_not)

    def load(settings: Settings) -> Any:
        assert may_load.wait(60)
        return recorded(settings)

    app = create_app(recorded_settings(), load=load)
    monkeypatch.setattr(app.state.trajguard.loading.ended, "wait", at_once)
    with served(app) as address, seen_at(browser, address, refused=(503,)) as seen:
        monkeypatch.undo()
        page = seen.page
        expect(page.get_by_role("alert").filter(has_text="the model is loading")).to_be_visible()
        expect(page.get_by_role("status").filter(has_text="Not ready")).to_be_visible()
        expect(page.locator("#open")).to_be_hidden()
        may_load.set()
        open_page(seen)
        expect(page.locator("#notice")).to_be_hidden()


def answer_with(status: int, headers: dict[str, str]) -> Any:
    def answer(route: Route) -> None:
        error = {"message": "the queue is full: try again", "code": "queue_full"}
        route.fulfill(status=status, headers=headers, body=json.dumps({"error": error}))

    return answer


def test_errors_are_told_and_the_next_question_goes_on(browser: Browser, address: str) -> None:
    with seen_at(browser, address, refused=(429,)) as seen:
        page = open_page(seen)
        page.route("**/v1/chat/completions", answer_with(429, {"Retry-After": "7"}))
        seen.ask(QUESTION)
        notice = page.get_by_role("alert").filter(has_text="the queue is full")
        expect(notice).to_have_text("the queue is full: try again (in 7 s)")
        expect(page.get_by_text("There is no verdict.")).to_be_visible()
        page.unroute("**/v1/chat/completions")
        seen.ask(QUESTION)
        seen.told("In scope")
        expect(page.locator("#notice")).to_be_hidden()


def test_a_refusal_that_is_an_error_is_a_refusal(browser: Browser) -> None:
    app = recorded_app(scores=poems_are_not, refusal_style="error")
    with seen_of(browser, app, refused=(400,)) as seen:
        page = open_page(seen)
        seen.ask(POEM)
        seen.told("Out of scope")
        expect(page.locator("#answer")).to_have_text(REFUSAL)
        expect(page.locator("#notice")).to_be_hidden()


def test_in_shadow_mode_it_is_said_what_would_be(browser: Browser) -> None:
    with seen_of(browser, recorded_app(scores=poems_are_not, mode="shadow")) as seen:
        page = open_page(seen)
        expect(page.get_by_role("status").filter(has_text="shadow mode")).to_be_visible()
        seen.ask(POEM)
        seen.told("Out of scope")
        expect(page.locator("#answer")).to_have_text(RESPONSE)
        expect(page.locator("#verdict")).to_contain_text("in shadow mode verdicts are counted")


def test_a_key_that_is_taken_back_locks_the_page(browser: Browser) -> None:
    with seen_of(browser, recorded_app(api_keys=ENTRIES), refused=(401,)) as seen:
        page = seen.page
        page.get_by_label("API key").fill(KEYS["user"][0])
        page.keyboard.press("Enter")
        open_page(seen)
        page.evaluate("sessionStorage.setItem('trajguard-key', 'tg-old')")
        page.reload()
        expect(page.get_by_text("The service does not know this key.")).to_be_visible()
        assert bearer("user")["authorization"] not in page.content()


@pytest.mark.default_model
def test_the_default_model_s_two_questions(browser: Browser) -> None:
    with seen_of(browser, create_app(Settings())) as seen:
        page = open_page(seen)
        page.get_by_role("button", name=QUESTION).click()
        expect(page.locator("#verdict b").first).to_have_text("In scope", timeout=60_000)
        expect(page.locator("#answer")).to_have_attribute("aria-busy", "false", timeout=60_000)
        assert len(page.locator("#answer").inner_text()) > 10
        page.get_by_role("button", name=POEM).click()
        seen.told("Out of scope")
        expect(page.locator("#answer")).to_have_text(REFUSAL)


def test_why_it_was_flagged(browser: Browser, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """On the real engine: the questions that it lies near, by their texts and as texts alone."""
    from tests.app.serving import make_app
    from tests.explained import calibrated_with_neighbours

    kept = calibrated_with_neighbours(checkpoint, tmp_path)
    names = kept.manifest.neighbours
    assert names is not None
    marked = [name.model_copy(update={"text": f"<b>{name.text}</b>"}) for name in names.questions]
    names = names.model_copy(update={"questions": tuple(marked)})
    manifest = kept.manifest.model_copy(update={"neighbours": names})
    artifact = type(kept).of(kept.detector, manifest)
    with seen_of(browser, make_app(artifact)) as seen:
        page = open_page(seen)
        seen.ask("zzzzzzzzzz")
        seen.told("Out of scope")
        card = page.get_by_role("region", name="Why it was flagged")
        expect(card).to_be_visible()
        near = card.get_by_role("list", name="Nearest calibration questions").get_by_role(
            "listitem"
        )
        expect(near).to_have_count(5)
        for item in near.all():
            # As it stands in the artifact, marks and all.
            said = item.locator("q").text_content() or ""
            assert said in {name.text for name in marked}
            expect(item.locator("small")).to_have_text("generated")
        expect(card.get_by_text("Of kinds out of scope the nearest is generated")).to_be_visible()
        layers = card.get_by_role("table", name="What layers add to the score")
        expect(layers.get_by_role("row")).to_have_count(6)
        first = layers.get_by_role("row").first
        expect(first.get_by_role("cell").last).to_contain_text("+")
        expect(card.get_by_text(re.compile(r"All 7 together make [\d.]+\."))).to_be_visible()
        # Nothing is left of it beside another question.
        seen.ask("Rosa has 30 eggs. Tove has 12 fewer. How many eggs does Tove have?")
        seen.told("In scope")
        expect(card).to_be_hidden()


def test_why_a_flag_cannot_be_told(browser: Browser, address: str) -> None:
    with seen_at(browser, address) as seen:
        page = open_page(seen)
        seen.ask(POEM)
        seen.told("Out of scope")
        card = page.get_by_role("region", name="Why it was flagged")
        expect(card.get_by_text("Not known: the artifact keeps no calibration")).to_be_visible()
