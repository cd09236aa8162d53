"""``el4ner worker entities`` over real Kafka: mentions count once, whoever is killed, and people have their say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from el4ner.canonical.names import entity_id
from tests.integration.stream_harness import Stream, wait_until
from workers.cli.app import app
from workers.messages import json_schemas
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(480),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

ENTITIES = {"entities": {"enabled": True, "trend_seconds": 0.5}}
ADA, SHORT, COUNTESS, LONDON = (
    entity_id(kind, name)
    for kind, name in (
        ("person", "ada lovelace"),
        ("person", "lovelace"),
        ("person", "augusta ada king"),
        ("location", "london"),
    )
)


def tagged(number: int, *mentions: tuple[str, str], revision: int = 0) -> tuple[bytes, bytes]:
    """A message of tagged-documents with these mentions (type and surface)."""
    text, entities = "", []
    for kind, surface in mentions:
        entity = {"start": len(text), "end": len(text) + len(surface), "text": surface, "type": kind}
        entities.append(entity | {"confidence": 0.9, "proposed_by": ["chunks"], "votes": {}, "verdict": None})
        text += f"{surface} "
    value = {
        "id": f"d-{number}",
        "revision": revision,
        "text": text,
        "pool": "news",
        "status": "complete",
        "entities": entities,
        "manifests": {},
        "missing": [],
        "error": None,
    }
    return f"d-{number}".encode(), orjson.dumps(value)


def latest(stream: Stream, topic: Topic) -> dict[str, Any]:
    """What a compacted topic says, by key."""
    values: dict[str, Any] = {}
    for record in stream.read(topic):
        value = None if record.value is None else orjson.loads(record.value)
        if value is not None:
            json_schemas.validate(topic.value, value)
        values[record.key.decode()] = value
    return {key: value for key, value in values.items() if value is not None}


def counts(stream: Stream) -> dict[str, tuple[int, int]]:
    """Mentions and documents of each entity."""
    return {
        key: (value["mentions"], sum(window["documents"] for window in value["windows"]))
        for key, value in latest(stream, Topic.ENTITIES).items()
        if value["merged_into"] is None
    }


def command(stream: Stream, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["entities", *arguments, "--config", str(stream.config)])


@pytest.mark.parametrize("stream", [ENTITIES], indirect=True)
def test_mentions_count_once_though_workers_are_killed_and_people_merge_and_split(stream: Stream) -> None:
    stream.create_topics()
    workers = [stream.start("entities"), stream.start("entities")]
    for worker in workers:
        worker.wait_ready(120)
    full = [("person", "Ada Lovelace"), ("person", "Lovelace"), ("location", "London")]
    count = 300
    stream.produce((tagged(number, *full) for number in range(count)), topic=Topic.TAGGED_DOCUMENTS)
    stream.wait_written(Topic.ENTITY_OCCURRENCES, 20)
    # They share the documents, and one has the book: the other one goes on with it.
    owner = next(each for each in workers if any(line.get("event") == "entities taken over" for line in each.lines()))
    owner.kill()
    (worker,) = (each for each in workers if each is not owner)
    later = [
        tagged(0, ("person", "Augusta Ada King"), revision=1),
        (b"d-1", None),
        tagged(count, ("person", "LOVELACE's")),
        (b"d-broken", b"this is no message"),
    ]
    stream.produce(later, topic=Topic.TAGGED_DOCUMENTS)
    expected = {ADA: (2 * (count - 2) + 1, count - 1), COUNTESS: (1, 1), LONDON: (count - 2, count - 2)}
    wait_until(lambda: counts(stream) == expected, timeout=90, every=0.5, what=f"{expected}")
    # In each document the same version counted once: nothing was written twice.
    versions = Counter((record.key, record.value) for record in stream.read(Topic.ENTITY_OCCURRENCES))
    assert (len(versions), max(versions.values())) == (count + 4, 1)
    assert latest(stream, Topic.ENTITIES)[SHORT]["merged_into"] == ADA
    assert [record.key for record in stream.read(Topic.DEAD_LETTERS)] == [b"d-broken"]

    merged = command(stream, "merge", ADA[:8], COUNTESS, "--by", "ada")
    assert merged.exit_code == 0, merged.stderr
    whole = {ADA: (2 * (count - 2) + 2, count), LONDON: expected[LONDON]}
    wait_until(lambda: counts(stream) == whole, timeout=30, every=0.2, what="merged")
    assert latest(stream, Topic.ENTITIES)[COUNTESS]["merged_by"] == "decision"
    worker.kill()
    worker = stream.start("entities").wait_ready(120)
    # It still holds after a restart; one that is split off counts alone again.
    stream.produce([tagged(count + 1, ("person", "Augusta Ada King"))], topic=Topic.TAGGED_DOCUMENTS)
    whole[ADA] = (whole[ADA][0] + 1, whole[ADA][1] + 1)
    wait_until(lambda: counts(stream) == whole, timeout=30, every=0.2, what="merged after a restart")
    assert "are never one" in command(stream, "merge", ADA, LONDON).stderr
    assert "is no name that was joined" in command(stream, "split", ADA, "Byron").stderr
    assert command(stream, "split", ADA, "Augusta Ada KING").exit_code == 0
    assert command(stream, "split", ADA, "lovelace").exit_code == 0
    apart = {ADA: (2 * (count - 2), count - 2), SHORT: (1, 1), COUNTESS: (2, 2), LONDON: expected[LONDON]}
    wait_until(lambda: counts(stream) == apart, timeout=30, every=0.2, what="split")

    listed = [
        orjson.loads(line)
        for line in command(stream, "list", "--like", "king", "--format", "json").stdout.split("\n")[:-1]
    ]
    assert [(value["id"], value["name"]) for value in listed] == [(COUNTESS, "Augusta Ada King")]
    assert "Augusta Ada King" in command(stream, "show", COUNTESS[:8]).stdout
    logged = [line.split()[1:3] for line in command(stream, "log").stdout.splitlines() if " person " in line]
    assert logged[0] == ["ada", "merge"]

    def top() -> dict[str, int]:
        trends = latest(stream, Topic.ENTITY_TRENDS)
        return {each["id"]: each["mentions"] for trend in trends.values() for each in trend["top"]}

    wait_until(lambda: top() == {key: mentions for key, (mentions, _) in apart.items()}, timeout=30, what="trends")
    assert worker.stop() == 0
