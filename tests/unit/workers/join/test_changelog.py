"""The join's changelog: what is written is what is read, and what cannot be read is told."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.serialize import dumps
from tests.support.examples import examples
from tests.support.strategies import closed, names, open_documents
from workers.config import load_stream_settings
from workers.join.changelog import (
    ChangelogError,
    KeyValue,
    Recovered,
    Remembered,
    _take_in,
    closed_record,
    drop_record,
    forget_record,
    open_record,
)
from workers.join.rules import Closed, Open, ReceivedAnswer
from workers.join.stage_messages import join_rules
from workers.messages import json_schemas
from workers.messages.envelope import Origin


def recovered(records: Iterable[KeyValue]) -> Recovered:
    found = Recovered()
    for key, value in records:
        _take_in(found, key, value, "changelog-0-7")
    return found


@settings(max_examples=examples(25), deadline=None)
@given(names, open_documents(), st.integers(0, 2**41))
def test_an_open_document_is_read_as_it_was_but_for_the_clock(name: str, state: Open, since: int) -> None:
    key, value = open_record(name, state, since=since)
    assert value is not None
    json_schemas.validate("joins", orjson.loads(value))
    (found,) = recovered([(key, value)]).open.values()
    assert (found.since, found.revision, found.origin, found.trace, found.deleted) == (
        since,
        state.revision,
        state.origin,
        state.trace,
        state.deleted,
    )
    for read, written in ((found.best, state.best), (found.failed, state.failed)):
        assert (None if read is None else read.place) == (None if written is None else written.place)
    join = join_rules(load_stream_settings(environ={}))
    assert join.expire(name, found).tagged == join.expire(name, state).tagged


@given(st.integers(0, 10**9), st.integers(0, 2**41), st.lists(st.tuples(names, closed), max_size=3))
def test_outcomes_are_read_as_they_were(number: int, until: int, documents: list[tuple[str, Closed]]) -> None:
    remembered = Remembered(number, until, tuple(documents))
    key, value = closed_record(remembered)
    assert value is not None
    json_schemas.validate("joins", orjson.loads(value))
    assert recovered([(key, value)]).done == {number: remembered}


def test_the_last_word_about_a_key_counts() -> None:
    first, second = (Open(revision, Origin(revision), 0) for revision in (1, 2))
    records = [
        open_record("a", first, since=0),
        open_record("a", second, since=0),
        open_record("b", first, since=0),
        drop_record("b"),
        drop_record("never there"),
        closed_record(Remembered(4, 0, ())),
        closed_record(Remembered(5, 0, ())),
        forget_record(4),
        forget_record(3),
    ]
    found = recovered(records)
    assert {name: state.revision for name, state in found.open.items()} == {"a": 2}
    assert list(found.done) == [5]
    assert found.records == len(records)


@pytest.mark.parametrize(
    "value",
    [
        b"rubbish",
        b"[]",
        dumps({"v": 3}),
        dumps({"v": 2}),
        dumps(
            {
                "v": 2,
                "revision": 0,
                "origin": [1, 2, 0],
                "since": 0,
                "trace": None,
                "best": {"stage": "aggregate", "value": ""},
                "failed": None,
                "deleted": -1,
            }
        ),
    ],
)
def test_an_open_document_that_cannot_be_read_stops_the_aggregator_rather_than_being_lost(value: bytes) -> None:
    with pytest.raises(ChangelogError, match="changelog-0-7"):
        recovered([(b"open:a", value)])


@pytest.mark.parametrize("value", [b"rubbish", dumps({"v": 3}), dumps({"v": 2, "until": 5, "documents": [["a"]]})])
def test_finished_documents_that_cannot_be_read_are_passed_over_and_told(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    found = recovered([(b"done:3", value), closed_record(Remembered(4, 0, ()))])
    assert list(found.done) == [4]
    (logged,) = caplog.records
    assert "passed over" in logged.getMessage()
    assert logged.__dict__["source"] == "changelog-0-7"


def test_unfinished_documents_of_the_version_before_stop_the_aggregator() -> None:
    with pytest.raises(ChangelogError, match="older version"):
        recovered([(b"d-1", dumps({"v": 1, "phase": "emitting"}))])
    # Those that it had finished, and its tombstones, are none of our business.
    found = recovered([(b"d-1", dumps({"v": 1, "phase": "done"})), (b"d-2", None), (None, None)])
    assert (found.open, found.done) == ({}, {})


def test_a_value_that_is_no_utf_8_is_of_no_more_use_than_before() -> None:
    """It must not become readable by being written down."""
    answer = ReceivedAnswer("d", 0, "extract", False, b'{"text": "Z\xfcrich"}')
    found = recovered([open_record("d", Open(0, Origin(1), 0, best=answer), since=0)])
    best = found.open["d"].best
    assert best is not None
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(best.value)
