"""What the page's views show, in a real browser, of a real stream: filters, trends, texts that are tried, health.

Debian's Chromium, driven by Playwright. Without a browser every test is skipped, by name.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from el4ner.evidence.stream_mix import MixReport, StreamMix
from tests.integration.browser_harness import BROWSER_MARKS, Browsing, document, page_of, tab_to, write
from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_ui_browser import ADA, ROME
from tests.support.http_service import RunningService, service_settings
from workers.telemetry.metrics import Metrics
from workers.telemetry.mixes import observe_mixes
from workers.topics import Topic

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = BROWSER_MARKS


def of_confidence(value: dict[str, Any], confidence: float, **more: Any) -> dict[str, Any]:
    return {**value, "entities": [{**entity, "confidence": confidence} for entity in value["entities"]], **more}


def test_documents_are_filtered_by_pool_and_by_confidence_with_the_keyboard_alone(
    stream: Stream, browsing: Browsing
) -> None:
    with page_of(stream, browsing) as tab:
        log = of_confidence(ROME, 0.9, id="log", pool="logs")
        write(stream, of_confidence(ADA, 0.4), of_confidence(ROME, 0.9), log)
        for name in ("ada", "rome", "log"):
            document(tab, name).wait_for()
        tab_to(tab, "#confidence")
        for _ in range(10):
            tab.keyboard.press("ArrowRight")
        document(tab, "ada").wait_for(state="detached")
        assert tab.locator("#confidence").get_attribute("aria-valuetext") == "50% or more"
        document(tab, "rome").wait_for()
        tab_to(tab, "#pool")
        tab.keyboard.type("logs")
        document(tab, "rome").wait_for(state="detached")
        document(tab, "log").wait_for()
        write(stream, of_confidence(ROME, 0.9, id="other"), of_confidence(ROME, 0.2, id="unsure", pool="logs"))
        write(stream, of_confidence(ROME, 0.6, id="sure", pool="logs"))
        document(tab, "sure").wait_for()
        assert document(tab, "other").count() == document(tab, "unsure").count() == 0


def test_trends_are_of_minutes_hours_and_a_day_and_say_what_rises(stream: Stream, browsing: Browsing) -> None:
    later = 0.0

    def clock() -> float:
        return time.time() + later

    def panel(title: str) -> list[str]:
        cards = tab.locator(".card").filter(has=tab.get_by_role("heading", name=title))
        return [name.strip() for name in cards.locator("tbody button").all_inner_texts()]

    with page_of(stream, browsing, "#trends", clock=clock) as tab:
        write(stream, ROME, {**ROME, "id": "rome-2"}, {**ROME, "id": "rome-3"})
        tab.get_by_role("button", name="Rome").wait_for()
        tab.get_by_text("What rises is known when there is a time before to compare with.").wait_for()
        # Seven minutes later others are spoken of.
        later = 420.0
        write(stream, *({**ADA, "id": f"ada-{number}"} for number in range(4)))
        tab.get_by_role("button", name="Ada Lovelace").first.wait_for()
        wait_until(lambda: panel("Rising") == ["Ada Lovelace", "London"], what="they rise")
        assert panel("Most mentioned") == ["London", "Ada Lovelace"]
        for hours in ("1 hour", "24 hours"):
            tab.get_by_role("button", name=hours).click()
            tab.get_by_role("button", name="Rome").wait_for()
            assert panel("Most mentioned") == ["London", "Ada Lovelace", "Rome"]
        tab.get_by_label("Type").select_option("person")
        tab.get_by_role("button", name="Rome").wait_for(state="detached")
        assert panel("Most mentioned") == ["Ada Lovelace"]


def test_a_text_is_tried_in_a_pool_and_says_why_and_is_no_document_of_the_stream(
    stream: Stream, browsing: Browsing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EL4NER_CACHE_DIR", str(tmp_path / "cache"))
    with RunningService(service_settings()) as service, page_of(stream, browsing, "#try", serve_url=service.url) as tab:
        tab.get_by_text("types: ").wait_for()
        tab.get_by_label("Text", exact=True).fill("Failed password for <b>root</b> from 10.0.0.7\u202e port 22")
        tab.get_by_label("Pool", exact=True).select_option("logs")
        tab.get_by_text("ip-address").wait_for()  # its types
        tab.get_by_role("button", name="Find entities").click()
        tab.locator("article .entity").first.wait_for()
        article = tab.locator("article")
        assert "<b>root</b>" in "".join(article.locator(".text [data-start]").all_inner_texts())
        assert article.locator(".control").all_inner_texts() == ["U+202E"]
        assert article.locator(".document-head .tag").inner_text() == "logs"
        why = tab.locator(".reason").first.inner_text()
        for words in ("confidence", "proposed by", "instant-a says", "verdict", "logs, "):
            assert words in why
        assert tab.locator(".reason").count() == article.locator(".entity").count()
        assert stream.ends(Topic.DOCUMENTS) == 0


@contextlib.contextmanager
def exposed(metrics: Metrics) -> Iterator[str]:
    """The address at which these are scraped."""

    class Exposition(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(metrics.exposition()[0])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Exposition) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()


@pytest.mark.parametrize("stream", [{"worker": {"web_port": 0}}], indirect=True)
def test_health_shows_a_workers_rates_repeats_failures_and_drift(stream: Stream, browsing: Browsing) -> None:
    stream.create_topics()
    worker = stream.start("all").wait_ready()
    port = next(line["port"] for line in worker.lines() if "port" in line)
    url = f"http://127.0.0.1:{port}/metrics"

    def table(title: str) -> dict[str, str]:
        """Its rows, by their first cell."""
        card = tab.locator(".card").filter(has=tab.get_by_role("heading", name=title))
        rows = [row.locator("td").all_inner_texts() for row in card.locator("tbody tr").all()]
        return {first: " | ".join(rest) for first, *rest in rows}

    def tile(title: str) -> str:
        cards = tab.locator(".tile").filter(has=tab.get_by_text(title, exact=True))
        return str(cards.locator("b").inner_text())

    # Engines that answer at once say nothing of how often a type is to be expected: a worker that measured it.
    of_stream = {"date": 0.1, "location": 0.3, "person": 0.6}
    of_pool = {"date": 0.2, "location": 0.7, "person": 0.1}
    mix = MixReport(of_stream, of_pool, 0.25, 500.0, True)
    measured = Metrics(version="1")
    observe_mixes(measured, lambda: {"news": cast(StreamMix, SimpleNamespace(report=mix))})
    with exposed(measured) as other, page_of(stream, browsing, "#health", metrics_urls=[url, other]) as tab:
        tab.get_by_text("answers", exact=True).nth(1).wait_for()
        texts = [f"Marie Curie{number} of Norvik{number} went to Paris{number} in May." for number in range(300)]
        stream.produce_documents([{"id": f"d{number}", "text": text} for number, text in enumerate(texts)])
        stream.produce_documents([{"id": f"again{number}", "text": text} for number, text in enumerate(texts)])
        stream.produce([(b"broken", b"this is not JSON")])
        stream.wait_tagged(601)
        wait_until(lambda: tile("Documents") not in ("–", "0/s"), what="a rate")
        wait_until(lambda: table("Failures").get("extract") == "json | 1", what="the failure")
        wait_until(lambda: table("Stages").keys() >= {"extract", "classify", "validate", "aggregate"}, what="stages")
        for stage in ("extract", "classify", "validate"):
            assert "ms" in table("Stages")[stage] or " s" in table("Stages")[stage]  # half of them in …
        repeats = table("Known already")["Sentences that repeat: no model was asked"]
        assert 30 <= int(repeats.rstrip("%")) <= 70, repeats
        assert tile("Repeats") == repeats
        drift = {pool: " ".join(words.split()) for pool, words in table("Drift of types").items()}
        assert drift["news"] == "0.250 bits | person 60%, pool 10% location 30%, pool 70% date 10%, pool 20%"
        assert drift["logs"] in ("– | not read yet", "– | too few entities seen yet")  # it may be read ahead
        assert tab.locator(".chart canvas").count() == 3
        assert table("Lag").keys() >= {"extract", "classify", "validate", "aggregate"}
