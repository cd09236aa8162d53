"""What to look at first, in a real browser, with a real broker: it is confirmed, corrected and dismissed, and leaves.

Debian's Chromium, driven by Playwright. Without a browser every test is skipped, by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.browser_harness import (
    BROWSER_MARKS,
    Browsing,
    focused,
    page_of,
    start_two_workers,
    tab_to,
    teach_against_the_pool,
    wait_until_all_workers_know,
    write,
)
from tests.integration.stream_harness import Stream, wait_until
from tests.support.running_page import RunningPage, tagged_value
from workers.teaching.topic_examples import taught_until_now
from workers.topics import Topic

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = BROWSER_MARKS


def unsure(name: str, text: str, *spans: tuple[str, str], confidence: float) -> dict[str, Any]:
    value = tagged_value(name, text, *spans)
    return {**value, "entities": [{**entity, "confidence": confidence} for entity in value["entities"]]}


ADA = unsure(
    "ada", "Ada Lovelace met Babbage in London.", ("Ada Lovelace", "person"), ("London", "location"), confidence=0.3
)
ROME = unsure("rome", "It rained in Rome.", ("Rome", "location"), confidence=0.8)
VEX = unsure("vex", "Zorko painted Vexmoor.", ("Zorko", "person"), confidence=0.5)


@contextlib.contextmanager
def reviewing(stream: Stream, browsing: Browsing, **ui: Any) -> Iterator[Any]:
    """The page at Review, when it has a queue for what comes."""
    with page_of(stream, browsing, "#review", **ui) as tab:
        tab.locator("#review-pool option").first.wait_for(state="attached")
        yield tab


def texts(tab: Any) -> list[str]:
    return ["".join(each.locator(".text [data-start]").all_inner_texts()) for each in tab.locator("article").all()]


def item(tab: Any, text: str) -> Any:
    return tab.locator("article").filter(has_text=text)


def test_what_teaches_most_comes_first_with_why_and_leaves_when_it_is_dealt_with(
    stream: Stream, browsing: Browsing
) -> None:
    with reviewing(stream, browsing) as tab:
        write(stream, ROME, ADA, VEX, {**ADA, "id": "ada-2"})
        tab.get_by_text("It rained in").wait_for()
        assert texts(tab) == [ADA["text"], VEX["text"], ROME["text"]]  # one of two that are alike
        reasons = item(tab, "Babbage").locator(".review-reasons").inner_text()
        assert "Ada Lovelace is person with 30%" in reasons
        assert "babbage" in reasons
        item(tab, "Babbage").locator(".entity").first.hover()
        assert "proposed by" in tab.locator("#details").inner_text()
        before = item(tab, "rained").locator(".worth").inner_text()
        # Confirmed: where the pool says nothing else, by one click.
        item(tab, "Vexmoor").get_by_role("button", name="It is right").click()
        tab.get_by_text("Taught. Workers know it within seconds.").wait_for()
        item(tab, "Vexmoor").wait_for(state="detached")
        (example,) = taught_until_now(stream.settings.kafka).values()
        assert (example.text, [(span.text, kind) for span, kind in example.spans]) == (
            VEX["text"],
            [("Zorko", "person")],
        )
        assert example.source is not None
        assert example.source.document == "vex"
        # Dismissed.
        item(tab, "Babbage").get_by_role("button", name="Dismiss").click()
        tab.get_by_text("Dismissed:").wait_for()
        item(tab, "Babbage").wait_for(state="detached")
        assert texts(tab) == [ROME["text"]]
        assert item(tab, "rained").locator(".worth").inner_text() == before
        # Neither comes again, whatever comes; a document that is deleted leaves while somebody reads.
        write(
            stream,
            {**ADA, "id": "ada-3"},
            {**VEX, "id": "vex-2"},
            unsure("ann", "Ann saw Bo.", ("Ann", "person"), confidence=0.2),
        )
        tab.get_by_role("button", name="Show 1 new sentence").click()
        item(tab, "Ann").wait_for()
        assert texts(tab) == ["Ann saw Bo.", ROME["text"]]
        item(tab, "Ann").hover()
        stream.produce([(b"ann", None)], topic=Topic.TAGGED_DOCUMENTS)
        item(tab, "Ann").wait_for(state="detached")


def test_a_correction_from_the_queue_is_in_effect_on_two_workers(stream: Stream, browsing: Browsing) -> None:
    with reviewing(stream, browsing) as tab:
        start_two_workers(stream)
        write(stream, ADA)
        item(tab, "Babbage").get_by_role("button", name="Correct").click()
        lesson = tab.get_by_role("dialog")
        lesson.get_by_role("button", name="London").click()
        lesson.get_by_label("type", exact=True).select_option("event")
        teach_against_the_pool(lesson)
        lesson.wait_for(state="detached")  # it has done what it was opened for
        item(tab, "Babbage").wait_for(state="detached")
        (example,) = taught_until_now(stream.settings.kafka).values()
        assert [(span.text, kind) for span, kind in example.spans] == [("Ada Lovelace", "person"), ("London", "event")]
        wait_until_all_workers_know(stream, example)


def test_the_queue_takes_the_keyboard_alone(stream: Stream, browsing: Browsing) -> None:
    with reviewing(stream, browsing) as tab:
        write(stream, ROME, ADA, VEX)
        item(tab, "rained").wait_for()
        tab_to(tab, "article")
        assert focused(tab, "el.dataset.id") == "ada"
        # The next one is confirmed, and the focus goes on to the one behind it.
        tab.keyboard.press("ArrowDown")
        assert focused(tab, "el.dataset.id") == "vex"
        tab.keyboard.press("r")
        item(tab, "Vexmoor").wait_for(state="detached")
        wait_until(lambda: focused(tab, "el.dataset.id") == "rome", what="the focus goes on")
        assert focused(tab, "el.matches(':focus-visible')")
        tab.keyboard.press("d")
        item(tab, "rained").wait_for(state="detached")
        wait_until(lambda: focused(tab, "el.dataset.id") == "ada", what="the focus goes on")
        # An entity is corrected: what the pool says otherwise is decided too.
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        assert focused(tab, "el.className").startswith("entity")
        tab.keyboard.press("Enter")
        lesson = tab.get_by_role("dialog")
        lesson.get_by_label("type", exact=True).wait_for()
        tab_to(tab, ".lesson-tools button")
        tab.keyboard.press("Enter")
        lesson.get_by_role("button", name="London").wait_for(state="detached")
        tab.locator("button.main:focus").wait_for()
        tab.keyboard.press("Enter")
        tab.locator(".doubts button.main:focus").wait_for()
        tab.keyboard.press("Enter")
        lesson.wait_for(state="detached")
        item(tab, "Babbage").wait_for(state="detached")
        examples = {each.text: each.spans for each in taught_until_now(stream.settings.kafka).values()}
        assert {text: [span.text for span, _ in spans] for text, spans in examples.items()} == {
            VEX["text"]: ["Zorko"],
            ADA["text"]: ["Ada Lovelace"],
        }
        # By Tab too: a sentence's own buttons are behind it.
        write(stream, ADA | {"id": "new", "text": "Ann saw Bo.", "entities": []})
        item(tab, "Ann").wait_for()
        tab_to(tab, "article")
        tab_to(tab, ".review-buttons button.plain")
        tab.keyboard.press("Enter")
        item(tab, "Ann").wait_for(state="detached")


def test_what_the_pool_says_otherwise_is_asked_before_a_sentence_is_confirmed(
    stream: Stream, browsing: Browsing
) -> None:
    wrong = unsure("wrong", "Zorko flew to London.", ("London", "person"), confidence=0.4)
    with reviewing(stream, browsing) as tab:
        write(stream, wrong)
        item(tab, "Zorko").get_by_role("button", name="It is right").click()
        lesson = tab.get_by_role("dialog")
        lesson.get_by_text("the pool calls 'London' location").wait_for()
        lesson.get_by_role("button", name="Close").click()
        lesson.wait_for(state="detached")
        assert taught_until_now(stream.settings.kafka) == {}
        assert texts(tab) == [wrong["text"]]


def test_hostile_text_in_the_queue_does_nothing_and_is_shown(stream: Stream, browsing: Browsing) -> None:
    text = "<img src=x onerror='window.hacked=1'> \u202egpj.exe Zorko\u202c <script>window.hacked=2</script>"
    hostile = unsure("<b>\u202eid", text, ("Zorko", "<i>person\u202e"), confidence=0.1)
    with reviewing(stream, browsing) as tab:
        write(stream, hostile)
        article = tab.locator("article").first
        article.wait_for()
        assert "<img src=x onerror='window.hacked=1'>" in article.inner_text()
        assert article.locator(".control").first.inner_text() == "U+202E"
        assert "\u202e" not in article.inner_text()
        assert "<i>person" in article.locator(".review-reasons").inner_text()
        assert tab.locator("main img, main script, main i").count() == 0
        assert tab.evaluate("window.hacked") is None


def test_a_reader_sees_the_queue_and_teaches_nothing(stream: Stream, browsing: Browsing) -> None:
    stream.create_topics()
    with RunningPage(stream.settings, {"reader_token": "r" * 20, "teacher_token": "t" * 20}) as page:
        tab = browsing.open(f"{page.url}/#review")
        tab.get_by_label("Token").fill("r" * 20)
        tab.keyboard.press("Enter")
        browsing.followed()
        tab.locator("#review-pool option").first.wait_for(state="attached")
        write(stream, ADA)
        item(tab, "Babbage").wait_for()
        assert tab.get_by_role("button", name="It is right").count() == 0
        assert tab.get_by_role("button", name="Correct").count() == 0
        tab_to(tab, "article")
        for key in ("r", "d", "Enter"):
            tab.keyboard.press(key)
        assert tab.get_by_role("dialog").count() == 0
        assert texts(tab) == [ADA["text"]]
        tab.context.close()
    assert taught_until_now(stream.settings.kafka) == {}
