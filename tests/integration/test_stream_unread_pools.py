"""Two pools over real Kafka, one of which is being read: documents of the other come out, and nothing is lost when the
worker is killed meanwhile."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from el4ner.types import Span
from tests.integration.stream_harness import Stream, Worker, wait_until
from tests.integration.test_stream import lag
from tests.integration.test_stream_one_hop import wait_committed
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

NAMES = ("Anna", "Berta", "Clara", "Dora", "Elsa", "Frida", "Greta", "Julia", "Klara", "Laura", "Maria", "Nora")
SETTINGS: dict[str, dict[str, Any]] = {
    "ensemble": {"members": ["a", "b"], "proposer": "a", "verifier": "a"},
    "models.a": {"source": "none"},
    "models.b": {"source": "none"},
    "worker": {"read_ahead": False, "batch_documents": 8},
}
PAIRS = 20


def write_pool(path: Path, sentences: int) -> None:
    lines = []
    for number in range(sentences):
        first, second = NAMES[number % len(NAMES)], NAMES[(number * 5 + number // len(NAMES)) % len(NAMES)]
        text = f"Then {first} met {second} again in the {path.stem} pool, {number} times."
        at = [(text.index(first), first), (text.rindex(second), second)]
        spans = [Span(start, start + len(name), name) for start, name in dict.fromkeys(at)]
        labelled = [{"start": span.start, "end": span.end, "type": "person"} for span in spans]
        lines.append(orjson.dumps({"text": text, "spans": labelled}))
    path.write_bytes(b"\n".join(lines) + b"\n")


@pytest.fixture
def pooled(stream: Stream) -> Stream:
    write_pool(stream.folder / "small.jsonl", 24)
    write_pool(stream.folder / "large.jsonl", 200)
    paths = {name: str(stream.folder / f"{name}.jsonl") for name in ("small", "large")}
    sections = {**SETTINGS, "pools": {"default": "small"}, "pools.paths": paths}
    return Stream(stream.bootstrap, stream.redis_url, stream.prefix, stream.folder, sections, stream.workers)


def start(stream: Stream, topology: str) -> Worker:
    files = {name: str(stream.folder / name.lower()) for name in ("SHOWN", "WAITS", "RELEASED")}
    environ = {**files, "EL4NER_CACHE_DIR": str(stream.folder / "cache"), "PYTHONPATH": "."}
    return stream.start(topology, environ=environ, module="tests.integration.reading_worker")


def shown(stream: Stream) -> Counter[str]:
    """How often the members were shown each sentence of the pools."""
    lines = (stream.folder / "shown").read_text(encoding="utf-8").splitlines()
    return Counter(line for line in lines if "again" in line)


@pytest.mark.parametrize(("topology", "small"), [("pipeline", 0), ("all", 1)])
def test_documents_pass_a_pool_that_is_being_read_and_a_kill_meanwhile_loses_nothing(
    pooled: Stream, topology: str, small: int
) -> None:
    """``small``: the partition of that pool's documents. With the stages apart they pass in no partition where one
    waits."""
    partitions = {"large": 0, "small": small}
    pooled.create_topics()
    worker = start(pooled, topology).wait_ready()
    sent = [
        {"id": f"{pool}-{number}", "text": f"Then Martha met Anna {number} times.", "pool": pool}
        for number in range(PAIRS)
        for pool in ("large", "small")
    ]
    first = {"id": "first", "text": "Then Martha met Anna.", "pool": "small"}
    pooled.produce([(b"first", orjson.dumps(first))], partition=small)
    pooled.wait_tagged(1)  # that pool is read
    for pool, partition in partitions.items():
        of_pool = [(each["id"].encode(), orjson.dumps(each)) for each in sent if each["pool"] == pool]
        pooled.produce(of_pool, partition=partition)
    pooled.produce([(b"large-3", None)], partition=partitions["large"])  # it waits behind its document
    wait_until((pooled.folder / "waits").exists, what="the large pool is being read")
    pooled.wait_tagged(1 + PAIRS)
    assert {document["pool"] for document in pooled.tagged()} == {"small"}
    assert "large" not in [line.get("pool") for line in worker.lines() if line.get("event") == "the pool is read"]
    assert (lag(pooled) if topology == "all" else 1) > 0, "what waits is not acknowledged"
    worker.kill()
    before = shown(pooled)
    (pooled.folder / "released").touch()
    start(pooled, topology).wait_ready()
    pooled.wait_tagged(1 + 2 * PAIRS)
    wait_committed(pooled) if topology == "pipeline" else wait_until(
        lambda: lag(pooled) == 0, timeout=60, what="all committed"
    )
    records = pooled.read(Topic.TAGGED_DOCUMENTS)
    deleted = [record.key for record in records if record.value is None]
    tagged = [orjson.loads(record.value) for record in records if record.value is not None]
    assert deleted == [b"large-3"]
    counted = Counter(document["id"] for document in tagged)
    assert set(counted.values()) == {1}
    assert counted.keys() | {"large-3"} == {document["id"] for document in [first, *sent]}
    assert all(document["status"] == "complete" and document["entities"] for document in tagged)
    # What the one that was killed has read of the pools nobody was shown again.
    assert before
    assert set(shown(pooled).values()) == {1}
