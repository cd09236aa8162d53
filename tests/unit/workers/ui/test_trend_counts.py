"""What is mentioned most and more than before, in bounded memory. The clock is the tests'."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from workers.ui.trend_counts import BoundedCounts, Mention, TrendCounts

LONDON: Mention = ("location", "London")
ADA: Mention = ("person", "Ada")
NOON = 1_000_000 * 3600.0


def test_names_are_ranked_by_how_often_they_are_mentioned() -> None:
    trends = TrendCounts(10, NOON)
    trends.add([LONDON, LONDON, ADA], (0, 1), NOON)
    report = trends.report("5m", NOON + 1)
    assert [(trend.type, trend.name, trend.count) for trend in report.most] == [
        ("location", "London", 2),
        ("person", "Ada", 1),
    ]
    assert report.types == {"location": 2, "person": 1}
    assert (report.mentions, report.error, report.covered_seconds) == (3, 0, 1)
    assert [trend.name for trend in trends.report("5m", NOON + 1, kind="person").most] == ["Ada"]


@pytest.mark.parametrize(("window", "seconds"), [("5m", 300), ("1h", 3600), ("24h", 86_400)])
def test_what_is_older_than_the_window_is_not_counted(window: str, seconds: int) -> None:
    trends = TrendCounts(10, NOON)
    trends.add([ADA], (0, 1), NOON)
    for at in (NOON + seconds / 2, NOON + 0.9 * seconds):
        report = trends.report(window, at)
        assert [trend.count for trend in report.most] == [1], at
        assert sum(report.most[0].series) == 1
    assert trends.report(window, NOON + seconds + 3601).most == []


def test_every_window_counts_the_same_mentions() -> None:
    trends = TrendCounts(10, NOON)
    for minute in range(4):
        trends.add([ADA] * (minute + 1), (0, minute), NOON + 60 * minute)
    for window in ("5m", "1h", "24h"):
        report = trends.report(window, NOON + 200)
        assert [trend.count for trend in report.most] == [10], window
        assert sum(report.most[0].series) == 10


def test_what_is_mentioned_more_than_before_rises() -> None:
    trends = TrendCounts(10, NOON)
    for second in range(0, 600, 10):
        later = second >= 300
        trends.add([LONDON] * 5 + [ADA] * (8 if later else 1), (0, second), NOON + second)
    report = trends.report("5m", NOON + 599)
    assert report.rising is not None
    assert [trend.name for trend in report.rising] == ["Ada"]
    assert report.rising[0].count == 240
    assert report.rising[0].before == pytest.approx(30, rel=0.05)
    assert trends.report("1h", NOON + 599).rising is None


def test_nothing_rises_as_long_as_there_is_nothing_to_compare_with() -> None:
    trends = TrendCounts(10, NOON)
    trends.add([ADA], (0, 1), NOON)
    assert trends.report("5m", NOON + 100).rising is None


def test_counts_are_never_too_high_and_too_low_by_no_more_than_is_said() -> None:
    draw = random.Random(7)
    counts, truth = BoundedCounts(50), Counter[Mention]()
    for _ in range(20_000):
        mention = ("t", str(int(draw.paretovariate(0.6))))
        counts.add(mention)
        truth[mention] += 1
        assert len(counts.counts) <= 100
    assert counts.total == 20_000
    assert counts.error <= 20_000 / 50
    for mention, count in truth.items():
        assert count - counts.error <= counts.counts.get(mention, 0) <= count


def test_what_is_merged_keeps_its_bound() -> None:
    whole, truth = BoundedCounts(20), Counter[Mention]()
    draw = random.Random(3)
    for _ in range(10):
        part = BoundedCounts(20)
        for _ in range(500):
            mention = ("t", str(int(draw.paretovariate(0.8))))
            part.add(mention)
            truth[mention] += 1
        part.trim()
        assert len(part.counts) <= 20
        whole.merge(part)
    assert whole.total == 5_000
    for mention, count in truth.items():
        assert count - whole.error <= whole.counts.get(mention, 0) <= count


def test_memory_is_bounded_whatever_is_mentioned() -> None:
    trends = TrendCounts(10, NOON)
    for number in range(5_000):
        trends.add([("t", str(number))], (0, number), NOON + 20 * number)
    buckets = [counts for level in trends._levels for _, counts in level]
    assert len(buckets) <= 20 + 24 + 48
    assert all(len(counts.counts) <= 20 for counts in buckets)
    assert len(trends._places) <= 40


def test_it_is_known_where_the_latest_documents_with_a_name_lie() -> None:
    trends = TrendCounts(10, NOON)
    for number in range(8):
        trends.add([ADA, ADA], (1, number), NOON)
    assert trends.places(ADA) == [(1, 7), (1, 6), (1, 5), (1, 4), (1, 3)]
    assert trends.places(LONDON) == []
