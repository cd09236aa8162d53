"""The pipeline without models: documents per second through all topics, against a bare aiokafka chain in the same run.

    python bench/pipeline.py [--documents N] [--json OUT]

The ensemble is `instant`, an engine that answers at once and knows nothing: what is measured is all but the models.
The bare chain consumes and produces the same documents over as many hops, with nothing done to them: no join, no
validation, no state. It is the most that this broker and client can do here, not a pipeline.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from workers import topics
from workers.config import StreamSettings, load_stream_settings
from workers.inputs import NewDocument
from workers.local.services import temporary_services
from workers.produce import produce_documents
from workers.tail import tail_documents

HOPS = 4  # documents → span-candidates → typed-entities → validation-verdicts → tagged-documents
TEXT = "The minister met Ada Lovelace of Analytical Engines in London on Tuesday, before the Trade Summit."


def documents(count: int) -> list[NewDocument]:
    return [NewDocument(id=f"bench-{i}", text=f"{TEXT} Note {i}.", pool="news") for i in range(count)]


@contextlib.contextmanager
def worker(settings: StreamSettings, folder: Path, stages: list[str]) -> Iterator[None]:
    ready = folder / f"ready-{'-'.join(stages)}"
    environ = {
        **os.environ,
        "EL4NER_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "EL4NER_REDIS__URL": settings.redis.url,
        "EL4NER_WORKER__DATA_DIR": str(folder / "workers"),
        "EL4NER_ENSEMBLE__PRESET": "instant",
        "EL4NER_WORKER__LOG_FORMAT": "json",
    }
    with (folder / f"{'-'.join(stages)}.log").open("wb") as log:
        command = [sys.executable, "-m", "workers.cli", "worker", *stages, "--ready-file", str(ready)]
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=log, stdout=log)
        try:
            while not ready.exists():
                if process.poll() is not None:
                    sys.exit(f"the worker ended: {Path(log.name).read_text()[-2000:]}")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def through_pipeline(settings: StreamSettings, count: int) -> float:
    """Seconds from the first document produced to the last tagged document."""
    batch = documents(count)
    began = time.perf_counter()
    produce_documents(settings, batch)
    seen = {tagged.value["id"] for tagged in tail_documents(settings, start="earliest", count=count, seconds=600)}
    seconds = time.perf_counter() - began
    if len(seen) != count:
        sys.exit(f"{count} documents in, {len(seen)} out")
    return seconds


async def through_chain(bootstrap: str, names: list[str], count: int) -> float:
    """The same documents over bare topics: one consumer and producer a hop, all in one process."""
    values = [(d.id.encode(), json.dumps(d.to_json()).encode()) for d in documents(count)]

    async def hop(source: str, target: str | None) -> None:
        consumer = AIOKafkaConsumer(
            source, bootstrap_servers=bootstrap, group_id=f"bare-{source}", auto_offset_reset="earliest"
        )
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, acks="all", enable_idempotence=True)
        await consumer.start()
        await producer.start()
        seen = 0
        try:
            while seen < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    if target is not None:
                        sent = [await producer.send(target, key=r.key, value=r.value) for r in records]
                        await asyncio.gather(*sent)
                    seen += len(records)
                await consumer.commit()
        finally:
            await consumer.stop()
            await producer.stop()

    tasks = [asyncio.create_task(hop(a, b)) for a, b in zip(names, [*names[1:], None], strict=True)]
    await asyncio.sleep(5)  # the groups form
    began = time.perf_counter()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, acks="all", enable_idempotence=True)
    await producer.start()
    await asyncio.gather(*[await producer.send(names[0], key=key, value=value) for key, value in values])
    await asyncio.gather(*tasks)
    seconds = time.perf_counter() - began
    await producer.stop()
    return seconds


def create_bare_topics(settings: StreamSettings, names: list[str]) -> None:
    from kafka.admin import KafkaAdminClient, NewTopic

    with contextlib.closing(KafkaAdminClient(bootstrap_servers=settings.kafka.servers)) as admin:
        admin.create_topics([NewTopic(name, settings.kafka.partitions, 1) for name in names])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, temporary_services(Path(scratch)) as services:
        settings = load_stream_settings(environ={**services.environ()}, overrides={"ensemble": {"preset": "instant"}})
        topics.create(settings)
        with worker(settings, Path(scratch), ["all"]):
            seconds = through_pipeline(settings, options.documents)
        names = [f"bare-{i}" for i in range(HOPS + 1)]
        create_bare_topics(settings, names)
        bare = asyncio.run(through_chain(services.kafka_bootstrap, names, options.documents))
    summary = {
        "documents": options.documents,
        "pipeline_documents_per_second": options.documents / seconds,
        "bare_chain_documents_per_second": options.documents / bare,
        "ratio": bare / seconds,
    }
    print(f"{options.documents} documents, instant engine, all stages in one process")
    print(f"  pipeline:   {summary['pipeline_documents_per_second']:.0f} documents/s")
    print(f"  bare chain: {summary['bare_chain_documents_per_second']:.0f} documents/s over {HOPS} hops")
    print(f"  ratio:      1 / {seconds / bare:.1f}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
