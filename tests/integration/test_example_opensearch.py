"""``examples/opensearch``: the sink writes what is on ``tagged-documents`` to a real OpenSearch."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch, TransportError

from examples.local_stream import ExampleError
from examples.opensearch.documents_sink import DocumentsSink, client_of, make_index
from examples.opensearch.indexed_documents import IndexedState, TaggedMessage, index_id
from examples.opensearch.processes import LocalOpenSearch, SinkProcess
from tests.integration.conftest import Endpoints
from tests.integration.stream_harness import wait_until
from tests.support.paths import ROOT
from tests.support.tagged_topic import PARTITIONS, TaggedTopic, tagged
from workers.messages.entity_ids import entity_ids

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
    pytest.mark.skipif(shutil.which("mvn") is None, reason="Maven is not on this machine: apt-get install maven"),
]

PAGE = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
DAY_MS = 24 * 3600 * 1000


def question(heading: str) -> dict[str, Any]:
    """The first block of JSON below a heading of docs/search.md."""
    block = re.search(rf"^### {heading}$.*?```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None, heading
    body: dict[str, Any] = json.loads(block.group(1))
    return body


@dataclass
class Search:
    """A topic, an index, and sinks between them."""

    topic: TaggedTopic
    client: OpenSearch
    environ: dict[str, str]
    folder: Path
    stack: ExitStack
    index: str = field(default_factory=lambda: f"documents-{uuid.uuid4().hex[:8]}")

    def start(self, *options: str) -> SinkProcess:
        log = self.folder / f"sink-{uuid.uuid4().hex[:8]}.log"
        group = f"{self.topic.prefix}{self.index}"
        return self.stack.enter_context(
            SinkProcess.running(log, self.environ, "--index", self.index, "--group", group, *options)
        )

    def settle(self, sink: SinkProcess) -> None:
        """Until everything that was sent is in the index: a last document on each partition says so."""
        last = [f"last-{uuid.uuid4().hex}-{partition}" for partition in range(PARTITIONS)]
        self.topic.send(*(tagged(name, "") for name in last))

        def there() -> bool:
            sink.check()
            return all(self.has(name) for name in last)

        wait_until(there, timeout=90, what="the last documents are in the index")
        self.client.indices.refresh(index=self.index)

    def has(self, name: str) -> bool:
        """False too while the index is being made."""
        with suppress(TransportError):
            return bool(self.client.exists(index=self.index, id=name))
        return False

    def documents(self) -> dict[str, dict[str, Any]]:
        """By ``_id``, without those that :meth:`settle` sends."""
        answer = self.client.search(index=self.index, body={"size": 1_000, "version": True})
        return {hit["_id"]: hit for hit in answer["hits"]["hits"] if not hit["_id"].startswith("last-")}

    def mentions(self, name: str) -> list[tuple[str, str]]:
        entities = self.documents()[name]["_source"]["entities"]
        return [(entity["surface"], entity["type"]) for entity in entities]

    def ask(self, heading: str) -> Any:
        body = question(heading)
        answer = self.client.search(index=self.index, body=body)
        return answer["aggregations"] if "aggs" in body else answer["hits"]["hits"]


@pytest.fixture(scope="module")
def client() -> Iterator[OpenSearch]:
    with LocalOpenSearch.temporary() as server:
        server.wait_ready()
        yield client_of({"OPENSEARCH_URL": server.url})


@pytest.fixture
def search(services: Endpoints, client: OpenSearch, tmp_path: Path) -> Iterator[Search]:
    """A topic and an index of the test's own."""
    topic = TaggedTopic(services.kafka_bootstrap, f"t{uuid.uuid4().hex[:8]}.", int(time.time() * 1000))
    topic.create()
    own = {
        "KAFKA_BOOTSTRAP_SERVERS": topic.bootstrap,
        "EL4NER_KAFKA__TOPIC_PREFIX": topic.prefix,
        "OPENSEARCH_URL": "{scheme}://{host}:{port}".format(scheme="http", **client.transport.hosts[0]),
    }
    with ExitStack() as stack:
        yield Search(topic, client, os.environ | own, tmp_path, stack)


def test_documents_are_found_with_their_entities(search: Search) -> None:
    text = "Zoë Schröder 🦊 joined ACME\0 in Zürich."
    entities = [("Zoë Schröder", "person"), ("ACME", "organization"), ("Zürich", "location")]
    whole = tagged("whole", text, *entities, metadata={"": {"source.name": None}, "long": "x" * 40_000})
    failure = {"stage": "extract", "code": "json", "message": "the value is not JSON"}
    endless, long_id = "x" * 40_000, "é" * 1_000
    search.topic.send(
        whole,
        {**tagged("failed-1", ""), "text": None, "pool": None, "status": "failed", "error": failure},
        tagged("endless", endless, (endless, "misc")),
        tagged(long_id, "Ada", ("Ada", "person")),
        tagged("taken-back", "", revision=1),
        age_ms=1_500,
    )
    search.topic.send(tagged("aborted", "Ada", ("Ada", "person")), commit=False)
    search.topic.send("taken-back", "never-there")
    search.settle(search.start())
    documents = {name: hit["_source"] for name, hit in search.documents().items()}
    assert documents.keys() == {"whole", "failed-1", "endless", index_id(long_id)}
    assert documents["whole"]["text"] == text
    assert documents["whole"]["metadata"] == whole["metadata"]
    assert documents["failed-1"]["error"] == failure
    assert documents["whole"]["tagged_at"] == search.topic.now_ms - 1_500
    assert search.mentions("whole") == entities
    assert documents["whole"]["entities"][0] == {
        "start": 0,
        "end": 12,
        "type": "person",
        "surface": "Zoë Schröder",
        "entity": "person:zoë schröder",
        "entity_id": entity_ids(whole)[0],
        "confidence": 0.75,
    }
    assert documents[index_id(long_id)]["document_id"] == long_id


def test_revisions_and_deletions_hold_through_crashes_and_repeats(search: Search) -> None:
    first = search.start()
    search.topic.send(
        tagged("a", "Ada in Rome", ("Ada", "person"), ("Rome", "location"), revision=3),
        tagged("gone", "Eve", ("Eve", "person"), revision=7),
        tagged("back-1", "Bob", ("Bob", "person"), revision=7),
    )
    search.settle(first)
    assert search.documents().keys() == {"a", "gone", "back-1"}
    first.kill()
    search.topic.send(
        tagged("a", "Bob", ("Bob", "person"), revision=4),
        tagged("a", "Ada in Rome", ("Ada", "person"), ("Rome", "location"), revision=3),
        "gone",
        "back-1",
        tagged("back-1", "Bo", ("Bo", "person")),
    )
    second = search.start()
    search.settle(second)
    before = search.documents()
    assert before.keys() == {"a", "back-1"}
    assert search.mentions("a") == [("Bob", "person")]
    assert search.mentions("back-1") == [("Bo", "person")]
    assert second.stop() == 0
    again = search.start("--group", f"{search.topic.prefix}again")
    search.settle(again)
    assert search.documents() == before, "nothing is written anew: the versions are the same"


def test_a_refused_document_stops_the_sink_until_it_is_passed_over(search: Search) -> None:
    narrow = json.loads((ROOT / "examples" / "opensearch" / "index.json").read_text())
    narrow["mappings"]["properties"]["pool"] = {"type": "integer"}
    search.client.indices.create(index=search.index, body=narrow)
    search.topic.send(tagged("no-number", "Ada", revision=5), {**tagged("behind", "Bob"), "pool": None})
    sink = search.start()
    with pytest.raises(ExampleError, match=r"(?s)offset 0 of partition 0, document 'no-number'.*\[pool\].*--skip 0:0"):
        wait_until(lambda: sink.check(), timeout=60, what="the sink ends")
    onwards = search.start("--skip", "0:0")
    wait_until(lambda: search.has("behind"), timeout=60, what="the next message")
    onwards.check()


def test_an_index_that_is_deleted_ends_the_sink_and_is_not_made_by_a_write(search: Search) -> None:
    sink = search.start()
    search.topic.send(tagged("first", "Ada"))
    search.settle(sink)
    search.client.indices.delete(index=search.index)
    search.topic.send(tagged("second", "Bob"))
    with pytest.raises(ExampleError, match=rf"(?s)the index {search.index} was deleted.*--group"):
        wait_until(lambda: sink.check(), timeout=60, what="the sink ends")
    assert not search.client.indices.exists(index=search.index)
    anew = search.start("--group", f"{search.topic.prefix}anew")
    search.settle(anew)
    assert search.documents().keys() == {"first", "second"}


def test_who_comes_between_reading_and_writing_is_not_overwritten(search: Search) -> None:
    make_index(search.client, search.index)

    def message(offset: int, text: str | None) -> TaggedMessage:
        value = None if text is None else tagged("a", text)
        return TaggedMessage(document_id="a", value=value, partition=0, offset=offset, timestamp_ms=offset)

    def write(sink: DocumentsSink, *messages: TaggedMessage) -> str | None:
        sink.write(messages, threading.Event())
        return search.client.get(index=search.index, id="a")["_source"]["text"] if search.has("a") else None

    other = DocumentsSink(None, search.client, search.index)

    class Slow(DocumentsSink):
        """Between its reading and its first writing another writes ``between``."""

        between: TaggedMessage | None = None

        def _states(self, names: Iterable[str]) -> dict[str, IndexedState] | None:
            states = super()._states(names)
            if self.between is not None:
                other.write([self.between], threading.Event())
                self.between = None
            return states

    slow = Slow(None, search.client, search.index)
    slow.between = message(2, "newer")
    assert write(slow, message(1, "older")) == "newer"
    slow.between = message(4, "newest")
    assert write(slow, message(3, None)) == "newest"
    slow.between = message(6, None)
    assert write(slow, message(7, "back")) == "back"


def test_the_questions_of_the_docs_are_answered(search: Search) -> None:
    jordan, ada, acme = ("Jordan", "person"), ("Ada", "person"), ("ACME", "organization")
    search.topic.send(
        tagged("old", "Jordan met Ada", jordan, ada),
        tagged("land-2", "Ada flew to Jordan", ada, ("Jordan", "location")),
        age_ms=2 * DAY_MS,
    )
    search.topic.send(
        tagged("profit", "The quarterly profit of Acme rose, said Ada.", ("Acme", "organization"), ada),
        tagged("other", "The quarterly profit of a rival fell."),
        tagged("twice", "Michael Jordan left ACME, and Ada too. Ada!", ("Michael Jordan", "person"), acme, ada, ada),
        tagged("half", "Ada", status="partial", missing=["validate"], error=dict.fromkeys(("code", "message"), "x")
               | {"stage": "validate"}),
    )  # fmt: skip
    sink = search.start()
    search.settle(sink)
    hits = search.ask("Documents that mention Jordan as a person")
    assert [hit["_id"] for hit in hits] == ["twice", "old"]
    inner = hits[0]["inner_hits"]["entities"]["hits"]["hits"][0]["_source"]
    assert (inner["surface"], inner["start"], inner["end"]) == ("Michael Jordan", 0, 14)
    today, before = search.ask("The most frequent entities by day")["days"]["buckets"]
    counts = {
        bucket["key"]: (bucket["doc_count"], bucket["documents"]["doc_count"])
        for bucket in today["mentions"]["entities"]["buckets"]
    }
    assert counts == {"person:ada": (3, 2), "organization:acme": (2, 2), "person:michael jordan": (1, 1)}
    assert before["mentions"]["entities"]["buckets"][0]["key"] == "person:ada"
    (hit,) = search.ask("Words in documents that mention an organization")
    assert hit["_id"] == "profit"
    assert "<em>quarterly</em> <em>profit</em>" in hit["highlight"]["text"][0]
    named = search.ask("Who is named with Ada")["mentions"]["with"]["buckets"]
    assert (named[0]["key"], named[0]["documents"]["doc_count"]) == ("organization:acme", 2)
    assert {bucket["key"] for bucket in named[1:]} == {"person:jordan", "location:jordan", "person:michael jordan"}
    (hit,) = search.ask("What is not complete")
    assert hit["_source"] == {
        "document_id": "half", "status": "partial", "error": {"stage": "validate", "code": "x", "message": "x"}
    }  # fmt: skip
