"""What the topic's messages come to."""

from __future__ import annotations

import pytest

from el4ner.pools.examples import PoolExample
from el4ner.types import Span
from workers.messages.pool_examples import ExampleKey, example_message
from workers.teaching.taught_examples import ExampleRecord, TaughtExamples


def zeros(count: int) -> bytes:
    return bytes(count)


def record(example: PoolExample | None, *, key: ExampleKey, offset: int = 0) -> ExampleRecord:
    message = example_message(key, example, now_ms=0, random=zeros)
    return ExampleRecord(message.key, message.value, 0, offset)


ANNA = PoolExample("Anna ran.", ((Span(0, 4, "Anna"), "person"),))
NOBODY = PoolExample("Anna ran.", (), taught_at=1)
KEY = ExampleKey("p", ANNA.digest)


def test_of_a_text_the_last_message_counts_and_only_changes_are_changes() -> None:
    taught = TaughtExamples()
    assert taught.take_in([record(ANNA, key=KEY)]) == {"p"}
    assert taught.take_in([record(ANNA, key=KEY)]) == set()
    assert taught.take_in([record(NOBODY, key=KEY)]) == {"p"}
    assert list(taught.of("p")) == [NOBODY]
    assert taught.take_in([record(None, key=KEY)]) == {"p"}
    assert taught.take_in([record(None, key=KEY)]) == set()
    assert (taught.pools, list(taught.of("p")), list(taught.of("unknown"))) == ([], [], [])


def test_what_is_no_example_is_counted_and_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    taught = TaughtExamples()
    junk = [
        ExampleRecord(b"x", b"{}", 0, 7),
        ExampleRecord(str(KEY).encode(), b"\xff", 0, 8),
        ExampleRecord(None, None, 0, 9),
    ]
    assert taught.take_in([*junk, record(ANNA, key=KEY, offset=10)]) == {"p"}
    assert taught.refused == {"key": 2, "encoding": 1}
    assert [getattr(line, "offset", None) for line in caplog.records] == [7, 8, 9]


def test_pools_are_kept_apart() -> None:
    taught = TaughtExamples()
    taught.take_in([record(ANNA, key=KEY), record(NOBODY, key=ExampleKey("q:r", ANNA.digest))])
    assert sorted(taught.pools) == ["p", "q:r"]
    assert list(taught.of("q:r")) == [NOBODY]
