"""A real browser for the tests of the page: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
import pytest

from el4ner.pools import load_pool
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import taught_pool
from el4ner.serialize import dumps
from tests.chaos.plan import machine_slowness
from tests.integration.stream_harness import Stream, wait_until
from tests.support.running_page import RunningPage
from workers.topics import Topic

CHROMIUM = os.environ.get("EL4NER_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
BROWSER_MARKS = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, or EL4NER_CHROMIUM=PATH"),
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]
WAIT_MS = 60_000


class Browsing:
    """A page of the browser, and what its console complained of."""

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.complaints: list[str] = []
        tab.set_default_timeout(WAIT_MS)
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))
        tab.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        tab.on("request", lambda request: self._came_from(request.url))
        self.hosts: set[str] = set()

    def _came_from(self, url: str) -> None:
        self.hosts.add(url.split("/")[2])

    def open(self, url: str) -> Any:
        self.tab.goto(url)
        return self.tab

    def followed(self) -> None:
        """The page follows the topic: what is written from now on is shown."""
        self.tab.locator("#broker", has_text="Following").wait_for()


def write(stream: Stream, *values: dict[str, Any]) -> None:
    stream.produce([(value["id"].encode(), dumps(value)) for value in values], topic=Topic.TAGGED_DOCUMENTS)


def document(tab: Any, name: str) -> Any:
    return tab.locator(f'article[data-id="{name}"]')


@contextlib.contextmanager
def page_of(
    stream: Stream, browsing: Browsing, view: str = "", *, clock: Callable[[], float] = time.time, **ui: Any
) -> Iterator[Any]:
    """The page, opened, while it follows; nothing that it loads is of another host, and its console is silent."""
    stream.create_topics()
    with RunningPage(stream.settings, ui, clock) as page:
        tab = browsing.open(f"{page.url}/{view}")
        browsing.followed()
        yield tab
        assert browsing.complaints == []
        assert browsing.hosts == {page.url.split("/")[2]}
        # Before the server is: its streams end with it.
        tab.context.close()


def focused(tab: Any, what: str) -> Any:
    return tab.evaluate(f"(() => {{ const el = document.activeElement; return {what}; }})()")


def tab_to(tab: Any, selector: str, key: str = "Tab") -> None:
    for _ in range(80):
        tab.keyboard.press(key)
        if focused(tab, f"el.matches({orjson.dumps(selector).decode()})"):
            return
    raise AssertionError(f"{selector} is not reached by {key}")


def tab_back_to(tab: Any, selector: str) -> None:
    tab_to(tab, selector, "Shift+Tab")


def start_two_workers(stream: Stream) -> None:
    """And wait until both are ready."""
    for worker in (stream.start("pipeline"), stream.start("pipeline")):
        worker.wait_ready()


def teach_against_the_pool(lesson: Any) -> float:
    """Teach the sentence of an open lesson whose London the pool calls a location; when it was clicked."""
    lesson.get_by_role("button", name="Teach this sentence").click()
    lesson.get_by_text("the pool calls 'London' location").wait_for()
    clicked_at = time.time()
    lesson.get_by_role("button", name="Teach it all the same").click()
    return clicked_at


def wait_until_all_workers_know(stream: Stream, *examples: PoolExample) -> None:
    """What pool news was taught."""
    expected = pool_of(examples)
    rounds = itertools.count()

    def all_answer_by_it() -> bool:
        """A round of documents on all partitions, by which all workers answer."""
        prefix = f"round-{next(rounds)}-"
        stream.produce_documents([{"id": f"{prefix}{number}", "text": "London calls."} for number in range(40)])
        wait_until(lambda: len(of_round(prefix)) == 40, what="a round is answered")
        return {each["manifests"]["classify"]["pool_fingerprint"] for each in of_round(prefix)} == {expected}

    def of_round(prefix: str) -> list[Any]:
        return [each for each in stream.tagged() if each["id"].startswith(prefix)]

    wait_until(all_answer_by_it, what="all workers know the correction")


def assert_in_effect_within(seconds: float, stream: Stream, example: PoolExample, taught_at: float) -> None:
    """On every partition, by the time at which a document came out that was tagged by what was taught; on machines that
    are slower than the reference machine it may take longer by as much."""
    expected, first = pool_of([example]), {}
    for record in stream.read(Topic.TAGGED_DOCUMENTS):
        manifests = orjson.loads(record.value)["manifests"]
        if manifests.get("classify", {}).get("pool_fingerprint") == expected:
            first.setdefault(record.partition, record.timestamp / 1000)
    took = max(first.values()) - taught_at
    if took > seconds:
        assert took <= seconds * machine_slowness(), f"the correction was in effect after {took:.1f} s"


def pool_of(examples: Iterable[PoolExample]) -> str:
    """The fingerprint of pool news that was taught these."""
    return taught_pool(load_pool("news"), examples).pool.fingerprint
