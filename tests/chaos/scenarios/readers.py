"""What may happen to those who read tagged documents and write on: redaction and entities."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import takewhile
from typing import Any, Final

import orjson

from el4ner.redaction.key_ring import load_keys
from el4ner.redaction.redactor import Detection
from el4ner.redaction.sealed_originals import revealed
from el4ner.redaction.text_redaction import TextRedaction, redacted_document
from tests.chaos.clients import read_all
from tests.chaos.run import Check, Outcome, Run, documents
from workers.messages import json_schemas
from workers.topics import Topic

__all__ = ["ENTITIES_SECTIONS", "REDACTION_SECTIONS", "entities", "redaction"]

PER_SECOND: Final = 40
FEWEST: Final = 2_000
"""Documents go on to come until the last fault, however slow the machine is, and until there are so many."""
MOST: Final = 100_000
FAULTS: Final = (*("reader",) * 5, *("tagger",) * 2, *("broker",) * 2)
"""What is killed, in an order that the seed decides."""
REDACTION_SECTIONS: Final = {
    "redaction": {"keys": f"chaos:{'5e' * 32}", "reversible": True},
    "redaction.types": {"person": "surrogate"},
}
ENTITIES_SECTIONS: Final = {"entities": {"enabled": True, "trend_seconds": 0.5}}


def redaction(run: Run) -> Check | None:
    """Redacting workers, the tagging one and brokers are killed: each tagged document comes out redacted once, as the
    library does it, with an original that can be revealed."""
    _break(run, "redact")
    return lambda _: _check_redaction(run)


def entities(run: Run) -> Check | None:
    """Workers of entities, the tagging one and brokers are killed: each mention counts once."""
    _break(run, "entities")
    return lambda outcome: _check_entities(run, outcome)


def _break(run: Run, reader: str) -> None:
    for role in (*run.roles, reader, reader):
        run.fleet.add(role)
    run.wait_ready()
    is_over = threading.Event()
    numbered = enumerate(documents(random.Random(run.random.random()), MOST))
    messages = takewhile(lambda pair: pair[0] < FEWEST or not is_over.is_set(), numbered)
    run.load((message for _, message in messages), per_second=PER_SECOND)
    run.wait_tagged(100)
    faults = [*FAULTS]
    run.random.shuffle(faults)
    for fault in faults:
        run.pause(run.random.uniform(0.5, 5.0))
        run.fault()
        if fault == "broker":
            node = run.random.choice(run.cluster.nodes)
            run.cluster.kill(node)
            run.pause(run.random.uniform(1.0, 4.0))
            run.world.start(node)
            # Not two at once: what is acknowledged by two may then be on none that runs.
            run.cluster.wait_in_sync()
        else:
            places = run.fleet.of(reader if fault == "reader" else run.roles[0])
            run.fleet.kill(run.random.choice([place for place in places if place.alive] or places))
    is_over.set()


def _by_document(run: Run, topic: Topic) -> dict[str, list[Any]]:
    values = defaultdict(list)
    for record in read_all(run.bootstrap, run.stream.name(topic)):
        values[record.key.decode()].append(record.value)
    return values


def _once(values: dict[str, list[Any]], expected: Callable[[str], bool], what: str) -> None:
    wrong = {key: len(each) for key, each in values.items() if len(each) != 1 or not expected(key)}
    assert not wrong, f"{what}: {len(wrong)} documents did not come once, such as {sorted(wrong.items())[:5]}"


def _check_redaction(run: Run) -> None:
    settings = run.stream.settings.redaction
    keys = load_keys(settings)
    assert keys is not None
    library = TextRedaction(settings, keys)
    tagged = _by_document(run, Topic.TAGGED_DOCUMENTS)
    redacted, originals = (_by_document(run, topic) for topic in (Topic.REDACTED_DOCUMENTS, Topic.REDACTED_ORIGINALS))
    for topic, values in ((Topic.REDACTED_DOCUMENTS, redacted), (Topic.REDACTED_ORIGINALS, originals)):
        assert values.keys() == tagged.keys(), f"{topic.value}: {len(values)} of {len(tagged)} documents"
        _once(values, tagged.__contains__, topic.value)
    removed = 0
    for document, (original,) in tagged.items():
        source = orjson.loads(original)
        text, pool = source["text"], source["pool"]
        found = [Detection(each["start"], each["end"], each["type"], each["confidence"]) for each in source["entities"]]
        expected = redacted_document(
            library.redact(text, found, pool=pool),
            settings,
            document=document,
            revision=source["revision"],
            pool=pool,
            metadata={},
        )
        value = orjson.loads(redacted[document][0])
        json_schemas.validate(Topic.REDACTED_DOCUMENTS.value, value)
        assert value == expected, f"{document} is not redacted as the library does it"
        for each in source["entities"]:
            surface = re.compile(rf"(?<!\w){re.escape(each['text'])}(?!\w)", re.IGNORECASE)
            assert not surface.search(value["text"]), f"{document} still has a name that was detected"
        removed += len(value["replacements"])
        assert revealed(orjson.loads(originals[document][0]), document, keys) == original
    assert removed > len(tagged), f"only {removed} names were taken out of {len(tagged)} documents"
    logs = b"".join(path.read_bytes() for path in run.folder.glob("redact-*.log"))
    assert b"5e" * 32 not in logs, "a log shows the key"


def _check_entities(run: Run, outcome: Outcome) -> None:
    occurrences = _by_document(run, Topic.ENTITY_OCCURRENCES)
    _once(occurrences, {document for document, _ in outcome.tagged}.__contains__, Topic.ENTITY_OCCURRENCES.value)
    latest = {key: values[-1] for key, values in _by_document(run, Topic.ENTITIES).items()}
    counted, expected = Counter[str](), Counter[str]()
    for value in (orjson.loads(each) for each in latest.values() if each is not None):
        json_schemas.validate(Topic.ENTITIES.value, value)
        if value["merged_into"] is None:
            counted[value["type"]] += value["mentions"]
    for tagged in outcome.tagged.values():
        expected.update(each["type"] for each in (tagged or {}).get("entities", ()))
    assert counted == expected, f"mentions by type are {dict(counted)}, and documents have {dict(expected)}"
