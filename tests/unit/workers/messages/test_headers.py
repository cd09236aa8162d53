"""CloudEvents and trace headers."""

from __future__ import annotations

import pytest

from workers.messages.headers import (
    PooledRandom,
    Trace,
    cloud_event,
    common_headers,
    find,
    next_trace,
    parse_traceparent,
    with_id,
)

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def random(count: int) -> bytes:
    return bytes(range(1, count + 1))


def parent(value: str) -> list[tuple[str, bytes]]:
    return [("traceparent", value.encode())]


def test_a_trace_goes_on_with_a_new_span() -> None:
    headers = [*parent(f"00-{TRACE_ID}-{SPAN_ID}-00"), ("tracestate", b"v=1")]
    trace = next_trace(headers, random)
    assert trace == Trace(TRACE_ID, random(8).hex(), "00", b"v=1")
    assert trace.parent == f"00-{TRACE_ID}-0102030405060708-00"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "rubbish",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
    ],
)
def test_an_invalid_parent_starts_a_new_trace(value: str) -> None:
    assert parse_traceparent(parent(value)) is None
    assert next_trace(parent(value), random).trace_id == random(16).hex()


def test_a_later_version_is_read_as_the_first() -> None:
    assert parse_traceparent(parent(f"01-{TRACE_ID}-{SPAN_ID}-01-more")) == Trace(TRACE_ID, SPAN_ID)


def test_the_last_of_repeated_headers_counts() -> None:
    assert find([("a", b"1"), ("b", b"2"), ("a", b"3")], "a") == b"3"
    assert find([], "a") is None


def test_cloud_events_in_binary_mode() -> None:
    headers = dict(
        cloud_event(
            event_id="e",
            source="el4ner/extract",
            event_type="t",
            time_ms=1_700_000_000_123,
            subject="größe",
            schema="urn:s",
            trace=Trace(TRACE_ID, SPAN_ID, state=b"v=1"),
        )
    )
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"e",
        "ce_source": b"el4ner/extract",
        "ce_type": b"t",
        "ce_time": b"2023-11-14T22:13:20.123Z",
        "ce_subject": "größe".encode(),
        "ce_dataschema": b"urn:s",
        "content-type": b"application/json",
        "traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01".encode(),
        "tracestate": b"v=1",
    }


def test_messages_of_one_document_differ_in_id_and_span_alone() -> None:
    trace = Trace(TRACE_ID, SPAN_ID, "00", b"v=1")
    common = common_headers(source="s", event_type="t", time_ms=7, subject="d", schema="urn:s", state=trace.state)
    alone = cloud_event(
        source="s", event_type="t", time_ms=7, subject="d", schema="urn:s", event_id="e", trace=trace.child(random)
    )
    assert with_id(common, "e", trace.child_parent(random)) == alone


def test_pooled_bytes_are_as_many_as_asked_for_and_never_the_same() -> None:
    source = PooledRandom()
    ids = [source(8) for _ in range(2_000)]
    assert {len(one) for one in ids} == {8}
    assert len(set(ids)) == len(ids)
    assert len(source(100_000)) == 100_000
