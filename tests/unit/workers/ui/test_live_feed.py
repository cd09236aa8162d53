"""What is kept of the stream, and what viewers are sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.support.paths import ROOT
from workers.config import UiSettings
from workers.http.problems import ProblemError
from workers.registry.wire_format import framed
from workers.ui.feed_records import FeedRecord
from workers.ui.live_feed import LiveFeed
from workers.ui.live_filter import LiveFilter, read_filter

COMPLETE: dict[str, Any] = orjson.loads((ROOT / "schemas/examples/tagged-documents.v1.complete.json").read_bytes())
FAILED: dict[str, Any] = orjson.loads((ROOT / "schemas/examples/tagged-documents.v1.failed.json").read_bytes())
NOW = 1_000.0


def record(offset: int = 0, value: Any = COMPLETE, **more: Any) -> FeedRecord:
    data = {**value, "id": f"d{offset}", **more}
    return FeedRecord(0, offset, 5, data["id"].encode(), orjson.dumps(data))


def feed_of(**settings: Any) -> LiveFeed:
    return LiveFeed(UiSettings(**settings), NOW)


def ids(sent: Any) -> list[str]:
    return [document["id"] for document in sent["documents"]]


def test_a_viewer_is_sent_what_comes_with_its_entities() -> None:
    feed = feed_of()
    viewer = feed.view(LiveFilter())
    begin = viewer.take()
    assert begin is not None
    assert (ids(begin), begin["anew"]) == ([], True)
    assert viewer.take() is None
    feed.take(record(7), NOW)
    sent = viewer.take()
    assert sent is not None
    assert (ids(sent), sent["matched"], sent["seen"], sent["anew"]) == (["d7"], 1, 1, False)
    document = sent["documents"][0]
    assert (document["place"], document["timestamp"], document["pool"]) == ("0-7", 5, "news")
    assert "".join(text for text, _, _ in document["pieces"]) == COMPLETE["text"]
    assert document["entities"][1]["votes"] == [["smollm2-135m", "organization"], ["gemma3-270m", "location"]]
    assert document["entities"][1]["verdict"]["verifier"] == "gemma3-270m"
    assert viewer.take() is None


def test_a_document_in_a_registrys_frame_is_shown_like_any_other() -> None:
    feed = feed_of()
    viewer = feed.view(LiveFilter())
    plain = record(7)
    feed.take(replace(plain, value=framed(3, plain.value or b"")), NOW)
    sent = viewer.take()
    assert sent is not None
    assert ids(sent) == ["d7"]
    assert "".join(text for text, _, _ in sent["documents"][0]["pieces"]) == COMPLETE["text"]


def test_a_viewer_who_comes_late_is_sent_the_latest_that_fit() -> None:
    feed = feed_of()
    for number in range(80):
        feed.take(record(number, pool="news" if number % 2 else "logs"), NOW)
    sent = feed.view(LiveFilter(pools=frozenset({"logs"}))).take()
    assert ids(sent) == [f"d{number}" for number in range(78, -1, -2)][:50][::-1]


def test_at_a_high_rate_a_viewer_is_sent_a_sample_and_how_much_there_was() -> None:
    feed = feed_of(live_documents=20)
    viewer = feed.view(LiveFilter())
    for number in range(1_000):
        feed.take(record(number), NOW)
    sent = viewer.take()
    assert sent is not None
    assert len(sent["documents"]) == 10  # of half a second
    assert (sent["matched"], sent["seen"]) == (1_000, 1_000)


def test_what_is_kept_is_bounded_by_number_and_by_size() -> None:
    feed = feed_of(keep_documents=5)
    for number in range(20):
        feed.take(record(number), NOW)
    assert len(ids(feed.view(LiveFilter()).take())) == 5
    feed = feed_of(keep_mb=1)
    for number in range(20):
        feed.take(record(number, text="x" * 300_000, entities=[]), NOW)
    assert 0 < len(ids(feed.view(LiveFilter()).take())) <= 3


def test_a_viewer_who_has_left_costs_nothing() -> None:
    feed = feed_of()
    viewer = feed.view(LiveFilter())
    viewer.take()
    feed.leave(viewer)
    feed.take(record(), NOW)
    assert viewer.take() is None
    assert feed.viewers == 0


def test_a_document_that_was_deleted_is_shown_to_nobody_any_more() -> None:
    feed = feed_of()
    viewer = feed.view(LiveFilter())
    feed.take(record(1), NOW)
    feed.take(record(2), NOW)
    feed.take(FeedRecord(0, 3, 6, b"d1", None), NOW)
    sent = viewer.take()
    assert sent is not None
    assert (ids(sent), sent["deleted"]) == (["d2"], ["d1"])
    assert ids(feed.view(LiveFilter()).take()) == ["d2"]
    assert feed.find((0, 1)) is None


def test_a_deletion_names_the_document_as_it_is_shown() -> None:
    """By its name the browser takes it away."""
    feed = feed_of()
    viewer = feed.view(LiveFilter())
    for offset, name in enumerate(("a\u202eb", "x" * 400)):
        feed.take(FeedRecord(0, offset, 5, name.encode(), orjson.dumps({**COMPLETE, "id": name})), NOW)
    shown = ids(viewer.take())
    for offset, name in enumerate(("a\u202eb", "x" * 400), 2):
        feed.take(FeedRecord(0, offset, 5, name.encode(), None), NOW)
    sent = viewer.take()
    assert sent is not None
    assert sent["deleted"] == shown


def test_whoever_cannot_be_told_of_each_deletion_begins_anew() -> None:
    feed = feed_of()
    viewer = feed.view(LiveFilter())
    feed.take(record(1), NOW)
    viewer.take()
    for number in range(5_000):
        feed.take(FeedRecord(0, 10 + number, 6, b"d%d" % number, None), NOW)
    sent = viewer.take()
    assert sent is not None
    assert sent["anew"]
    # What is before the place where the page goes on may have been deleted.
    feed.begins_at(0, 9_000)
    sent = viewer.take()
    assert sent is not None
    assert sent["anew"]
    assert feed.is_deleted("any", (0, 8_999))
    assert not feed.is_deleted("any", (0, 9_000))


def test_who_has_paused_is_told_what_is_deleted_meanwhile_and_was_a_moment_ago() -> None:
    feed = feed_of()
    feed.take(FeedRecord(0, 1, 6, b"before", None), NOW)
    viewer = feed.view(None)
    feed.take(record(2), NOW)
    feed.take(FeedRecord(0, 3, 6, b"d2", None), NOW)
    sent = viewer.take()
    assert sent is not None
    assert (sent["documents"], sent["anew"], sent["deleted"]) == ([], False, ["before", "d2"])


def test_what_was_deleted_is_known_although_the_broker_still_has_it() -> None:
    feed = feed_of()
    feed.take(FeedRecord(0, 5, 6, b"d", None), NOW)
    assert feed.is_deleted("d", (0, 4))
    assert not feed.is_deleted("d", (0, 6))  # it was sent again
    assert not feed.is_deleted("e", (0, 4))
    for number in range(30_000):  # of so many not each is remembered: what may be one of them is not shown
        feed.take(FeedRecord(0, 10 + number, 6, b"%d" % number, None), NOW)
    assert feed.is_deleted("d", (0, 4))
    assert not feed.is_deleted("e", (0, 39_999))


def test_names_and_types_are_shown_and_filtered_by_without_what_a_screen_obeys() -> None:
    feed = feed_of()
    entity = {**COMPLETE["entities"][0], "text": "An\u202ena", "type": "\x1bper" + "s" * 100}
    value = {**COMPLETE, "pool": "ne\x07ws", "entities": [entity]}
    feed.take(record(1, value), NOW)
    (mentioned,) = feed.trends.report("5m", NOW).most
    assert (mentioned.name, mentioned.type.isprintable()) == ("An\\u202ena", True)
    (kind,), (pool,) = feed.types, feed.pools
    assert kind.isprintable()
    assert LiveFilter(types=frozenset({kind}), pools=frozenset({pool})).wants(value)


@pytest.mark.parametrize("value", [b"\xff", b"{}", b'{"pool": 1, "status": "complete", "entities": []}', b"[]"])
def test_what_cannot_be_read_is_counted_and_passed_over(value: bytes) -> None:
    feed = feed_of()
    viewer = feed.view(LiveFilter())
    viewer.take()
    feed.take(FeedRecord(0, 0, 5, b"k", value), NOW)
    assert (feed.unreadable, feed.documents, viewer.take()) == (1, 0, None)


def test_what_breaks_the_schema_is_not_shown() -> None:
    feed = feed_of()
    viewer = feed.view(LiveFilter())
    feed.take(record(1, revision="x"), NOW)
    sent = viewer.take()
    assert sent is not None
    assert (ids(sent), sent["matched"]) == ([], 1)


def test_the_rate_is_of_the_latest_ten_seconds() -> None:
    feed = feed_of()
    assert feed.rate(NOW) == 0
    for second in range(30):
        for number in range(4 if second < 25 else 0):
            feed.take(record(number), NOW + second)
    assert feed.rate(NOW + 25) == 4
    assert feed.rate(NOW + 30) == 2
    assert feed.rate(NOW + 60) == 0


def test_types_and_pools_to_choose_from_are_bounded() -> None:
    feed = feed_of()
    entity = COMPLETE["entities"][0]
    for number in range(300):
        feed.take(record(number, pool=f"p{number}", entities=[{**entity, "type": f"t{number}"}]), NOW)
    assert len(feed.types) == len(feed.pools) == 100


FILTERS = {
    "type": (LiveFilter(types=frozenset({"person"})), True),
    "another type": (LiveFilter(types=frozenset({"date"})), False),
    "surface": (LiveFilter(surface="schröd"), True),
    "another surface": (LiveFilter(surface="berlin"), False),
    "confidence": (LiveFilter(min_confidence=0.9), True),
    "more confidence": (LiveFilter(min_confidence=0.92), False),
    "both of one entity": (LiveFilter(types=frozenset({"location"}), min_confidence=0.9), False),
    "pool": (LiveFilter(pools=frozenset({"news"})), True),
    "another pool": (LiveFilter(pools=frozenset({"logs"})), False),
    "status": (LiveFilter(statuses=frozenset({"failed", "partial"})), False),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_about_documents_and_about_one_entity(name: str) -> None:
    wanted, fits = FILTERS[name]
    assert wanted.wants(COMPLETE) is fits


def test_a_failed_document_fits_its_status_and_no_entity() -> None:
    assert LiveFilter(statuses=frozenset({"failed"})).wants(FAILED)
    assert not LiveFilter(types=frozenset({"person"})).wants(FAILED)
    feed = feed_of()
    viewer = feed.view(LiveFilter())
    feed.take(record(1, FAILED), NOW)
    sent = viewer.take()
    assert sent is not None
    assert sent["documents"][0]["readable"] is False
    assert sent["documents"][0]["error"]["code"] == "json"


def test_a_wrong_filter_is_named() -> None:
    assert read_filter({"surface": " Zoë  SCHRÖDER "}, {}).surface == "zoë schröder"
    for query, lists, what in (
        ({"min_confidence": "2"}, {}, "min_confidence"),
        ({"min_confidence": "nan"}, {}, "min_confidence"),
        ({"surface": "x" * 201}, {}, "surface"),
        ({}, {"status": ["done"]}, "status: one of complete, failed, partial"),
    ):
        with pytest.raises(ProblemError, match=what):
            read_filter(query, lists)
