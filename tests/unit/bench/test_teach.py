"""The simulated teacher of bench/teach.py, with a tagger that knows what its pool has."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typing_extensions import override

from el4ner.evaluation import Dataset
from el4ner.evaluation.sentence_records import SentenceRecord
from el4ner.pools import Pool, PoolSentence
from el4ner.types import Entity, Span
from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

import teach
from ablation.rows import Row, settings_of
from teaching_material import BEGINNING, Material, material_of

NAMES = [f"{first}{last}" for first in ("An", "Bo", "Cy", "Di") for last in ("ra", "li", "mo", "ne", "tu")]


def sentence(name: str, verb: str) -> PoolSentence:
    return PoolSentence(f"{name} {verb}", ((Span(0, len(name), name), "person"),))


POOL = Pool("made", {"person": "a person"}, (sentence("Zed", "ran"),))
STREAM = tuple(sentence(name, "ran") for name in NAMES)
MATERIAL = Material(
    Dataset("made/up", "test", POOL, tuple(sentence(name, "sat") for name in NAMES)), (POOL,), (STREAM,)
)


class Knowing(teach.Simulation):
    """Names of the pool are found, names with an ``n`` surely, the others with doubt, the rest not at all."""

    def __init__(self) -> None:
        super().__init__(settings_of(Row("", "", "", {})), {}, MATERIAL, Path("none"), 1)
        self.taggings: list[tuple[int, int]] = []

    @override
    def _tagged(self, pool: Pool, sentences: tuple[PoolSentence, ...]) -> Sequence[SentenceRecord]:
        self.taggings.append((len(pool.sentences), len(sentences)))
        known = {span.text for each in pool.sentences for span, _ in each.spans}
        records = []
        for each in sentences:
            ((span, label),) = each.spans
            confidence = 0.9 if "n" in span.text else 0.2
            found = (Entity(span.start, span.end, span.text, label, confidence),) if span.text in known else ()
            gold = ((span.start, span.end, label),)
            records.append(SentenceRecord(each.text, gold, (), (), found, {}, {}))
        return records


def test_by_chance_the_stream_is_taken_as_it_comes() -> None:
    simulation = Knowing()
    measured = simulation.row([0, 5, 20], None)
    assert [round(measured[size].f1[0], 3) for size in (0, 5, 20)] == [0, round(2 * 5 / 25, 3), 1]
    assert measured[5].changed is None
    assert [labelled for labelled, _ in simulation.taggings] == [1, 6, 21]


def test_the_teacher_goes_through_a_list_before_the_stream_is_tagged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teach, "A_LIST", 10)
    simulation = Knowing()
    measured = simulation.row([0, 4, 10, 15], teach.by_queue)
    assert [measured[size].changed for size in (0, 4, 10, 15)] == [(0,), (4,), (10,), (15,)]
    stream = [(labelled, size) for labelled, size in simulation.taggings if size != len(NAMES) or labelled == 1]
    assert (1, 20) in stream
    assert (11, 10) in stream, "ten are corrected: the stream is tagged with the pool of eleven"
    assert measured[15].f1[0] > measured[10].f1[0] > measured[4].f1[0] > 0


def test_how_many_by_the_queue_are_as_good_as_by_chance() -> None:
    simulation = Knowing()
    by_chance = simulation.row([0, 10, 20], None)
    twice = {0: by_chance[0], 5: by_chance[10], 20: by_chance[20]}
    figures = teach.Figures(MATERIAL, {"queue": twice, "random": by_chance})
    assert (figures.needed(10), figures.needed(20)) == (5.0, 20.0)
    never = teach.Figures(MATERIAL, {"queue": {0: by_chance[0]}, "random": by_chance})
    assert never.needed(20) is None
    lines = teach.markdown([replace(figures, by_row={"queue": by_chance, "random": by_chance})]).splitlines()
    assert lines[0] == "**made/up**, 20 sentences of the test split, 20 in the stream:"
    assert lines[2] == "| corrections | 0 | 10 | 20 |"
    assert lines[-1] == "| by the queue, for the F1 of chance | | 10 | 20 |"


def columns(path: Path, texts: list[str]) -> None:
    path.write_text("".join("\n".join(f"{word}\tO" for word in text.split()) + "\n\n" for text in texts))


def test_nothing_that_is_measured_or_known_is_in_the_stream(tmp_path: Path) -> None:
    columns(tmp_path / "train.txt", [f"Word {number} of train" for number in range(80)])
    with (tmp_path / "train.txt").open("a") as train:
        train.write("Ada\tB-person\nran\tO\n\n")
    columns(tmp_path / "dev.txt", [f"Word {number} of dev" for number in range(60)] + ["Word 3 of train"])
    columns(tmp_path / "test.txt", ["Word 7 of train", "Word 8 of dev", "Word 9 of test"])
    for split, count in (("dev", 10), ("test", 3)):
        material = material_of(tmp_path, split=split, limit=150, train=70, dev=40, held_out=10, seeds=2)
        measured = {sentence.text for sentence in material.dataset.sentences}
        assert len(measured) == count
        for seed in range(2):
            pool = {sentence.text for sentence in material.pool(seed, ()).sentences}
            stream = {sentence.text for sentence in material.candidates[seed]}
            assert len(pool) == BEGINNING
            assert not stream & (pool | measured)
        assert material.beginnings[0].sentences != material.beginnings[1].sentences


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--only", "quue"), "no such row; there are: queue, random"), ((), "nowhere: is no folder")],
)
def test_mistakes_are_told_before_any_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["teach.py", "--data", "nowhere", *arguments])
    with pytest.raises(SystemExit):
        teach.main()
    assert said in capsys.readouterr().err
