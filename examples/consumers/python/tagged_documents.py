"""Prints what el4ner says of each document, one JSON object a line.

    python tagged_documents.py BOOTSTRAP TOPIC SCHEMAS [COUNT]

BOOTSTRAP: host:port of the broker. TOPIC: tagged-documents, with the prefix if there is one. SCHEMAS: the folder
schemas/ of el4ner. COUNT: stop after so many messages.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema_rs
from kafka import KafkaConsumer


def main(bootstrap: str, topic: str, schemas: str, count: str | None = None) -> None:
    """Reads on until it is interrupted, or has read ``count``."""
    valid = validator(Path(schemas))
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id="el4ner-example-python",
        auto_offset_reset="earliest",
        # Outcomes are written in transactions: what was never committed is nobody's outcome.
        isolation_level="read_committed",
        # Offsets are committed when a message has been dealt with, so that a crash loses none.
        enable_auto_commit=False,
    )
    left = None if count is None else int(count)
    for message in consumer:
        print(json.dumps(outcome(message.key.decode(), message.value, valid), ensure_ascii=False), flush=True)
        consumer.commit()
        if left is not None and (left := left - 1) == 0:
            break
    consumer.close()


def validator(folder: Path) -> jsonschema_rs.Draft202012Validator:
    """Of tagged documents."""
    common, schema = (json.loads((folder / f"{name}.v1.json").read_bytes()) for name in ("common", "tagged-documents"))
    registry = jsonschema_rs.Registry([(common["$id"], common)])
    return jsonschema_rs.Draft202012Validator(schema, registry=registry)


def outcome(key: str, value: bytes | None, valid: jsonschema_rs.Draft202012Validator) -> dict[str, Any]:
    """What is said of one document; None: it was deleted."""
    if value is None:
        return {"document": key, "deleted": True}
    document = json.loads(value)
    valid.validate(document)
    for entity in document["entities"]:
        # Offsets count code points, as Python's strings do.
        assert document["text"][entity["start"] : entity["end"]] == entity["text"]
    entities = [f"{entity['text']}|{entity['type']}" for entity in document["entities"]]
    return {"document": document["id"], "status": document["status"], "entities": entities}


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
