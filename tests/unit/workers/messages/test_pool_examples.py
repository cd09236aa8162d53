"""Messages of pool-examples: what is written is read again, and what cannot be an example is refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from el4ner.errors import MessageError
from el4ner.pools.examples import MOST_CHARACTERS, ExampleSource, PoolExample, example_digest
from el4ner.types import Span
from workers.messages import json_schemas
from workers.messages.pool_examples import ExampleKey, example_message, read_example, read_key
from workers.topics import MOST_EXAMPLE_BYTES, Topic

TEXT = "Zephyr Labs opened in Porto."
EXAMPLE = PoolExample(
    TEXT,
    ((Span(22, 27, "Porto"), "location"), (Span(0, 11, "Zephyr Labs"), "organization")),
    {"product": "something that is sold"},
    "ada",
    1_764_250_000_000,
    ExampleSource("wire-1", "documents", 0, 12),
)
KEY = ExampleKey("news", EXAMPLE.digest)


def zeros(count: int) -> bytes:
    return bytes(count)


def value(**changed: Any) -> bytes:
    message = example_message(KEY, EXAMPLE, now_ms=0, random=zeros)
    assert message.value is not None
    return orjson.dumps({**orjson.loads(message.value), **changed})


@pytest.mark.parametrize(
    "example",
    [
        EXAMPLE,
        PoolExample("Nothing here.", ()),
        PoolExample("Zoë — 北京", ((Span(6, 8, "北京"), "location"),), source=ExampleSource(document="d")),
    ],
)
def test_what_is_written_is_valid_and_read_as_it_was(example: PoolExample) -> None:
    key = ExampleKey("a:pool", example.digest)
    message = example_message(key, example, now_ms=5, random=zeros)
    assert message.topic is Topic.POOL_EXAMPLES
    assert message.value is not None
    json_schemas.validate("pool-examples", orjson.loads(message.value))
    assert read_example(message.key, message.value) == (key, example)


def test_a_null_value_withdraws() -> None:
    message = example_message(KEY, None, now_ms=5, random=zeros)
    assert message.value is None
    assert read_example(message.key, None) == (KEY, None)


def test_every_example_of_the_largest_size_fits_the_topic() -> None:
    text = "\u0001a" * (MOST_CHARACTERS // 2)
    spans = tuple((Span(2 * i + 1, 2 * i + 2, "a"), "t" * 100) for i in range(1000))
    largest = PoolExample(text, spans, {f"{i:0100}": "é" * 500 for i in range(50)}, "é" * 255, 2**53 - 1)
    message = example_message(ExampleKey("é" * 255, largest.digest), largest, now_ms=0, random=zeros)
    assert message.value is not None
    assert len(message.value) < MOST_EXAMPLE_BYTES / 2
    assert read_example(message.key, message.value)[1] == largest


@pytest.mark.parametrize(
    "key", [None, b"", b"news", b"news:", b":" + b"0" * 32, b"news:" + b"G" * 32, b"\xff:" + b"0" * 32]
)
def test_a_key_that_names_no_example_is_refused(key: bytes | None) -> None:
    with pytest.raises(MessageError, match="is no key of an example") as raised:
        read_key(key)
    assert raised.value.code == "key"


@pytest.mark.parametrize(
    ("changed", "code", "reason"),
    [
        ({"pool": "logs"}, "key", "the key is news:"),
        ({"text": TEXT + " "}, "key", "but the value is news:"),
        ({"spans": [{"start": 0, "end": 99, "surface": "x", "type": "t"}]}, "example", "not inside the text"),
        ({"spans": [{"start": 5, "end": 5, "surface": "x", "type": "t"}]}, "example", "not inside the text"),
        ({"spans": [{"start": 0, "end": 6, "surface": "zephyr", "type": "t"}]}, "example", "UTF-16"),
        ({"spans": [{"start": -1, "end": 6, "surface": "Zephyr", "type": "t"}]}, "schema", "/spans/0/start"),
        (
            {
                "spans": [
                    {"start": 0, "end": 11, "surface": "Zephyr Labs", "type": "t"},
                    {"start": 7, "end": 11, "surface": "Labs", "type": "t"},
                ]
            },
            "example",
            "overlaps",
        ),
        ({"spans": [{"start": 0, "end": 6, "surface": "Zephyr", "type": "None"}]}, "example", "no entity"),
        ({"spans": [{"start": 0, "end": 6, "surface": "Zephyr", "type": "a\nb"}]}, "example", "name of a type"),
        ({"types": {"x": "two\nlines"}}, "example", "one line of description"),
        ({"types": {"x" * 101: "d"}}, "schema", "/types"),
        ({"types": {f"t{i}": "d" for i in range(51)}}, "schema", "/types"),
        ({"teacher": "a\x1b[2J"}, "example", "printable"),
        ({"taught_at": -1}, "schema", "/taught_at"),
        ({"text": "a" * (MOST_CHARACTERS + 1)}, "schema", "/text"),
    ],
)
def test_what_cannot_be_an_example_is_refused_with_the_reason(
    changed: Mapping[str, Any], code: str, reason: str
) -> None:
    with pytest.raises(MessageError) as raised:
        read_example(str(KEY).encode(), value(**changed))
    assert raised.value.code == code
    assert reason in str(raised.value)


@pytest.mark.parametrize(("text", "start", "end"), [("Zoe\u0301 spoke", 0, 3), ("👩‍👧 spoke", 0, 1), ("a\r\nb", 0, 2)])
def test_a_span_that_cuts_a_character_is_refused(text: str, start: int, end: int) -> None:
    span = {"start": start, "end": end, "surface": text[start:end], "type": "person"}
    key = str(ExampleKey("news", example_digest(text))).encode()
    with pytest.raises(MessageError, match="in the middle of a character"):
        read_example(key, value(text=text, spans=[span]))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"text": "\\ud800"}', b"null"])
def test_what_is_no_message_is_refused(content: bytes) -> None:
    with pytest.raises(MessageError):
        read_example(str(KEY).encode(), content)


def test_a_value_without_bounds_is_not_even_parsed() -> None:
    with pytest.raises(MessageError, match="bytes") as raised:
        read_example(str(KEY).encode(), b" " * (MOST_EXAMPLE_BYTES + 1))
    assert raised.value.code == "too-large"
