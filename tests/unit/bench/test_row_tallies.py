"""What bench/paper_scale.py counts, and how it goes on on another machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from el4ner.errors import El4nerError
from el4ner.evaluation import SentenceRecord
from el4ner.evaluation.sentence_records import Considered
from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

from ablation.paper_rows import paper_rows
from ablation.row_tallies import RowTallies, SentenceTally, load_tallies, save_tallies

ROWS = paper_rows(("a", "best"))


def tallied(right: int) -> list[SentenceTally]:
    return [SentenceTally(right, 2, 4, 3), SentenceTally(1, 2, 2, 2)]


def test_figures_are_of_all_sentences_together_and_compare_with_the_best_member_alone() -> None:
    best = next(row for row in ROWS if not row.is_ensemble)
    one = RowTallies("p", "f", 7, {row.key: tallied(2 if row is best else 1) for row in ROWS})
    table = one.figures(ROWS)
    assert (table["sentences"], table["pool_sentences"], table["reference"]) == (2, 7, best.key)
    row = table["rows"][ROWS[0].key]
    assert row["f1"] == pytest.approx(2 * 2 / (4 + 6))
    assert (row["precision"], row["recall"], row["candidate_recall"]) == (2 / 4, 2 / 6, 5 / 6)
    assert row["difference"] == pytest.approx(4 / 10 - 6 / 10)
    assert table["rows"][best.key]["difference"] == 0


def test_what_was_measured_goes_on_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tallies.json"
    first = load_tallies(path, "p", "f", 7)
    assert first.count == 0
    first.rows = {"x": tallied(1), "y": tallied(1)[:1]}  # it ended before all rows had the second one
    save_tallies(path, [first])
    save_tallies(path, [RowTallies("other", "g", 1, {"x": tallied(1)})])
    again = load_tallies(path, "p", "f", 7)
    assert (again.count, again.rows) == (1, {"x": tallied(1)[:1], "y": tallied(1)[:1]})
    with pytest.raises(El4nerError, match=r"p is of other sentences"):
        load_tallies(path, "p", "of something else", 7)


def test_a_sentence_is_four_numbers() -> None:
    considered = [Considered(start, end, "", ("a",), "x", 0.5, {}, None, "none") for start, end in ((0, 3), (4, 9))]
    record = SentenceRecord(
        text="Bonn is old.",
        gold=((0, 3, "x"), (5, 6, "x")),
        pieces=(),
        candidates=tuple(considered),
        entities=(),
        seconds={},
        usage={},
    )
    assert SentenceTally.of(record) == (0, 0, 2, 1)
