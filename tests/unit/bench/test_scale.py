"""The scale table: which rows there are and how they are compared; nothing is measured here."""

from __future__ import annotations

import sys

import pytest

from el4ner.evaluation import EvaluationResult, SentenceRecord
from el4ner.evaluation.summary import summarise
from el4ner.pools import Pool, PoolSentence
from el4ner.types import Entity, Span
from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

from scale import GEMMA, HALF, LARGE, ROWS, SMOL, ScaleRow, figures, markdown

POOL = Pool("p", {"place": "a place"}, (PoolSentence("Bonn", ((Span(0, 4, "Bonn"), "place"),)),))


def result(right: int, of: int = 20) -> EvaluationResult:
    """So many sentences with one entity, of which the first ones are found."""
    entity = (Entity(0, 4, "Bonn", "place", 1.0),)
    records = [
        SentenceRecord(f"Bonn {n}", ((0, 4, "place"),), (), (), entity if n < right else (), {"extract": 0.5}, {})
        for n in range(of)
    ]
    return summarise(records, pool=POOL, settings={}, fingerprints={})


def test_a_member_alone_comes_before_the_ensembles_that_are_compared_with_it() -> None:
    keys = [row.key for row in ROWS]
    assert len(set(keys)) == len(keys)
    for row in ROWS:
        assert all(keys.index(ScaleRow((name,)).key) <= keys.index(row.key) for name in row.members)
    assert {"135M", "270M", "0.5B", "1.5B", "135M+270M", "270M+0.5B+1.5B"} <= set(keys)
    assert ScaleRow((SMOL, GEMMA)).parameters == 402_613_184


def test_an_ensemble_is_compared_with_its_best_member() -> None:
    results = {"135M": result(4), "270M": result(9), "0.5B": result(20), "135M+270M": result(10)}
    found = figures(ScaleRow((SMOL, GEMMA)), results)
    assert found["best_member"] == "270M"
    assert found["difference"] == pytest.approx(20 / 30 - 18 / 29)
    assert found["cpu_seconds_per_sentence"] == pytest.approx(0.5)
    assert "difference" not in figures(ScaleRow((HALF,)), results)


def test_the_table_shows_what_is_there_so_far() -> None:
    results = {"270M": result(9), "0.5B": result(12), "270M+0.5B": result(4)}
    pair = figures(ScaleRow((GEMMA, HALF)), results)
    one = {key: figures(ScaleRow((name,)), results) for key, name in (("270M", GEMMA), ("0.5B", HALF))}
    table = markdown({"first": {**one, "270M+0.5B": pair}, "second": {"270M": one["270M"]}})
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()}
    assert "−41." in lines["270M+0.5B"]
    assert lines["270M+0.5B"].endswith("| – | – | 0.50 |")
    assert "0.50 / 0.50" in lines["270M"]
    assert ScaleRow((LARGE,)).key not in lines
