"""How soon a correction is in effect: seconds from the click in the page until each of two workers answers by it.

    KAFKA_BOOTSTRAP_SERVERS=… REDIS_URL=… python bench/correction_seconds.py [--times 12] [--preset default]

Two workers (`el4ner worker pipeline`) tag with an ensemble's models, and the page is open in Debian's Chromium, driven
by Playwright. Each time a sentence comes in which a name is to be something else from now on. The name is corrected by
mouse, and counted from the click that teaches it. From then on documents of that text are written to the partition of
each worker, one each half second. The first one that was written after the click and answered rightly ends it, for that
worker: so each figure has the whole way of that document in it, from the topic to the page's topic. How long documents
take anyway is measured before each click. On a machine that other work shares seconds say little: so the processor time
of the workers from the click until both answer rightly is counted too, with the documents that they tag meanwhile.

The topics are of the run's own, and are deleted at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from playwright.async_api import Page, async_playwright

from workers.config import load_stream_settings
from workers.kafka import topic_admin
from workers.kafka.topic_admin import administering
from workers.topics import Topic, plan, topic_name

SENTENCES = (
    "Shares of {} rose after the merger was announced.",
    "A spokesman for {} declined to comment on the figures.",
    "{} opened a second factory near the river last spring.",
    "The minister thanked {} for its help during the flood.",
    "Nobody at {} had expected the strike to last so long.",
    "The court ordered {} to publish its accounts by March.",
)
NAMES = ("Jordan", "Victoria", "Phoenix", "Austin", "Columbia", "Madison")
TARGETS = ("organization", "event", "product")
EVERY_SECONDS = 0.5
PATIENCE_SECONDS = 120.0
START_SECONDS = 900.0
WORKERS = 2


class Stream:
    """Documents in, and tagged documents out, with when each came (monotonic seconds)."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self.came: dict[str, tuple[float, dict[str, Any]]] = {}
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Stream:
        servers = self._settings.kafka.bootstrap_servers
        self._producer = AIOKafkaProducer(bootstrap_servers=servers)
        self._consumer = AIOKafkaConsumer(
            topic_name(self._settings.kafka, Topic.TAGGED_DOCUMENTS),
            bootstrap_servers=servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        await self._producer.start()
        await self._consumer.start()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await self._consumer.stop()
        await self._producer.stop()

    async def _read(self) -> None:
        async for record in self._consumer:
            value = orjson.loads(record.value)
            async with self._news:
                self.came[value["id"]] = (time.monotonic(), value)
                self._news.notify_all()

    async def write(self, name: str, text: str, partition: int) -> None:
        value = json.dumps({"id": name, "text": text, "pool": "news"}).encode()
        topic = topic_name(self._settings.kafka, Topic.DOCUMENTS)
        await self._producer.send_and_wait(topic, value, name.encode(), partition=partition)

    async def answered(self, name: str, seconds: float = PATIENCE_SECONDS) -> tuple[float, dict[str, Any]]:
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: name in self.came)
        return self.came[name]


def type_of(value: dict[str, Any], name: str) -> str | None:
    return next((entity["type"] for entity in value["entities"] if entity["text"] == name), None)


async def correct(tab: Page, document: str, name: str, target: str, spent: Callable[[], float]) -> tuple[float, float]:
    """Teach the document's sentence with the name as that type; when the click was that taught it, and what was spent
    until then."""
    await tab.reload()  # while the list has the focus, new documents wait
    article = tab.locator(f'article[data-id="{document}"]')
    await article.get_by_role("button", name="Correct").click()
    lesson = tab.get_by_role("dialog")
    mark = lesson.locator(f'mark[aria-label^="{name}:"]')
    await lesson.locator("button.main").wait_for()
    if await mark.count():
        await mark.click()
    else:
        await lesson.get_by_label("words of the text to add").fill(name)
        await lesson.get_by_role("button", name="Find").click()
    await lesson.get_by_label("type", exact=True).select_option(target)
    clicked, before = time.monotonic(), spent()
    await lesson.get_by_role("button", name="Teach this sentence").click()
    sure = lesson.get_by_role("button", name="Teach it all the same")
    taught = lesson.get_by_text("Taught. Workers know it")
    await sure.or_(taught).wait_for()
    if await sure.count():
        clicked, before = time.monotonic(), spent()
        await sure.click()
        await taught.wait_for()
    await lesson.get_by_role("button", name="Close").click()
    return clicked, before


def used(workers: Sequence[psutil.Process]) -> float:
    """Seconds of processor time until now."""
    times = [worker.cpu_times() for worker in workers]
    return sum(each.user + each.system for each in times)


async def one(stream: Stream, tab: Page, workers: Sequence[psutil.Process], number: int) -> dict[str, Any]:
    name = NAMES[number % len(NAMES)]
    text = SENTENCES[(number + number // len(NAMES)) % len(SENTENCES)].format(name)
    usual = []
    for partition in range(WORKERS):
        document = f"before-{number}-{partition}"
        began = time.monotonic()
        await stream.write(document, text, partition)
        at, value = await stream.answered(document)
        usual.append(at - began)
    before = type_of(value, name)
    target = next(each for each in TARGETS[number % len(TARGETS) :] + TARGETS if each != before)
    clicked, spent = await correct(tab, document, name, target, lambda: used(workers))
    seconds = await asyncio.gather(*(until_right(stream, text, name, target, p, clicked) for p in range(WORKERS)))
    row: dict[str, Any] = {"text": text, "before": before, "after": target, "usual": usual, "seconds": seconds}
    row["processor_seconds"] = used(workers) - spent
    print(json.dumps(row), flush=True)
    return row


async def until_right(stream: Stream, text: str, name: str, target: str, partition: int, clicked: float) -> float:
    """Seconds from the click until the partition's worker answers rightly."""
    asked: asyncio.Queue[str] = asyncio.Queue()
    writing = asyncio.create_task(write_on(stream, text, partition, asked))
    try:
        while True:
            at, value = await stream.answered(await asked.get())
            if type_of(value, name) == target:
                return at - clicked
            if at - clicked > PATIENCE_SECONDS:
                raise SystemExit(f"worker {partition} still answers {type_of(value, name)} for {name}: {text}")
    finally:
        writing.cancel()


async def write_on(stream: Stream, text: str, partition: int, asked: asyncio.Queue[str]) -> None:
    while True:
        document = f"after-{uuid.uuid4().hex[:12]}"
        await stream.write(document, text, partition)
        asked.put_nowait(document)
        await asyncio.sleep(EVERY_SECONDS)


@contextmanager
def process(
    command: list[str], environ: dict[str, str], ready: Path
) -> Iterator[tuple[psutil.Process, Callable[[], None]]]:
    """A command of ours, while it runs; and what waits until it is ready."""
    arguments = [sys.executable, "-m", "workers.cli", *command, "--ready-file", str(ready)]
    running = subprocess.Popen(arguments, env=environ, stderr=subprocess.DEVNULL)

    def wait() -> None:
        end = time.monotonic() + START_SECONDS
        while not ready.exists():
            if running.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{' '.join(command)} did not start")
            time.sleep(0.1)

    try:
        yield psutil.Process(running.pid), wait
    finally:
        running.terminate()
        running.wait(60)


async def measure(settings: Any, url: str, workers: Sequence[psutil.Process], times: int) -> list[dict[str, Any]]:
    async with async_playwright() as playwright, Stream(settings) as stream:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = await browser.new_page()
        tab.set_default_timeout(1000 * PATIENCE_SECONDS)
        await tab.goto(url)
        await tab.locator("#broker", has_text="Following").wait_for()
        for partition in range(WORKERS):  # each has its pool read
            await stream.write(f"first-{partition}", "It rained.", partition)
            await stream.answered(f"first-{partition}", START_SECONDS)
        rows = [await one(stream, tab, workers, number) for number in range(times)]
        await browser.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=12)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    prefix = f"bench-{uuid.uuid4().hex[:6]}."
    documents = f"{prefix}documents"
    settings = load_stream_settings(
        overrides={"kafka": {"topic_prefix": prefix, "documents_topic": documents, "partitions": WORKERS}}
    )
    topic_admin.create(settings)
    environ = {
        **os.environ,
        "EL4NER_KAFKA__TOPIC_PREFIX": prefix,
        "EL4NER_KAFKA__DOCUMENTS_TOPIC": documents,
        "EL4NER_ENSEMBLE__PRESET": options.preset,
    }
    try:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            root = Path(folder)
            started = []
            for number in range(WORKERS):
                own = {
                    **environ,
                    "EL4NER_WORKER__DATA_DIR": str(root / f"data-{number}"),
                    "EL4NER_WORKER__WEB_PORT": "0",
                }
                started.append(stack.enter_context(process(["worker", "pipeline"], own, root / f"worker-{number}")))
            workers = [worker for worker, _ in started]
            started.append(stack.enter_context(process(["ui", "--port", "0"], environ, root / "page")))
            for _, wait in started:
                wait()
            url = f"http://127.0.0.1:{(root / 'page').read_text().strip()}/"
            rows = asyncio.run(measure(settings, url, workers, options.times))
    finally:
        with administering(settings.kafka, client_id="bench") as admin:
            admin.delete_topics([planned.name for planned in plan(settings.kafka)])
    seconds = sorted(each for row in rows for each in row["seconds"])
    usual = sorted(each for row in rows for each in row["usual"])
    spent = sorted(row["processor_seconds"] / WORKERS for row in rows)
    result = {
        "corrections": len(rows),
        "seconds": {"median": statistics.median(seconds), "least": seconds[0], "most": seconds[-1]},
        "within_5_s": sum(each <= 5 for each in seconds) / len(seconds),
        "processor_seconds_a_worker": {"median": statistics.median(spent), "most": spent[-1]},
        "a_document_anyway": {"median": statistics.median(usual), "most": usual[-1]},
        "load": os.getloadavg(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps({**result, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
