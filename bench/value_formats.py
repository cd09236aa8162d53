"""What a result costs in each ``kafka.value_format``: microseconds to write and to read, and bytes.

    python bench/value_formats.py

Writing begins with the JSON that is there, as in a worker, so it has the cost of reading that; ``json`` is orjson's own
time to write the value. Reading ends with what a program works on. Best of several rounds, CPU time of one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from workers.messages.result_encoding import result_encoder
from workers.messages.result_reading import result_values
from workers.messages.result_schemas import FramedFormat, result_schema
from workers.topics import Topic

EXAMPLE = Path(__file__).parents[1] / "schemas" / "examples" / "tagged-documents.v1.complete.json"
ENTITIES = 20
ROUNDS, CALLS = 15, 200
FORMATS: tuple[FramedFormat, ...] = ("avro", "protobuf")


def microseconds(call: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time()
        for _ in range(CALLS):
            call()
        best = min(best, time.thread_time() - began)
    return best / CALLS * 1e6


def main() -> None:
    topic = Topic.TAGGED_DOCUMENTS
    value = orjson.loads(EXAMPLE.read_bytes())
    value["entities"] = (value["entities"] * ENTITIES)[:ENTITIES]
    value["text"] = (value["text"] + " ") * 20
    plain = orjson.dumps(value)
    print(f"{'':10}{'write µs':>10}{'read µs':>10}{'bytes':>8}")
    write, read = microseconds(lambda: orjson.dumps(value)), microseconds(lambda: orjson.loads(plain))
    print(f"{'json':10}{write:10.1f}{read:10.1f}{len(plain):8}")
    for value_format in FORMATS:
        encode = result_encoder(topic, value_format)
        values = result_values(topic)(1, result_schema(topic, value_format))
        body = encode(plain)
        write, read = microseconds(lambda e=encode: e(plain)), microseconds(lambda v=values, b=body: v.read(b))  # type: ignore[misc]
        print(f"{value_format:10}{write:10.1f}{read:10.1f}{len(body):8}")


if __name__ == "__main__":
    main()
