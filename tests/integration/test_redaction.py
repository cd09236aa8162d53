"""``el4ner worker redact`` over real Kafka: each tagged document comes out redacted once, or not at all."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_stream import documents
from workers.cli.app import app
from workers.messages import json_schemas
from workers.messages.headers import find
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(480),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

SECRET = "5e" * 32
REDACTION = {"redaction": {"keys": f"2026-11:{SECRET}", "reversible": True}}


def tagged(number: int, **changes: Any) -> tuple[bytes, bytes]:
    """A message of tagged-documents about a document of that number."""
    text = f"Ada Lovelace {number} wrote. ADA LOVELACE, ada.lovelace@x.org\r\n\u200b"
    entity = {
        "start": 0,
        "end": 12,
        "text": "Ada Lovelace",
        "type": "person",
        "confidence": 0.9,
        "proposed_by": ["chunks"],
        "votes": {},
        "verdict": None,
    }
    value = {
        "id": f"d-{number}",
        "revision": 0,
        "text": text,
        "pool": "news",
        "status": "complete",
        "entities": [entity],
        "manifests": {},
        "missing": [],
        "error": None,
    }
    return f"d-{number}".encode(), orjson.dumps(value | changes)


def outcomes(stream: Stream, topic: Topic) -> dict[str, list[Any]]:
    """By document, in their order."""
    found = defaultdict(list)
    for record in stream.read(topic):
        found[record.key.decode()].append(None if record.value is None else orjson.loads(record.value))
    return found


def wait_outcomes(stream: Stream, count: int) -> None:
    stream.wait_written(Topic.REDACTED_DOCUMENTS, count)


@pytest.mark.parametrize("stream", [REDACTION], indirect=True)
def test_documents_come_out_redacted_once_though_workers_are_killed(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("redact").wait_ready(120)
    count = 300
    for round_ in range(2):
        numbers = range(round_ * 150, (round_ + 1) * 150)
        stream.produce((tagged(number) for number in numbers), topic=Topic.TAGGED_DOCUMENTS)
        wait_outcomes(stream, round_ * 150 + 20)
        worker.kill()
        worker = stream.start("redact")
    wait_outcomes(stream, count)
    worker.wait_ready(120)
    assert worker.stop() == 0
    for topic in (Topic.REDACTED_DOCUMENTS, Topic.REDACTED_ORIGINALS):
        found = outcomes(stream, topic)
        assert found.keys() == {f"d-{number}" for number in range(count)}
        assert {len(values) for values in found.values()} == {1}
        for (value,) in found.values():
            json_schemas.validate(topic.value, value)
            assert "lovelace" not in orjson.dumps(value).decode().lower()
    assert stream.read(Topic.DEAD_LETTERS) == []
    # Nothing that was logged has the key, or a name.
    logs = "".join(each.log.read_text() for each in stream.workers)
    assert SECRET not in logs
    assert "Lovelace" not in logs


@pytest.mark.parametrize("stream", [REDACTION], indirect=True)
def test_what_is_not_complete_or_deleted_is_taken_back_and_the_original_with_it(stream: Stream, tmp_path: Path) -> None:
    stream.create_topics()
    worker = stream.start("redact").wait_ready(120)
    messages = [
        tagged(1),
        tagged(1, revision=1, status="partial", missing=["validate"]),
        tagged(2),
        (b"d-2", None),
        (b"d-3", b"this is no message"),
        tagged(4),
        tagged(4, revision=1, text="Ada Lovelace slept."),
    ]
    stream.produce(messages, topic=Topic.TAGGED_DOCUMENTS)
    wait_outcomes(stream, len(messages))
    assert worker.stop() == 0
    for topic in (Topic.REDACTED_DOCUMENTS, Topic.REDACTED_ORIGINALS):
        found = outcomes(stream, topic)
        kept = {key: [value and value["revision"] for value in values] for key, values in found.items()}
        assert kept == {"d-1": [0, None], "d-2": [0, None], "d-3": [None], "d-4": [0, 1]}
    (letter,) = stream.read(Topic.DEAD_LETTERS)
    assert (letter.key, letter.value) == (b"d-3", b"this is no message")
    assert find(letter.headers, "el4ner-stage") == b"redact"

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["redact", "reveal", *arguments, "--config", str(stream.config)])

    revealed = run("d-4", "--format", "json")
    assert (revealed.exit_code, revealed.stdout_bytes) == (0, messages[-1][1])
    assert run("d-4").stdout_bytes == b"Ada Lovelace slept."
    for gone in ("d-1", "d-2", "d-3", "d-5"):
        result = run(gone)
        assert (result.exit_code != 0, result.stdout) == (True, "")
        assert f"{gone}: there is no original of it" in result.stderr


@pytest.mark.parametrize("stream", [REDACTION], indirect=True)
def test_originals_are_deleted_with_their_documents_once_no_more_are_kept(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("redact").wait_ready(120)
    stream.produce([tagged(1), tagged(2), tagged(3)], topic=Topic.TAGGED_DOCUMENTS)
    wait_outcomes(stream, 3)
    assert worker.stop() == 0
    worker = stream.start("redact", environ={"EL4NER_REDACTION__REVERSIBLE": "false"}).wait_ready(120)
    stream.produce([(b"d-1", None), tagged(2, revision=1), tagged(4)], topic=Topic.TAGGED_DOCUMENTS)
    wait_outcomes(stream, 6)
    assert worker.stop() == 0
    found = outcomes(stream, Topic.REDACTED_ORIGINALS)
    kept = {key: [value and value["revision"] for value in values] for key, values in found.items()}
    assert kept == {"d-1": [0, None], "d-2": [0, None], "d-3": [0], "d-4": [None]}


# Nobody is killed, so no session has to end.
@pytest.mark.parametrize(
    "stream", [{"redaction": {"action": "mask"}, "kafka": {"session_timeout_seconds": 30.0}}], indirect=True
)
def test_behind_a_whole_pipeline_with_two_workers(stream: Stream) -> None:
    stream.create_topics()
    first = stream.start("pipeline").wait_ready(120)
    redacting = [stream.start("redact"), stream.start("redact")]
    for worker in redacting:
        worker.wait_ready(120)
    sent = documents(100)
    stream.produce_documents(sent)
    stream.produce([(sent[0]["id"].encode(), None)])
    wait_outcomes(stream, 101)
    found = outcomes(stream, Topic.REDACTED_DOCUMENTS)
    assert found.keys() == {document["id"] for document in sent}
    assert found.pop(sent[0]["id"])[-1] is None
    places = {(record.key, record.partition) for record in stream.read(Topic.TAGGED_DOCUMENTS)}
    assert places == {(record.key, record.partition) for record in stream.read(Topic.REDACTED_DOCUMENTS)}

    def committed() -> int:
        done = stream.committed("redact")
        return sum(at for (name, _), at in done.items() if name == stream.name(Topic.TAGGED_DOCUMENTS))

    wait_until(lambda: committed() == stream.ends(Topic.TAGGED_DOCUMENTS), timeout=60, what="all committed")
    assert [worker.stop() for worker in (first, *redacting)] == [0, 0, 0]


def test_without_its_topic_it_says_what_is_missing(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("redact")
    assert worker.process.wait(timeout=60) != 0
    assert "redacted-documents' does not exist" in worker.log.read_text()
