"""How the chaos suite counts: what it would call lost, duplicated and recovered."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.chaos import report
from tests.chaos.tally import Emitted, Record, recovery_seconds, tally


def steady(partition: int, start: float, end: float, every: float = 0.5) -> list[Emitted]:
    """A partition that gives results all the time."""
    count = int((end - start) / every) + 1
    return [Emitted((f"d-{partition}-{n}", 0), "complete", partition, start + n * every) for n in range(count)]


def test_everything_once_is_neither_lost_nor_duplicated() -> None:
    counted = tally([("a", 0), ("b", 0)], [("b", 0), ("a", 0)])
    assert (counted.documents_in, counted.documents_out) == (2, 2)
    assert (counted.lost, counted.duplicated, counted.strangers) == ((), 0, ())


def test_what_did_not_come_out_is_lost_and_every_message_too_many_is_a_duplicate() -> None:
    counted = tally([("a", 0), ("b", 0), ("c", 0)], [("a", 0), ("a", 0), ("a", 0), ("b", 0)])
    assert counted.lost == (("c", 0),)
    assert counted.repeated == {("a", 0): 2}
    assert counted.duplicated == 2
    assert (counted.documents_in, counted.documents_out) == (3, 4)


def test_a_duplicate_does_not_make_up_for_a_loss() -> None:
    counted = tally([("a", 0), ("b", 0)], [("a", 0), ("a", 0)])
    assert counted.documents_in == counted.documents_out
    assert (len(counted.lost), counted.duplicated) == (1, 1)


def test_two_revisions_are_two_documents() -> None:
    assert tally([("a", 0), ("a", 1)], [("a", 0), ("a", 1)]).duplicated == 0
    assert tally([("a", 0), ("a", 1)], [("a", 1), ("a", 1)]).lost == (("a", 0),)


def test_what_was_sent_twice_has_to_come_out_once() -> None:
    assert tally([("a", 0), ("a", 0)], [("a", 0)]).documents_in == 1
    assert tally([("a", 0), ("a", 0)], [("a", 0), ("a", 0)]).duplicated == 1


def test_what_nobody_sent_is_a_stranger() -> None:
    assert tally([("a", 0)], [("a", 0), ("z", 0)]).strangers == (("z", 0),)


def test_nothing_stopped_is_no_recovery() -> None:
    assert recovery_seconds([], steady(0, 0, 20)) is None
    assert recovery_seconds([10.0], steady(0, 0, 20)) is None
    assert recovery_seconds([10.0], []) is None


def test_recovery_is_from_the_fault_to_the_first_result_after_the_silence() -> None:
    emitted = [*steady(0, 0, 10.5), *steady(0, 17, 30)]
    assert recovery_seconds([10.0], emitted) == pytest.approx(7.0)


def test_a_partition_that_stops_counts_though_the_others_go_on() -> None:
    emitted = [*steady(0, 0, 30), *steady(1, 0, 10), *steady(1, 16, 30)]
    assert recovery_seconds([10.0], emitted) == pytest.approx(6.0)


def test_of_several_faults_the_worst_counts_and_each_only_until_the_next() -> None:
    emitted = [*steady(0, 0, 10), *steady(0, 13, 20), *steady(0, 28, 40)]
    assert recovery_seconds([10.0, 20.0], emitted) == pytest.approx(8.0)
    assert recovery_seconds([10.0], [*steady(0, 0, 10), *steady(0, 13, 40)]) == pytest.approx(3.0)
    # The second fault comes before the first is over: the silence is that of both.
    assert recovery_seconds([10.0, 12.0], [*steady(0, 0, 10), *steady(0, 18, 30)]) == pytest.approx(8.0)


def test_the_end_of_the_load_is_no_silence() -> None:
    assert recovery_seconds([10.0], steady(0, 0, 11)) is None
    assert recovery_seconds([10.0], [*steady(0, 0, 8)]) is None


def test_a_record_has_the_keys_of_the_report() -> None:
    record = Record("kill-workers", 10, 10, 0, 0, None, 7, "ok")
    assert list(record.to_json()) == [
        "scenario",
        "documents_in",
        "documents_out",
        "lost",
        "duplicated",
        "recovery_seconds",
        "seed",
        "status",
    ]
    assert record.to_json()["recovery_seconds"] is None


def test_the_report_is_a_table_and_a_list(tmp_path: Path) -> None:
    records = [
        Record("kill-workers", 20_000, 20_000, 0, 0, 7.25, 1, "ok"),
        Record("redis", 5, 4, 1, 0, None, 1, "failed"),
        Record.without_figures("scale", 1, "not run"),
    ]
    head, good, bad, not_run = report.table(
        [(records[0], []), (records[1], ["1 documents lost", "more"]), (records[2], ["no time"])]
    )
    assert head.split() == ["scenario", "in", "out", "lost", "duplicated", "recovery", "s", "seed"]
    assert good.split() == ["kill-workers", "20000", "20000", "0", "0", "7.2", "1", "ok"]
    assert bad.split("  ")[-1] == "FAILED: 1 documents lost"
    assert not_run.split() == ["scale", "–", "–", "–", "–", "–", "1", "NOT", "RUN:", "no", "time"]
    report.write(tmp_path / "build" / "chaos.json", records)
    assert orjson.loads((tmp_path / "build" / "chaos.json").read_bytes()) == [record.to_json() for record in records]
