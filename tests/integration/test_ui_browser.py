"""The page in a real browser, with a real broker: what people see and do.

Debian's Chromium, driven by Playwright. Without a browser every test is skipped, by name.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.browser_harness import (
    BROWSER_MARKS,
    Browsing,
    assert_in_effect_within,
    document,
    focused,
    page_of,
    start_two_workers,
    tab_back_to,
    tab_to,
    teach_against_the_pool,
    wait_until_all_workers_know,
    write,
)
from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_dlq import letter_to
from tests.support.cluster import KafkaCluster
from tests.support.running_page import RunningPage, tagged_value
from workers.kafka import topic_admin
from workers.teaching.topic_examples import taught_until_now
from workers.topics import Topic

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = BROWSER_MARKS

ADA = tagged_value("ada", "Ada Lovelace met Babbage in London.", ("Ada Lovelace", "person"), ("London", "location"))
ROME = tagged_value("rome", "It rained in Rome.", ("Rome", "location"))
HOSTILE_TEXT = (
    "<img src=x onerror='window.hacked=1'><script>window.hacked=2</script>"
    "\u202egpj.exe\u202c \x1b[31m Ada {{constructor}} javascript:alert(1) &lt;b&gt;"
)


def test_documents_of_the_stream_appear_with_their_entities_and_why(stream: Stream, browsing: Browsing) -> None:
    with page_of(stream, browsing) as tab:
        stream.start("all").wait_ready()
        stream.produce_documents([{"id": f"d{number}", "text": "Marie Curie went to Paris."} for number in range(3)])
        for number in range(3):
            document(tab, f"d{number}").wait_for()
        entity = document(tab, "d0").locator(".entity").first
        entity.hover()
        details = tab.locator("#details")
        details.wait_for()
        facts = details.inner_text()
        for words in ("proposed by", "instant-a says", "verdict", "confidence"):
            assert words in facts


def test_filters_show_what_fits_and_nothing_else(stream: Stream, browsing: Browsing) -> None:
    error = {"stage": "extract", "code": "json", "message": "no JSON"}
    failed = {**ROME, "id": "failed", "status": "failed", "text": None, "pool": None, "entities": [], "error": error}
    with page_of(stream, browsing) as tab:
        write(stream, ADA, ROME, failed)
        document(tab, "failed").wait_for()
        tab.get_by_role("checkbox", name="person").check()
        document(tab, "ada").wait_for()
        document(tab, "rome").wait_for(state="detached")
        assert document(tab, "ada").locator(".entity.wanted").inner_text().startswith("Ada Lovelace")
        write(stream, {**ROME, "id": "rome-2"}, {**ADA, "id": "ada-2"})
        document(tab, "ada-2").wait_for()
        assert document(tab, "rome-2").count() == 0
        tab.get_by_role("button", name="Reset").click()
        tab.get_by_label("Entity", exact=True).fill("rom")
        document(tab, "rome-2").wait_for()
        document(tab, "ada").wait_for(state="detached")
        tab.get_by_role("button", name="Reset").click()
        tab.get_by_label("Status").select_option("failed")
        document(tab, "failed").wait_for()
        document(tab, "rome").wait_for(state="detached")


def test_a_paused_page_shows_nothing_new_until_it_goes_on(stream: Stream, browsing: Browsing) -> None:
    with page_of(stream, browsing) as tab:
        write(stream, ADA)
        document(tab, "ada").wait_for()
        tab.get_by_role("button", name="Pause").click()
        tab.get_by_text("Paused: what comes now is not shown.").wait_for()
        write(stream, ROME)
        tab.wait_for_function("async () => (await (await fetch('/api/trends')).json()).mentions === 3")
        assert document(tab, "rome").count() == 0
        stream.produce([(b"ada", None)], topic=Topic.TAGGED_DOCUMENTS)
        document(tab, "ada").wait_for(state="detached")  # what is deleted disappears all the same
        write(stream, {**ROME, "revision": 1})
        tab.wait_for_function("async () => (await (await fetch('/api/trends')).json()).mentions === 4")
        tab.get_by_role("button", name="Go on").click()
        document(tab, "rome").filter(has_text="revision 1").wait_for()
        assert document(tab, "rome").count() == 1  # the one that it replaces is gone


def test_at_a_high_rate_it_shows_a_sample_says_so_and_stays_small(stream: Stream, browsing: Browsing) -> None:
    with page_of(stream, browsing) as tab:
        write(stream, *({**ADA, "id": f"d{number}"} for number in range(3_000)))
        tab.get_by_text("A sample:").wait_for()
        assert 0 < tab.locator("article").count() <= 100


def test_hostile_text_does_nothing_and_is_shown(stream: Stream, browsing: Browsing) -> None:
    hostile = tagged_value("<b>\u202eid", HOSTILE_TEXT, ("Ada", "<i>person\u202e"))
    with page_of(stream, browsing) as tab:
        write(stream, hostile)
        article = tab.locator("article").first
        article.wait_for()
        shown = article.locator(".text").inner_text()
        assert "<img src=x onerror='window.hacked=1'><script>window.hacked=2</script>" in shown
        assert "&lt;b&gt;" in shown
        assert article.locator(".control").all_inner_texts() == ["U+202E", "U+202C", "ESC"]
        assert "\u202e" not in article.inner_text()
        assert "\\u202e" in article.locator(".id").inner_text()
        article.locator(".entity").hover()
        assert "<i>person" in tab.locator("#details").inner_text()
        assert tab.locator("main img, main script, main b .hacked, main i").count() == 0
        assert tab.evaluate("window.hacked") is None


def test_all_of_it_is_reached_by_keyboard_alone(stream: Stream, browsing: Browsing) -> None:
    letter_to_send(stream)
    with page_of(stream, browsing) as tab:
        write(stream, ROME, ADA)
        document(tab, "ada").wait_for()
        document(tab, "rome").wait_for()
        tab_to(tab, "article")
        first = focused(tab, "el.dataset.id")
        tab.keyboard.press("ArrowDown")
        assert {first, focused(tab, "el.dataset.id")} == {"ada", "rome"}
        tab.keyboard.press("ArrowRight")
        assert focused(tab, "el.className").startswith("entity")
        assert "proposed by" in tab.locator("#details").inner_text()
        assert focused(tab, "el.getAttribute('aria-describedby')") == "details"
        tab.keyboard.press("Escape")
        assert tab.locator("#details").is_hidden()
        tab.keyboard.press("ArrowLeft")
        assert focused(tab, "el.tagName") == "ARTICLE"
        # A dead letter is sent again.
        tab.keyboard.press("Control+Home")
        tab.evaluate("document.querySelector('.skip').focus()")
        tab_to(tab, 'a[href="#letters"]')
        tab.keyboard.press("Enter")
        tab.get_by_role("button", name="0-0").wait_for()
        tab_to(tab, 'tbody input[type="checkbox"]')
        tab.keyboard.press("Space")
        tab.keyboard.press("Shift+Tab")
        tab_back_to(tab, "button.main")
        tab.keyboard.press("Enter")
        tab.get_by_role("dialog").wait_for()
        tab_to(tab, "dialog button.main")
        tab.keyboard.press("Enter")
        tab.get_by_text("1 message sent again.").wait_for()
    assert [record.value for record in stream.read(Topic.DOCUMENTS)] == [b"not JSON \x00"]


def test_what_a_letter_holds_is_shown_byte_for_byte_or_as_text(stream: Stream, browsing: Browsing) -> None:
    stream.create_topics()
    letter_to(stream, b"not JSON \x00<b>", partition=0)
    letter_to(stream, b"Z\xfcrich", partition=0, code="encoding")
    with page_of(stream, browsing, "#letters") as tab:
        tab.get_by_role("button", name="0-0").click()
        assert tab.get_by_role("dialog").locator(".letter-value").inner_text() == "not JSON NUL<b>"
        tab.get_by_role("button", name="Close").click()
        tab.get_by_role("button", name="0-1").click()
        tab.get_by_text("5a fc 72 69 63 68").wait_for()


def test_a_correction_by_mouse_is_in_effect_on_two_workers(stream: Stream, browsing: Browsing) -> None:
    with page_of(stream, browsing) as tab:
        start_two_workers(stream)
        write(stream, ADA)
        document(tab, "ada").locator(".entity", has_text="London").click()
        lesson = tab.get_by_role("dialog")
        lesson.get_by_label("type", exact=True).select_option("event")
        clicked_at = teach_against_the_pool(lesson)
        lesson.get_by_text("Taught. Workers know it within seconds.").wait_for()
        ((key, example),) = taught_until_now(stream.settings.kafka).items()
        assert (key.pool, example.text) == ("news", ADA["text"])
        assert [(span.text, kind) for span, kind in example.spans] == [("Ada Lovelace", "person"), ("London", "event")]
        wait_until_all_workers_know(stream, example)
        assert_in_effect_within(5, stream, example, clicked_at)
        lesson.get_by_role("button", name="Close").click()


def test_a_correction_takes_the_keyboard_alone(stream: Stream, browsing: Browsing) -> None:
    with page_of(stream, browsing) as tab:
        write(stream, ROME, ADA)
        document(tab, "ada").wait_for()
        document(tab, "rome").wait_for()
        tab_to(tab, "article")
        if focused(tab, "el.dataset.id") != "ada":
            tab.keyboard.press("ArrowDown")
        tab.keyboard.press("Enter")
        lesson = tab.get_by_role("dialog")
        lesson.get_by_role("button", name="It is right").wait_for()
        tab_to(tab, '[role="button"][aria-label^="London"]')
        tab.keyboard.press("Enter")
        tab_to(tab, ".lesson-tools button")
        tab.keyboard.press("Enter")
        lesson.get_by_role("button", name="London").wait_for(state="detached")
        tab_back_to(tab, 'input[aria-label="words of the text to add"]')
        tab.keyboard.type("babbage")
        tab.keyboard.press("Enter")
        lesson.get_by_label("type", exact=True).wait_for()
        tab.keyboard.type("person")
        tab_to(tab, "button.main")
        tab.keyboard.press("Enter")
        tab.locator(".doubts button.main:focus").wait_for()
        tab.keyboard.press("Enter")
        lesson.get_by_text("Taught.").wait_for()
        (example,) = taught_until_now(stream.settings.kafka).values()
        assert [(span.text, kind) for span, kind in example.spans] == [
            ("Ada Lovelace", "person"),
            ("Babbage", "person"),
        ]
        tab.keyboard.press("Escape")
        lesson.wait_for(state="detached")


def test_text_that_is_selected_becomes_an_entity(stream: Stream, browsing: Browsing) -> None:
    emoji = tagged_value("emoji", "😀 Then Zorkowitz\u202e spoke.")
    with page_of(stream, browsing) as tab:
        write(stream, emoji)
        document(tab, "emoji").get_by_role("button", name="Correct").click()
        lesson = tab.get_by_role("dialog")
        lesson.get_by_role("button", name="It is right").wait_for()
        # As a person does it: a double click on the word.
        at = tab.evaluate(WORD, "Zorkowitz")
        tab.mouse.dblclick(at["x"], at["y"])
        lesson.get_by_label("type", exact=True).select_option("person")
        lesson.get_by_role("button", name="Teach this sentence").click()
        lesson.get_by_text("Taught.").wait_for()
        (example,) = taught_until_now(stream.settings.kafka).values()
        assert [(span.text, kind) for span, kind in example.spans] == [("Zorkowitz", "person")]


WORD = """(word) => {
  const walker = document.createTreeWalker(document.querySelector('dialog .text'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const at = walker.currentNode.textContent.indexOf(word);
    if (at < 0) continue;
    const range = document.createRange();
    range.setStart(walker.currentNode, at);
    range.setEnd(walker.currentNode, at + word.length);
    const box = range.getBoundingClientRect();
    return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
  }
  return null;
}"""


def test_a_document_is_confirmed_as_right_but_for_what_the_pool_calls_otherwise(
    stream: Stream, browsing: Browsing
) -> None:
    text = "Zorko painted Vexmoor. It rained. Ann flew to London."
    with page_of(stream, browsing) as tab:
        write(stream, tagged_value("long", text, ("Zorko", "person"), ("Ann", "person"), ("London", "person")))
        document(tab, "long").get_by_role("button", name="Correct").click()
        lesson = tab.get_by_role("dialog")
        lesson.get_by_role("button", name="Teach all 3 sentences as they are marked").click()
        lesson.get_by_text("Taught 2 of 3 sentences. The pool disagrees with the rest.").wait_for()
        lesson.get_by_text("the pool calls 'London' location").wait_for()
        assert {example.text for example in taught_until_now(stream.settings.kafka).values()} == {
            "Zorko painted Vexmoor.",
            "It rained.",
        }
        # Who is sure says so, by the key that lies nearest.
        tab.locator(".doubts button.main:focus").wait_for()
        tab.keyboard.press("Enter")
        lesson.get_by_text("Taught. Workers know it within seconds.").wait_for()
        examples = taught_until_now(stream.settings.kafka).values()
        assert {(span.text, kind) for example in examples for span, kind in example.spans} == {
            ("Zorko", "person"),
            ("Ann", "person"),
            ("London", "person"),
        }


def test_a_new_type_is_made_on_the_page_and_known_to_running_workers(stream: Stream, browsing: Browsing) -> None:
    with page_of(stream, browsing) as tab:
        start_two_workers(stream)
        write(stream, ADA)
        document(tab, "ada").locator(".entity", has_text="London").click()
        lesson = tab.get_by_role("dialog")
        lesson.get_by_label("type", exact=True).select_option(label="a new type …")
        assert focused(tab, "el.getAttribute('aria-label')") == "name of the new type"
        tab.keyboard.type("city")
        tab.keyboard.press("Tab")
        tab.keyboard.type("a place with streets and a mayor")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        lesson.get_by_role("button", name="London: city").wait_for()
        teach_against_the_pool(lesson)
        lesson.get_by_text("Taught. Workers know it within seconds.").wait_for()
        (example,) = taught_until_now(stream.settings.kafka).values()
        assert example.types == {"city": "a place with streets and a mayor"}
        wait_until_all_workers_know(stream, example)  # nobody was started again
        # Whoever opens the next lesson may choose it.
        lesson.get_by_role("button", name="Close").click()
        document(tab, "ada").locator(".entity", has_text="Ada").click()
        assert "city" in lesson.get_by_label("type", exact=True).inner_text()


def test_trends_lead_to_documents(stream: Stream, browsing: Browsing) -> None:
    with page_of(stream, browsing) as tab:
        write(stream, ADA, {**ADA, "id": "ada-2"}, ROME)
        document(tab, "rome").wait_for()
        document(tab, "ada-2").wait_for()
        tab.get_by_role("link", name="Trends").click()
        tab.get_by_role("button", name="Ada Lovelace").click()
        document(tab, "ada-2").wait_for()
        assert tab.locator("article").count() == 2
        tab.get_by_label("Type").select_option("location")
        tab.get_by_role("button", name="Ada Lovelace").wait_for(state="detached")
        tab.get_by_role("button", name="Rome").wait_for()


def test_health_says_what_runs_and_what_does_not_answer(stream: Stream, browsing: Browsing) -> None:
    stream.create_topics()
    stream.start("all").wait_ready()
    stream.produce_documents([{"id": "d", "text": "Marie Curie went to Paris."}])
    stream.wait_tagged(1)
    wait_until(lambda: stream.committed("extract"), what="offsets are committed")
    with page_of(stream, browsing, "#health", metrics_urls=["http://127.0.0.1:1/metrics"]) as tab:
        tab.get_by_text("does not answer").wait_for()
        tab.get_by_role("cell", name="extract", exact=True).wait_for()


def test_a_reader_logs_in_and_sends_nothing_again(stream: Stream, browsing: Browsing) -> None:
    letter_to_send(stream)
    with RunningPage(stream.settings, {"reader_token": "r" * 20, "teacher_token": "t" * 20}) as page:
        tab = browsing.open(f"{page.url}/#letters")
        tab.get_by_label("Token").fill("wrong")
        tab.get_by_role("button", name="Log in").click()
        tab.get_by_text("this is no token of this page").wait_for()
        tab.get_by_label("Token").fill("r" * 20)
        tab.keyboard.press("Enter")
        tab.get_by_role("button", name="0-0").wait_for()
        assert tab.get_by_role("button", name="Send again").count() == 0
        assert tab.get_by_role("checkbox").count() == 0
        other = tab.context.new_page()
        other.goto(page.url)
        other.get_by_role("button", name="Log out").click()
        other.get_by_label("Token").wait_for()
        tab.get_by_label("Token").wait_for()  # the session is over there too
        tab.context.close()


def test_a_lost_broker_shows_and_heals(tmp_path: Path, browsing: Browsing) -> None:
    with KafkaCluster(tmp_path / "cluster", nodes=1, environ=os.environ) as cluster:
        stream = Stream(cluster.bootstrap, "redis://127.0.0.1:1", "b.", tmp_path)
        topic_admin.create(stream.settings)
        with RunningPage(stream.settings) as page:
            tab = browsing.open(page.url)
            browsing.followed()
            write(stream, ADA)
            document(tab, "ada").wait_for()
            cluster.kill(1)
            tab.locator("#broker", has_text="Broker lost").wait_for()
            assert "no answer from Kafka at" in tab.locator("#banner").inner_text()
            assert document(tab, "ada").is_visible()
            cluster.start()
            browsing.followed()
            assert tab.locator("#banner").is_hidden()
            write(stream, ROME)
            document(tab, "rome").wait_for()
            assert browsing.complaints == []
            tab.context.close()


VIEWS = ("live", "trends", "review", "try", "letters", "health")


@pytest.mark.parametrize(
    "browsing",
    [{"viewport": {"width": 360, "height": 740}, "color_scheme": scheme} for scheme in ("light", "dark")],
    indirect=True,
    ids=["light", "dark"],
)
def test_on_a_phone_nothing_is_cut_off_everything_has_a_name_and_colours_are_readable(
    stream: Stream, browsing: Browsing
) -> None:
    letter_to_send(stream)
    with page_of(stream, browsing, metrics_urls=["http://127.0.0.1:1/metrics"]) as tab:
        write(stream, ADA)
        document(tab, "ada").wait_for()
        for view in VIEWS:
            tab.evaluate("view => { location.hash = view }", view)
            tab.locator(f'#views a[href="#{view}"][aria-current]').wait_for()
            tab.locator("main h1").wait_for()
            assert tab.evaluate("document.documentElement.scrollWidth") <= 360, view
            assert tab.evaluate(NAMELESS) == [], view
        contrasts = tab.evaluate(CONTRASTS)
        assert len(contrasts) >= 20
        assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}


NAMELESS = """() => [...document.querySelectorAll('button, input, select, textarea, a, dialog[open], svg[role]')]
  .filter((el) => el.checkVisibility() && !((el.getAttribute('aria-label') ?? '') + el.textContent
    + [...(el.labels ?? [])].map((label) => label.textContent).join('')).trim())
  .map((el) => el.outerHTML)"""

CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const light = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((each) => each / 255)
      .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const found = {};
  const look = (name, className, text = className) => {
    const el = document.createElement('span');
    el.className = className;
    document.body.append(el);
    const style = getComputedStyle(el);
    found[name] = ratio(style.color, style.backgroundColor);
    el.remove();
  };
  for (let hue = 0; hue < 12; hue += 1) look(`hue ${hue}`, `entity hue-${hue}`);
  for (const state of ['', ' following', ' lost']) look(`pill${state}`, `pill${state}`);
  look('control', 'control');
  look('banner', 'banner');
  const root = getComputedStyle(document.documentElement);
  const mix = (name, on) => {
    const el = document.createElement('span');
    el.style.color = `var(${name})`;
    el.style.backgroundColor = `var(${on})`;
    document.body.append(el);
    const style = getComputedStyle(el);
    found[`${name} on ${on}`] = ratio(style.color, style.backgroundColor);
    el.remove();
  };
  for (const ink of ['--ink', '--quiet', '--accent', '--bad', '--warn', '--good'])
    for (const ground of ['--ground', '--card']) mix(ink, ground);
  mix('--on-accent', '--accent');
  return found;
}"""


def letter_to_send(stream: Stream) -> None:
    stream.create_topics()
    letter_to(stream, b"not JSON \x00", partition=0)
