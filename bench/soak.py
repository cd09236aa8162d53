"""Does memory stay flat? A soak under steady load, and a slow engine in front of a long backlog.

    python bench/soak.py steady  [--minutes 15] [--rate N]              # documents per second
    python bench/soak.py backlog [--documents 1000000] [--minutes 10] [--delay-ms 20]

Both run one worker process a stage with the instant engine (`backlog`: with a pause in every call) and sample resident
memory and the join's size every few seconds. The report compares the second fifth of the time with the last one; what
came out is checked for documents that are lost or twice (`steady`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from aiokafka import AIOKafkaProducer
from load import Client, message, processes

from workers.config import StreamSettings, load_stream_settings
from workers.kafka import topic_admin
from workers.local.ports import choose_port
from workers.local.services import temporary_services
from workers.roles import STAGED_ROLES
from workers.topics import Topic, topic_name

EVERY_SECONDS = 5.0
OPEN = re.compile(r"^el4ner_join_open_documents ([0-9.e+]+)$", re.MULTILINE)
REMEMBERED = re.compile(r"^el4ner_join_remembered_documents ([0-9.e+]+)$", re.MULTILINE)
RESIDENT = re.compile(r"^process_resident_memory_bytes ([0-9.e+]+)$", re.MULTILINE)


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def value(pattern: re.Pattern[str], text: str) -> float:
    found = pattern.search(text)
    return float(found.group(1)) if found else 0.0


async def sample(ports: dict[str, int], seconds: float, stop: asyncio.Event) -> dict[str, list[float]]:
    """Resident MB of every stage, open and remembered documents, every few seconds."""
    series: dict[str, list[float]] = {name: [] for name in (*(f"{stage} MB" for stage in ports), "open", "remembered")}
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVERY_SECONDS):
                await stop.wait()
        for stage, port in ports.items():
            text = await asyncio.to_thread(scrape, port)
            series[f"{stage} MB"].append(value(RESIDENT, text) / 1e6)
            if stage == "aggregate":
                series["open"].append(value(OPEN, text))
                series["remembered"].append(value(REMEMBERED, text))
    return series


async def fill(settings: StreamSettings, count: int) -> float:
    """A backlog; its size in MB."""
    name = topic_name(settings.kafka, Topic.DOCUMENTS)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.servers, linger_ms=50, acks="all", max_batch_size=512 * 1024
    )
    await producer.start()
    size = 0
    try:
        for start in range(0, count, 10_000):
            sent = []
            for number in range(start, min(start + 10_000, count)):
                key, text = message("backlog", number, 0.0)
                size += len(text)
                sent.append(await producer.send(name, key=key, value=text))
            await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return size / 1e6


async def steady(
    settings: StreamSettings, ports: dict[str, int], seconds: float, rate: float
) -> dict[str, list[float]]:
    count = int(seconds * rate)
    async with Client(settings) as client:
        sampling = asyncio.create_task(sample(ports, seconds, asyncio.Event()))
        sending = asyncio.create_task(client.send("soak", count, rate))
        # Ends the program if one comes twice, or does not come.
        _, _, latencies = await client.seen("soak", count, seconds=seconds + 300)
        await sending
        latencies.sort()
        print(f"{count} documents in, {count} out, none twice; p99 {latencies[len(latencies) * 99 // 100]:.2f} s")
        return await sampling


def report(series: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    found = {}
    print(f"{'':16}{'second fifth':>14}{'last fifth':>12}{'most':>10}")
    for name, values in series.items():
        fifth = max(1, len(values) // 5)
        early, late = statistics.median(values[fifth : 2 * fifth]), statistics.median(values[-fifth:])
        found[name] = {"second_fifth": early, "last_fifth": late, "most": max(values)}
        print(f"{name:16}{early:14.0f}{late:12.0f}{max(values):10.0f}")
    return found


def run_worker(arguments: Sequence[str], delay: float) -> None:
    """The worker's command line, with an engine that takes its time."""
    from el4ner.engines.instant import InstantEngine

    asked = InstantEngine.score

    def slow(self: InstantEngine, requests: Sequence[object]) -> object:
        time.sleep(delay * len(requests))
        return asked(self, requests)  # type: ignore[arg-type]

    InstantEngine.score = slow  # type: ignore[method-assign,assignment]
    from workers.cli import main as cli

    sys.argv[1:] = arguments
    sys.exit(cli())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steady", "backlog", "worker"])
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--delay-ms", type=float, default=20.0, help="in every call, for every document")
    parser.add_argument("--json", type=Path)
    if sys.argv[1:2] == ["worker"]:
        run_worker(sys.argv[3:], float(sys.argv[2]))
        return
    options = parser.parse_args()
    minutes = options.minutes or (15.0 if options.what == "steady" else 10.0)
    with tempfile.TemporaryDirectory() as scratch, temporary_services(Path(scratch)) as services:
        settings = load_stream_settings(
            environ=services.environ(),
            overrides={"ensemble": {"preset": "instant"}, "kafka": {"topic_prefix": f"{options.what}-"}},
        )
        topic_admin.create(settings)
        if options.what == "backlog":
            began = time.monotonic()
            size = asyncio.run(fill(settings, options.documents))
            print(f"{options.documents} documents ({size:.0f} MB) wait, after {time.monotonic() - began:.0f} s")
        delay = options.delay_ms / 1000 if options.what == "backlog" else 0.0
        ports: dict[str, int] = {}
        commands = []
        for stage in STAGED_ROLES:
            ports[stage] = choose_port(taken=frozenset(ports.values()))
            commands.append([__file__, "worker", str(delay), "worker", stage, "--health-port", str(ports[stage])])
        os.environ["EL4NER_WORKER__REMEMBER_SECONDS"] = "60"
        with processes(commands, settings, Path(scratch)):
            if options.what == "steady":
                series = asyncio.run(steady(settings, ports, minutes * 60, options.rate))
            else:
                series = asyncio.run(sample(ports, minutes * 60, asyncio.Event()))
        found = report(series)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
