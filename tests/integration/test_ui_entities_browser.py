"""Entities in a real browser, with a real broker and worker: found, merged and split, whatever they are called.

Debian's Chromium, driven by Playwright. Without a browser every test is skipped, by name.
"""

from __future__ import annotations

from typing import Any

import pytest

from el4ner.serialize import dumps
from tests.integration.browser_harness import BROWSER_MARKS, Browsing, document, focused, page_of, tab_to, write
from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_entities import ENTITIES
from tests.integration.test_ui_browser import NAMELESS
from tests.support.running_page import RunningPage, tagged_value
from tests.unit.workers.ui.test_held_entities import merged_value, value_of
from workers.entities.entity_topic import decide, decisions_until_now, entities_until_now
from workers.messages.entity_ids import entity_ids, with_entity_ids
from workers.topics import Topic

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [*BROWSER_MARKS, pytest.mark.parametrize("stream", [ENTITIES], indirect=True)]

WIDER = """() => {
  const dialog = document.querySelector('dialog');
  const right = dialog.getBoundingClientRect().right + 1;
  const wider = [...dialog.querySelectorAll('*')].filter((el) => el.getBoundingClientRect().right > right);
  return wider.map((el) => el.tagName);
}"""
HOSTILE = "<img src=x onerror='window.hacked=1'>\u202egnp.\x1b[31m King"


def document_of(name: str, text: str, *spans: tuple[str, str]) -> dict[str, Any]:
    """A tagged document that says which entities it means."""
    value = tagged_value(name, text, *spans)
    return with_entity_ids(value, entity_ids(value))


ADA = document_of("ada", "Ada Lovelace met Lovelace in London.", ("Ada Lovelace", "person"), ("London", "location"))
COUNTESS = document_of("countess", "Augusta Ada King wrote.", ("Augusta Ada King", "person"))
HOSTILE_DOCUMENT = document_of("hostile", f"It is {HOSTILE} there.", (HOSTILE, "person"))


def names(tab: Any) -> list[str]:
    return [each.strip() for each in tab.locator("table.entities .entity-link").all_inner_texts()]


def test_a_teacher_merges_two_entities_and_splits_them_again(stream: Stream, browsing: Browsing) -> None:
    stream.create_topics()
    write(stream, ADA, {**ADA, "id": "ada-2"}, COUNTESS)
    stream.start("entities").wait_ready(120)
    wait_until(lambda: len(entities_until_now(stream.settings.kafka).all()) == 3, what="all entities")
    with page_of(stream, browsing, "#entities") as tab:
        tab.get_by_role("link", name="Augusta Ada King").wait_for()
        assert names(tab) == ["Ada Lovelace", "London", "Augusta Ada King"]
        tab.get_by_label("Name").fill("KING")
        tab.get_by_role("link", name="Ada Lovelace").wait_for(state="detached")
        assert names(tab) == ["Augusta Ada King"]
        tab.get_by_label("Name").fill("")
        tab.get_by_label("Type").select_option("person")
        tab.get_by_role("link", name="London").wait_for(state="detached")
        tab.get_by_role("link", name="Ada Lovelace").click()
        tab.get_by_role("heading", name="Ada Lovelace").wait_for()
        assert tab.locator(".chart canvas").count() == 1

        tab.get_by_role("button", name="Merge with").click()
        dialog = tab.get_by_role("dialog", name="Merge with Ada Lovelace")
        search = dialog.get_by_label("Name")
        assert search.input_value() == "Lovelace"  # what is like its name is looked for at once
        dialog.get_by_text("No other entity of this type").wait_for()
        search.fill("augusta")
        dialog.get_by_role("radio").check()
        dialog.get_by_role("button", name="Go on").click()
        assert "Augusta Ada King (1 mention) becomes part of Ada Lovelace (2 mentions)" in dialog.inner_text()
        assert decisions_until_now(stream.settings.kafka) == []
        dialog.get_by_role("button", name="Merge them").click()
        tab.get_by_text("Augusta Ada King is part of Ada Lovelace: carried out.").wait_for()
        assert tab.locator("dl.facts dd").first.inner_text() == "3"
        assert "augusta ada king is part of ada lovelace" in tab.locator(".decisions").inner_text()
        assert "carried out" in tab.locator(".decisions").inner_text()
        known = entities_until_now(stream.settings.kafka)
        assert [(each["name"], each["mentions"]) for each in known.all()] == [("Ada Lovelace", 3), ("London", 2)]

        tab.get_by_role("button", name="split off augusta ada king").click()
        tab.get_by_role("dialog").get_by_role("button", name="Split it off").click()
        tab.get_by_text("augusta ada king is an entity of its own: carried out.").wait_for()
        assert tab.locator("dl.facts dd").first.inner_text() == "2"
        tab.get_by_role("link", name="Look at it").click()
        tab.get_by_role("heading", name="Augusta Ada King").wait_for()
        known = entities_until_now(stream.settings.kafka)
        assert {each["name"] for each in known.all()} == {"Ada Lovelace", "London", "Augusta Ada King"}
        made = [(each.action, each.name, each.by) for each in decisions_until_now(stream.settings.kafka)]
        assert made == [("merge", "augusta ada king", "local"), ("split", "augusta ada king", "local")]


def test_hostile_names_do_nothing_and_live_leads_to_the_entity(stream: Stream, browsing: Browsing) -> None:
    stream.create_topics()
    stream.start("entities").wait_ready(120)
    with page_of(stream, browsing) as tab:
        write(stream, COUNTESS, HOSTILE_DOCUMENT)
        document(tab, "hostile").wait_for()
        wait_until(lambda: len(entities_until_now(stream.settings.kafka).all()) == 2, what="both entities")
        # By keyboard, as everything.
        tab_to(tab, "article")
        while focused(tab, "el.dataset.id") != "hostile":
            tab.keyboard.press("ArrowDown" if focused(tab, "el.previousElementSibling === null") else "ArrowUp")
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("e")
        heading = tab.get_by_role("heading", level=1).locator("bdi")
        heading.filter(has_text="onerror").wait_for()
        assert heading.inner_text() == "<img src=x onerror='window.hacked=1'>\\u202egnp.\\x1b[31m King"
        tab.get_by_role("heading", name="Latest documents that mention it").wait_for()
        assert document(tab, "hostile").locator(".entity.wanted").count() == 1
        assert document(tab, "countess").count() == 0
        tab.get_by_role("button", name="Merge with").click()
        tab.get_by_label("Name").fill("king")
        tab.get_by_role("radio").check()
        tab.get_by_role("button", name="Go on").click()
        tab.get_by_text("becomes part of").wait_for()
        tab.keyboard.press("Escape")
        tab.get_by_role("link", name="All entities").click()
        tab.get_by_role("link", name="onerror").wait_for()
        for text in (tab.content(), tab.locator("body").inner_text()):
            assert not {"\u202e", "\x1b"} & set(text)
        assert tab.locator("main img, main script").count() == 0
        assert tab.evaluate("window.hacked") is None
        assert stream.read(Topic.ENTITY_DECISIONS) == []


def test_a_reader_sees_entities_from_everywhere_and_is_offered_no_decision(stream: Stream, browsing: Browsing) -> None:
    stream.create_topics()
    ada = value_of("person", "Ada Lovelace", 3, "lovelace")
    stream.produce([(ada["id"].encode(), dumps(ada))], topic=Topic.ENTITIES)
    tokens = {"reader_token": "r" * 20, "teacher_token": "t" * 20}
    with RunningPage(stream.settings, tokens) as page:
        tab = browsing.open(f"{page.url}/#entities")
        tab.get_by_label("Token").fill(tokens["reader_token"])
        tab.get_by_role("button", name="Log in").click()
        tab.get_by_role("link", name="Ada Lovelace").click()
        tab.get_by_role("heading", name="Ada Lovelace").wait_for()
        tab.get_by_text("Nobody has decided anything.").wait_for()
        assert "lovelace" in tab.get_by_role("table").first.inner_text()
        assert tab.get_by_role("button", name="Merge with").count() == 0
        assert tab.get_by_role("button", name="Split off").count() == 0
        # Somebody else decides: it waits for the worker, and no longer than until that has done it.
        king = value_of("person", "Ada King", 1)
        stream.produce([(king["id"].encode(), dumps(king))], topic=Topic.ENTITIES)
        decide(
            stream.settings.kafka, ("person", "ada king"), "ada lovelace",
            by="ann", before=[], now_ms=1_795_766_400_000, random=lambda count: bytes(count),
        )  # fmt: skip
        tab.get_by_text("Something was decided: waiting for el4ner worker entities").wait_for()
        merged = merged_value("person", "ada king", ada["id"])
        stream.produce([(king["id"].encode(), dumps(merged))], topic=Topic.ENTITIES)
        tab.get_by_text("Something was decided").wait_for(state="detached")
        assert "ann: carried out" in tab.locator(".decisions").inner_text()
        # What is no address of an entity says so.
        for wrong in ("%E0%A4%A", "nobody"):
            tab.evaluate("hash => (location.hash = hash)", f"#entities/{wrong}")
            tab.get_by_text("no document has this entity any more").wait_for()
        # From a document, and from a name that is mentioned much.
        browsing.followed()
        write(stream, ADA)
        tab.get_by_role("link", name="Live", exact=True).click()
        document(tab, "ada").locator(".entity", has_text="Ada Lovelace").click()
        tab.get_by_role("heading", name="Ada Lovelace").wait_for()
        tab.get_by_role("link", name="Trends").click()
        tab.get_by_role("button", name="Ada Lovelace").click()
        tab.get_by_role("link", name="The entity over all documents").click()
        tab.get_by_role("heading", name="Ada Lovelace").wait_for()
        document(tab, "ada").wait_for()
        tab.context.close()


@pytest.mark.parametrize("browsing", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_on_a_phone_an_entity_of_a_very_long_name_is_read_and_merged_by_keyboard(
    stream: Stream, browsing: Browsing
) -> None:
    stream.create_topics()
    long = value_of("person" * 20, "x" * 10_000, 3, "y" * 5_000, aliases=("z" * 300, "w" * 9_000))
    other = value_of("person" * 20, f"{'x' * 60} the second", 1)
    stream.produce([(each["id"].encode(), dumps(each)) for each in (long, other)], topic=Topic.ENTITIES)
    with page_of(stream, browsing, "#entities") as tab:
        tab.locator(".entity-link").first.wait_for()

        def fits() -> None:
            assert tab.evaluate("document.documentElement.scrollWidth") <= 360
            assert tab.evaluate(NAMELESS) == []

        fits()
        tab.locator(".entity-link").first.click()
        tab.get_by_role("heading", name="Names joined in it").wait_for()
        fits()
        tab.get_by_role("button", name="Merge with").press("Enter")
        tab.get_by_role("radio").wait_for()  # found by a part of the name
        assert tab.evaluate(WIDER) == []
        tab.get_by_role("radio").press("Space")
        tab.get_by_role("button", name="Go on").press("Enter")
        tab.get_by_role("button", name="Merge them").press("Enter")
        tab.get_by_text("waiting for el4ner worker entities").first.wait_for()
        tab.locator(".decision-waiting").wait_for()
        fits()
    (decision,) = decisions_until_now(stream.settings.kafka)
    assert (decision.action, decision.name) == ("merge", f"{'x' * 60} the second")
