"""Load: documents per second through both topologies, and latency at half of that load.

    python bench/load.py [--documents N] [--processes 1 2] [--json OUT]
    python bench/load.py --partitions 1 2 4 8 16 [--rounds 3] [--documents N] [--processes 1 2] [--json OUT]
    python bench/load.py --lines FILE... [--first 4000] [--ensemble default] [--documents N] [--processes 1]

The stages apart (a process each, then two), and ``el4ner worker pipeline`` (one process, then two), with the engine
that answers at once; against bare aiokafka chains in the same run: consume and produce over the same topics, with
nothing done to the messages: no join, no validation, no state, no headers. They are the most that this broker, this
client and these cores can do, not a pipeline. Of four hops (documents → span-candidates → typed-entities →
validation-verdicts → tagged-documents) one chain has all in one process, with aiokafka's own settings but for acks and
idempotence; the other one a process a hop, and larger batches. The chain of one hop has the larger batches. The broker
and all clients share the machine.

Before that, the ceiling of a worker process: ``Pipeline.tag`` with the same texts and engine in one thread, without a
stream around it, and how much of that the engine's own answers take (`method_rate.py`).

``--partitions``: throughput alone, of both topologies over topics of so many partitions, by turns in so many rounds,
with the workers' processor time for a document (which says more where other programs run).

``--lines FILE...``: log lines through ``el4ner worker pipeline`` alone, with real models. The files' lines are gone
through again and again, each time with other addresses, ports, process ids and times (as `log_rate.py` does it). The
first ``--first`` are not counted: after them most templates are known. Latency is measured at half of the load, and at
2,000 lines a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from log_rate import varied
from logs import read_lines
from method_rate import method_alone

from workers.config import StreamSettings, load_stream_settings
from workers.kafka import topic_admin
from workers.local.services import temporary_services
from workers.roles import PIPELINE, STAGED_ROLES
from workers.topics import Topic, topic_name

HOPS = (
    (Topic.DOCUMENTS, Topic.SPAN_CANDIDATES),
    (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES),
    (Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS),
    (Topic.VALIDATION_VERDICTS, Topic.TAGGED_DOCUMENTS),
)
ONE_HOP = ((Topic.DOCUMENTS, Topic.TAGGED_DOCUMENTS),)
TEXT = "The minister met Ada Lovelace of Analytical Engines in London on Tuesday, before the Trade Summit."
WARM_UP = 500


Texts = Callable[[int], dict[str, str]]
"""The text and the pool of a document, by its number."""


def prose(number: int) -> dict[str, str]:
    """A sentence that was seen before, and one that is new."""
    return {"text": f"{TEXT} Note {number}.", "pool": "news"}


def log_lines(files: Sequence[Path]) -> Texts:
    """The files' lines, again and again, hardly a text twice."""
    lines = [line for file in files for line in read_lines(file, None)]
    rng = random.Random(0)
    rng.shuffle(lines)
    return lambda number: {"text": varied(lines[number % len(lines)], rng), "pool": "logs"}


def message(run: str, number: int, now: float, texts: Texts) -> tuple[bytes, bytes]:
    """Key and value; when it was sent travels in its metadata, so that latency is by one clock."""
    name = f"{run}-{number}"
    return name.encode(), orjson.dumps({"id": name, **texts(number), "metadata": {"sent": now}})


@contextlib.contextmanager
def processes(
    commands: Sequence[list[str]], settings: StreamSettings, folder: Path, ensemble: str = "instant"
) -> Iterator[list[int]]:
    """Processes that are ready when they have touched the file after ``--ready-file``; their ids."""
    environ = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "EL4NER_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "EL4NER_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "EL4NER_KAFKA__PARTITIONS": str(settings.kafka.partitions),
        "EL4NER_REDIS__URL": settings.redis.url,
        "EL4NER_ENSEMBLE__PRESET": ensemble,
        "EL4NER_WORKER__DATA_DIR": str(folder / "workers"),
        "EL4NER_WORKER__LOG_FORMAT": "json",
    }
    running: list[tuple[subprocess.Popen[bytes], Path, Path]] = []
    try:
        for command in commands:
            name = f"{settings.kafka.topic_prefix}{len(running)}"
            ready, log = folder / f"ready-{name}", folder / f"{name}.log"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [sys.executable, *command, "--ready-file", str(ready)],
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
            running.append((process, ready, log))
        while not all(ready.exists() for _, ready, _ in running):
            for process, _, log in running:
                if process.poll() is not None:
                    sys.exit(f"a process ended: {log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield [process.pid for process, _, _ in running]
    finally:
        for process, _, _ in running:
            process.terminate()
        for process, _, _ in running:
            process.wait(timeout=60)


class Client:
    """Produces documents and sees them come out."""

    def __init__(self, settings: StreamSettings, texts: Texts = prose) -> None:
        self._settings = settings
        self._texts = texts
        self._documents = topic_name(settings.kafka, Topic.DOCUMENTS)
        self._tagged = topic_name(settings.kafka, Topic.TAGGED_DOCUMENTS)

    async def __aenter__(self) -> Client:
        servers = self._settings.kafka.servers
        self._producer = AIOKafkaProducer(
            bootstrap_servers=servers, linger_ms=5, acks="all", enable_idempotence=True, max_batch_size=256 * 1024
        )
        self._consumer = AIOKafkaConsumer(
            self._tagged, bootstrap_servers=servers, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        await self._producer.start()
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._producer.stop()

    async def send(self, run: str, count: int, rate: float | None) -> None:
        """``rate`` documents a second; None: as fast as it goes."""
        began = time.perf_counter()
        sent = []
        for number in range(count):
            if rate is not None:
                await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            key, value = message(run, number, time.time(), self._texts)
            sent.append(await self._producer.send(self._documents, key=key, value=value))
        await asyncio.gather(*sent)

    async def seen(self, run: str, count: int, *, seconds: float = 600.0) -> tuple[float, float, list[float]]:
        """When the first and the last document of a run came out (perf_counter), and every latency in seconds."""
        ids: set[bytes] = set()
        latencies: list[float] = []
        first = last = 0.0
        prefix = f"{run}-".encode()
        deadline = time.monotonic() + seconds
        while len(ids) < count:
            if time.monotonic() > deadline:
                sys.exit(f"{run}: {len(ids)} of {count} documents came out in {seconds:g} s")
            for records in (await self._consumer.getmany(timeout_ms=50)).values():
                now = time.time()
                for record in records:
                    if record.key is None or not record.key.startswith(prefix):
                        continue
                    if record.key in ids:
                        sys.exit(f"{record.key.decode()} came out twice")
                    ids.add(record.key)
                    last = time.perf_counter()
                    first = first or last
                    latencies.append(now - orjson.loads(record.value)["metadata"]["sent"])
        return first, last, latencies

    async def throughput(self, run: str, count: int) -> float:
        """Documents per second, from the first one sent to the last one out."""
        began = time.perf_counter()
        sending = asyncio.create_task(self.send(run, count, None))
        _, last, _ = await self.seen(run, count)
        await sending
        return count / (last - began)

    async def latencies(self, run: str, count: int, rate: float) -> list[float]:
        """Seconds from sent to seen, at that load, sorted."""
        sending = asyncio.create_task(self.send(run, count, rate))
        _, _, latencies = await self.seen(run, count)
        await sending
        return sorted(latencies)


async def chain(bootstrap: str, hops: Sequence[tuple[str, str]], ready: Path, batch: int) -> None:
    """Hops of a bare chain, for ever."""
    joined = [asyncio.Event() for _ in hops]
    tasks = [
        asyncio.create_task(hop(bootstrap, source, target, event, batch))
        for (source, target), event in zip(hops, joined, strict=True)
    ]
    await asyncio.gather(*(event.wait() for event in joined))
    await asyncio.to_thread(ready.touch)
    await asyncio.gather(*tasks)


async def hop(bootstrap: str, source: str, target: str, joined: asyncio.Event, batch: int) -> None:
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=bootstrap,
        group_id=f"bare-{source}",
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, linger_ms=5, acks="all", enable_idempotence=True, max_batch_size=batch
    )
    await consumer.start()
    await producer.start()
    while not consumer.assignment():  # noqa: ASYNC110  # aiokafka tells nobody
        await asyncio.sleep(0.05)
    joined.set()
    while True:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            sent = [
                await producer.send(target, key=one.key, value=one.value, partition=one.partition) for one in records
            ]
            await asyncio.gather(*sent)
        await consumer.commit()


async def measure(settings: StreamSettings, run: str, documents: int) -> dict[str, float]:
    async with Client(settings) as client:
        await client.throughput(f"{run}-warm", WARM_UP)
        rate = await client.throughput(run, documents)
        return {"documents_per_second": rate, **await at_load(client, f"{run}-half", rate / 2)}


async def measure_lines(
    settings: StreamSettings, texts: Texts, documents: int, first: int, rates: Sequence[float]
) -> dict[str, Any]:
    async with Client(settings, texts) as client:
        await client.throughput("lines-first", first)
        rate = await client.throughput("lines", documents)
        loads = [rate / 2, *rates]
        return {
            "lines_per_second": rate,
            "latency": [{"per_second": load, **await at_load(client, f"at-{load:.0f}", load)} for load in loads],
        }


async def measure_partitions(settings: StreamSettings, documents: int, pids: Sequence[int]) -> dict[str, float]:
    """Documents a second, and the workers' milliseconds of processor time for a document."""
    async with Client(settings) as client:
        await client.throughput("warm", WARM_UP)
        before = processor_seconds(pids)
        rate = await client.throughput("load", documents)
        spent = processor_seconds(pids) - before
        return {"documents_per_second": rate, "worker_milliseconds": 1e3 * spent / documents}


def processor_seconds(pids: Sequence[int]) -> float:
    """Of these processes so far."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(user) + int(system) for user, system in (each[11:13] for each in fields)) / os.sysconf("SC_CLK_TCK")


async def at_load(client: Client, run: str, rate: float) -> dict[str, float]:
    latencies = await client.latencies(run, max(200, int(rate * 15)), rate)
    return {
        f"p{share}_seconds": latencies[min(len(latencies) - 1, len(latencies) * share // 100)] for share in (50, 95, 99)
    }


def show_method(method: dict[str, float]) -> None:
    print(
        f"the method alone, one thread: {method['documents_per_second']:.0f} documents/s, "
        f"{method['microseconds']:.0f} µs of processor time a document, "
        f"{method['engine_microseconds']:.0f} of them the engine's",
        flush=True,
    )


def show(results: dict[str, dict[str, float]], documents: int) -> None:
    by_hops = {4: results["bare chain, four hops"], 1: results["bare chain, one hop"]}
    print(f"{documents} documents, instant engine, {os.cpu_count()} cores for broker, workers and client")
    print(f"{'':24}{'documents/s':>12}{'of bare':>9}{'p50':>9}{'p95':>9}{'p99':>9}   (s, at half the load)")
    for name, result in results.items():
        bare = by_hops[1 if "one hop" in name else 4]["documents_per_second"]
        rate = result["documents_per_second"]
        cells = "".join(f"{result[f'p{one}_seconds']:9.3f}" for one in (50, 95, 99))
        print(f"{name:24}{rate:12.0f}{f'1/{bare / rate:.1f}':>9}{cells}")


def show_partitions(results: dict[str, Any], documents: int) -> None:
    """The median of the rounds, and what that is of the same topology with four partitions (or the first number)."""
    print(f"{documents} documents, instant engine, {os.cpu_count()} cores for broker, workers and client")
    print(f"{'':24}{'partitions':>12}{'documents/s':>13}{'of 4':>7}{'ms of processor':>17}")
    for name, by_partitions in results.items():
        rates, spent = (
            {count: statistics.median(each[what] for each in rounds) for count, rounds in by_partitions.items()}
            for what in ("documents_per_second", "worker_milliseconds")
        )
        four = rates.get(4, next(iter(rates.values())))
        for count, rate in rates.items():
            print(f"{name:24}{count:12}{rate:13.0f}{rate / four:7.2f}{spent[count]:17.2f}")


def worker(role: str) -> list[str]:
    return ["-m", "workers.cli", "worker", role]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="worker processes a stage")
    parser.add_argument("--partitions", type=int, nargs="+", help="of the topics, one number after the other")
    parser.add_argument("--rounds", type=int, default=3, help="of --partitions")
    parser.add_argument("--lines", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--first", type=int, default=4_000)
    parser.add_argument(
        "--rates", type=float, nargs="*", default=[2_000.0], help="lines a second to measure latency at"
    )
    parser.add_argument("--ensemble", default="default", help="of --lines")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chain", nargs="+", metavar="SERVERS BATCH TOPIC", help=argparse.SUPPRESS)
    parser.add_argument("--ready-file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chain:
        servers, batch, *names = options.chain
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(chain(servers, list(zip(names[::2], names[1::2], strict=True)), options.ready_file, int(batch)))
        return
    results: dict[str, Any] = {}
    method = None
    if not options.lines and not options.partitions:
        batch_documents = load_stream_settings(environ={}).worker.batch_documents
        method = method_alone(prose, min(options.documents, 5_000), batch_documents)
        show_method(method)
    with tempfile.TemporaryDirectory() as scratch, temporary_services(Path(scratch)) as services:
        folder = Path(scratch)

        def prefixed(name: str, partitions: int | None = None) -> StreamSettings:
            kafka = {"topic_prefix": name, **({} if partitions is None else {"partitions": partitions})}
            settings = load_stream_settings(
                environ=services.environ(), overrides={"ensemble": {"preset": "instant"}, "kafka": kafka}
            )
            topic_admin.create(settings)
            return settings

        def run(name: str, prefix: str, commands: Sequence[list[str]]) -> None:
            settings = prefixed(f"{prefix}-")
            with processes(commands, settings, folder):
                results[name] = asyncio.run(measure(settings, prefix, options.documents))

        if options.partitions:
            topologies = {
                **{f"one hop, {count}": [worker(PIPELINE)] * count for count in options.processes},
                **{
                    f"stages apart, {count} each": [worker(role) for role in STAGED_ROLES] * count
                    for count in options.processes
                },
            }
            results = {name: {count: [] for count in options.partitions} for name in topologies}
            for turn in range(options.rounds):
                for (name, commands), count in itertools.product(topologies.items(), options.partitions):
                    settings = prefixed(f"{name.replace(', ', '-').replace(' ', '-')}-{count}-{turn}-", count)
                    with processes(commands, settings, folder) as pids:
                        found = asyncio.run(measure_partitions(settings, options.documents, pids))
                    results[name][count].append(found)
                    print(f"{name}, {count} partitions: {found}", file=sys.stderr, flush=True)
            show_partitions(results, options.documents)
        elif options.lines:
            for count in options.processes:
                settings = prefixed(f"lines{count}-")
                with processes([worker(PIPELINE)] * count, settings, folder, options.ensemble):
                    results[f"one hop, {count}"] = found = asyncio.run(
                        measure_lines(
                            settings, log_lines(options.lines), options.documents, options.first, options.rates
                        )
                    )
                print(f"one hop, {count}: {found['lines_per_second']:.0f} lines/s")
                for at in found["latency"]:
                    cells = ", ".join(f"p{one} {at[f'p{one}_seconds']:.3f} s" for one in (50, 95, 99))
                    print(f"  at {at['per_second']:.0f} lines/s: {cells}")
        else:
            for name, hops, batch in (
                ("bare chain, four hops", [HOPS], 16_384),
                ("bare chain, tuned", [[hop] for hop in HOPS], 262_144),
                ("bare chain, one hop", [ONE_HOP], 262_144),
            ):
                prefix = name.removeprefix("bare chain, ").replace(" ", "-")
                of_prefix = prefixed(f"{prefix}-").kafka
                run(
                    name,
                    prefix,
                    [
                        [__file__, "--chain", services.kafka_bootstrap, str(batch)]
                        + [topic_name(of_prefix, topic) for pair in together for topic in pair]
                        for together in hops
                    ],
                )
            for count in options.processes:
                run(f"stages apart, {count} each", f"apart{count}", [worker(role) for role in STAGED_ROLES] * count)
            for count in options.processes:
                run(f"one hop, {count}", f"hop{count}", [worker(PIPELINE)] * count)
            show(results, options.documents)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        written = results if method is None else {"method alone": method, **results}
        options.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
