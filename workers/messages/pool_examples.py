"""Messages of ``pool-examples``: what pools are taught, as it is written and read. No Kafka in here.

The schema says what shape a value has; :class:`~el4ner.pools.examples.PoolExample` says what is an example.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from el4ner.errors import MessageError, PoolError
from el4ner.pools.examples import ExampleSource, PoolExample
from el4ner.serialize import fingerprint
from el4ner.types import Span
from workers.messages.envelope import Outgoing, decode, outgoing
from workers.messages.headers import RandomBytes, Trace
from workers.topics import MOST_EXAMPLE_BYTES, Topic

__all__ = ["ExampleKey", "example_from_json", "example_message", "example_to_json", "read_example", "read_key"]

_SOURCE: Final = "teaching"
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_MOST_POOL_CHARACTERS: Final = 255


@dataclass(frozen=True, slots=True)
class ExampleKey:
    """The key of a message: which pool, and which text of it (:func:`~el4ner.pools.examples.example_digest`)."""

    pool: str
    digest: str

    def __str__(self) -> str:
        return f"{self.pool}:{self.digest}"


def read_key(key: bytes | None) -> ExampleKey:
    """
    Raises:
        MessageError: it is no key of an example.
    """
    try:
        pool, colon, digest = (key or b"").decode().rpartition(":")
    except UnicodeDecodeError:
        pool, colon, digest = "", "", ""
    if not colon or not 0 < len(pool) <= _MOST_POOL_CHARACTERS or _DIGEST.fullmatch(digest) is None:
        shown = "no key" if key is None else f"{key[:80]!r}"
        raise MessageError(
            f"{shown} is no key of an example: it is POOL:DIGEST, with the first 32 hexadecimal digits of the text's "
            "SHA-256",
            code="key",
        )
    return ExampleKey(pool, digest)


def read_example(key: bytes | None, value: bytes | None) -> tuple[ExampleKey, PoolExample | None]:
    """Whose example a message is, and the example; None: it is withdrawn.

    Raises:
        MessageError: ``encoding``, ``json`` or ``schema`` as :func:`~workers.messages.envelope.decode` has them,
            ``key`` (it does not say whose example it is, or not the one of the value), ``example`` (what is labelled
            cannot be so) or ``too-large``.
    """
    whose = read_key(key)
    if value is None:
        return whose, None
    if len(value) > MOST_EXAMPLE_BYTES:
        raise MessageError(
            f"the value has {len(value):,} bytes, an example at most {MOST_EXAMPLE_BYTES:,}", code="too-large"
        )
    pool, example = example_from_json(decode(Topic.POOL_EXAMPLES, value))
    if ExampleKey(pool, example.digest) != whose:
        raise MessageError(f"the key is {whose}, but the value is {pool}:{example.digest}", code="key")
    return whose, example


def example_from_json(data: Mapping[str, Any]) -> tuple[str, PoolExample]:
    """The pool's name and the example of a value that the schema allows.

    Raises:
        MessageError: ``example``: what is labelled cannot be so.
    """
    text = data["text"]
    spans = []
    for item in data["spans"]:
        start, end, surface = item["start"], item["end"], item["surface"]
        if not start < end <= len(text):
            raise MessageError(
                f"span {start}–{end} is not inside the text, which has {len(text)} characters", code="example"
            )
        if text[start:end] != surface:
            raise MessageError(
                f"span {start}–{end} is {text[start:end]!r}, not {surface!r}: offsets count Unicode code points, where "
                "JavaScript and Java count UTF-16",
                code="example",
            )
        spans.append((Span(start, end, surface), item["type"]))
    document = data.get("document")
    source = (
        None
        if document is None
        else ExampleSource(document.get("id"), document.get("topic"), document.get("partition"), document.get("offset"))
    )
    try:
        example = PoolExample(
            text, tuple(spans), dict(data.get("types", {})), data["teacher"], data["taught_at"], source
        )
    except PoolError as error:
        raise MessageError(str(error), code="example") from error
    return data["pool"], example


def example_to_json(pool: str, example: PoolExample) -> dict[str, Any]:
    """The value of the message."""
    value: dict[str, Any] = {
        "pool": pool,
        "text": example.text,
        "spans": [
            {"start": span.start, "end": span.end, "surface": span.text, "type": label} for span, label in example.spans
        ],
        "teacher": example.teacher,
        "taught_at": example.taught_at,
    }
    if example.types:
        value["types"] = dict(example.types)
    if (source := example.source) is not None:
        known = {
            "id": source.document,
            "topic": source.topic,
            "partition": source.partition,
            "offset": source.offset,
        }
        value["document"] = {name: part for name, part in known.items() if part is not None}
    return value


def example_message(key: ExampleKey, example: PoolExample | None, *, now_ms: int, random: RandomBytes) -> Outgoing:
    """The message that teaches an example, or withdraws the one of that key (None)."""
    value = None if example is None else example_to_json(key.pool, example)
    return outgoing(
        Topic.POOL_EXAMPLES,
        value,
        key=str(key),
        subject=str(key),
        event_id=fingerprint(str(key), value, now_ms),
        source=_SOURCE,
        now_ms=now_ms,
        trace=Trace(random(16).hex(), random(8).hex()),
    )
