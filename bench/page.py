"""What ``el4ner ui`` takes while the stream writes a thousand documents a second: processor and memory, in the server
and in a browser that looks at Live, and at Review in a second tab.

    KAFKA_BOOTSTRAP_SERVERS=… python bench/page.py [--rate 1000] [--minutes 10] [--looks 20] [--json FILE]

The documents are the demo's, as the instant engine tags them, under ids of their own, each with a sentence about a name
that few others have: of texts that are all known the page would have nothing to count, or to review. They are written
by this process to topics of their own, which are deleted at the end. The browser is Debian's Chromium, driven by
Playwright.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

import psutil
from aiokafka import AIOKafkaProducer
from playwright.async_api import async_playwright

from el4ner.config import Settings, load_settings
from el4ner.loader import load_pipeline
from el4ner.participation import STAGES
from el4ner.serialize import tagged_to_json
from el4ner.tagger import Tagger
from el4ner.types import Document, TaggedDocument
from workers.config import load_stream_settings
from workers.kafka import topic_admin
from workers.kafka.topic_admin import administering
from workers.topics import Topic, plan, topic_name

ID = b"@id@"
"""In the place of a document's id."""
NAMES = 5_000
"""Texts that differ."""


def values() -> list[bytes]:
    """Messages of ``tagged-documents``."""
    random = Random(3)
    tagged = demo()
    messages = []
    for number in range(NAMES):
        value = message(tagged_to_json(tagged[number % len(tagged)]))
        name = "".join(random.choice("bdfgklmnprstvz") + random.choice("aeiou") for _ in range(3)).title()
        text, start = f"{value['text']}\n{name} spoke.", len(value["text"]) + 1
        entity = {"start": start, "end": start + len(name), "text": name, "type": "person", "verdict": None}
        entity |= {
            "confidence": round(random.random(), 3),
            "proposed_by": ["instant-a"],
            "votes": {"instant-a": "person"},
        }
        value["id"] = ID.decode()
        messages.append(json.dumps({**value, "text": text, "entities": [*value["entities"], entity]}).encode())
    return messages


def demo() -> list[TaggedDocument]:
    """The demo's documents, tagged."""
    lines = (resources.files("el4ner") / "samples" / "demo.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    documents = [Document(str(number), item["text"], item.get("pool")) for number, item in enumerate(items)]
    settings = load_settings(Settings, environ={}, overrides={"ensemble": {"preset": "instant"}})
    with Tagger(load_pipeline(settings)) as tagger:
        return list(tagger.tag(documents))


def message(value: dict[str, Any]) -> dict[str, Any]:
    """With what the topic says beside the document."""
    manifest = {"mode": "scored", "members": {"instant-a": "1", "instant-b": "2"}, "prompt_version": "v1"}
    manifest |= {"pool": value["pool"], "pool_fingerprint": "0123456789abcdef", "retriever": "span-8"}
    made = {"manifests": dict.fromkeys(STAGES, manifest), "revision": 0}
    return {**value, **made, "status": "complete", "missing": [], "error": None}


async def write(settings: Any, messages: list[bytes], rate: float, stop: asyncio.Event) -> int:
    """Until ``stop``; how many."""
    topic = topic_name(settings.kafka, Topic.TAGGED_DOCUMENTS)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, linger_ms=20)
    await producer.start()
    began, sent = time.monotonic(), 0
    try:
        while not stop.is_set():
            while sent < rate * (time.monotonic() - began) and not stop.is_set():
                key = f"d{sent}".encode()
                await producer.send(topic, messages[sent % len(messages)].replace(ID, key, 1), key)
                sent += 1
            await asyncio.sleep(0.02)
    finally:
        await producer.stop()
    return sent


async def measure(settings: Any, url: str, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    messages, server, stop = values(), psutil.Process(pid), asyncio.Event()
    browser_path = shutil.which("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = await browser.new_page()
        await tab.goto(url)
        devtools = await tab.context.new_cdp_session(tab)
        writing = asyncio.create_task(write(settings, messages, options.rate, stop))
        await tab.locator("article").first.wait_for()
        review = await browser.new_page()
        await review.goto(f"{url}#review")
        await review.locator("article").first.wait_for()
        await asyncio.sleep(10)
        looks = []
        began, before = time.monotonic(), server.cpu_times()
        for _ in range(options.looks):
            await asyncio.sleep(60 * options.minutes / options.looks)
            await devtools.send("HeapProfiler.collectGarbage")
            heap = (await devtools.send("Runtime.getHeapUsage"))["usedSize"]
            nodes = (await devtools.send("Memory.getDOMCounters"))["nodes"]
            resident = server.memory_info().rss
            times = server.cpu_times()
            cores = (times.user + times.system - before.user - before.system) / (time.monotonic() - began)
            looks.append(
                {
                    "server_cores": cores,
                    "server_mb": resident / 2**20,
                    "browser_heap_mb": heap / 2**20,
                    "dom_nodes": nodes,
                }
            )
            print(json.dumps({key: round(value, 3) for key, value in looks[-1].items()}), flush=True)
        rate = await tab.locator("#rate").inner_text()
        note = await tab.locator(".sampling").inner_text()
        queue = await review.locator(".review > p.quiet").first.all_inner_texts()
        stop.set()
        sent = await writing
        await browser.close()
    return {
        "sent": sent,
        "the_page_says": [rate, note, *queue],
        "first": looks[0],
        "last": looks[-1],
        "looks": looks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1_000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--looks", type=int, default=20, help="so often memory is looked at")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    prefix = f"bench-{uuid.uuid4().hex[:6]}."
    documents = f"{prefix}documents"
    settings = load_stream_settings(overrides={"kafka": {"topic_prefix": prefix, "documents_topic": documents}})
    topic_admin.create(settings)
    try:
        with tempfile.TemporaryDirectory() as folder:
            port = Path(folder) / "port"
            command = [sys.executable, "-m", "workers.cli", "ui", "--port", "0", "--ready-file", str(port)]
            environ = {
                **os.environ,
                "EL4NER_KAFKA__TOPIC_PREFIX": prefix,
                "EL4NER_KAFKA__DOCUMENTS_TOPIC": documents,
            }
            process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
            try:
                while not port.exists():
                    if process.poll() is not None:
                        raise SystemExit(f"the page ended with status {process.returncode}")
                    time.sleep(0.05)
                url = f"http://127.0.0.1:{port.read_text().strip()}/"
                result = asyncio.run(measure(settings, url, process.pid, options))
            finally:
                process.terminate()
                process.wait(30)
    finally:
        with administering(settings.kafka, client_id="bench") as admin:
            admin.delete_topics([planned.name for planned in plan(settings.kafka)])
    print(json.dumps({key: value for key, value in result.items() if key != "looks"}, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
