"""A learning curve: every part of the pool once, means and intervals over them, the picture, and what is not read
twice."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from el4ner.engines.base import Prompt, StateEngine, StateRequest
from el4ner.engines.instant import InstantEngine
from el4ner.engines.remembered_states import RememberedStates, remembering
from el4ner.evaluation import Dataset, EvaluationError, EvaluationResult, summarise
from el4ner.evaluation.curve_report import as_curve, render_curves, write_curve_report
from el4ner.evaluation.learning_curve import LearningCurve, learning_curve
from el4ner.evaluation.plots import Curve, Place, curve_fields
from el4ner.evaluation.pool_subsets import subsets_of
from el4ner.evaluation.scoring import Tally
from el4ner.evaluation.sentence_records import SentenceRecord
from el4ner.evaluation.stats import intervals, mean_f1
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.types import Entity, Span
from tests.support.doubles import ScriptedStateEngine

HOSTILE = '<script>"&'
ADA = Span(0, 3, "Ada")
POOL = Pool(
    "made",
    {"person": "a person", "ship": "a ship"},
    tuple(PoolSentence(f"Ada sailed {number}.", ((ADA, "person"),)) for number in range(20)),
)
SENTENCES = tuple(PoolSentence(f"Ada came {number} times.", ((ADA, "person"),)) for number in range(20))
DATASET = Dataset(f"made/{HOSTILE}", "test", POOL, SENTENCES)


def knows(pool: Pool) -> int:
    """As many sentences as the pool has are tagged, the others not: a learner that learns by heart."""
    return len(pool.sentences)


def by_heart(dataset: Dataset) -> EvaluationResult:
    entity = Entity(0, 3, "Ada", "person", 1.0)
    records = [
        SentenceRecord(
            sentence.text, ((0, 3, "person"),), (), (), (entity,) if place < knows(dataset.pool) else (), {}, {}
        )
        for place, sentence in enumerate(dataset.sentences)
    ]
    return summarise(records, pool=dataset.pool, settings={"method": "heart"}, fingerprints={})


def curve(sizes: Sequence[int | None] = (5, 10, None), seeds: int = 3) -> LearningCurve:
    return learning_curve(DATASET, subsets_of(POOL, sizes, seeds), by_heart)


def test_every_part_of_the_pool_is_measured_once_the_largest_first() -> None:
    pools: list[Pool] = []

    def run(dataset: Dataset) -> EvaluationResult:
        assert dataset.sentences == SENTENCES
        pools.append(dataset.pool)
        return by_heart(dataset)

    measured = learning_curve(DATASET, subsets_of(POOL, (5, 10, None), 3), run)
    assert [len(pool.sentences) for pool in pools] == [20, 10, 10, 10, 5, 5, 5]
    assert len({pool.fingerprint for pool in pools}) == 7
    assert [(point.size, len(point.runs)) for point in measured.points] == [(5, 3), (10, 3), (20, 1)]
    assert [point.f1[0] for point in measured.points] == pytest.approx([0.4, 2 / 3, 1.0])


def test_the_json_says_what_was_drawn_and_what_it_gave() -> None:
    figures = curve().as_json()
    assert figures["pool_sentences"] == 20
    assert figures["entities"] == 20
    assert figures["settings"] == {"method": "heart"}
    first, _, last = figures["points"]
    assert (first["size"], first["whole_pool"], last["whole_pool"]) == (5, False, True)
    assert [each["seed"] for each in first["seeds"]] == [0, 1, 2]
    assert first["seeds"][0]["missing_types"] == ("ship",)
    assert (first["labelled_spans"], first["missing_types"]) == (5, 1)
    assert first["recall"] == pytest.approx(0.25)
    low, high = first["f1_ci"]
    assert low < first["f1"] < high


def test_the_mean_is_over_runs_and_its_interval_over_sentences_and_runs() -> None:
    good, bad = [Tally(1, 1, 1)] * 50, [Tally(0, 1, 1)] * 50
    assert mean_f1([good, bad]) == (0.5, (0.0, 1.0)), "two runs that differ in everything say little"
    assert mean_f1([good, good]) == (1.0, (1.0, 1.0))
    mixed = [Tally(1, 1, 1), Tally(0, 1, 1)] * 100
    mean, (low, high) = mean_f1([mixed])
    assert (mean, low, high) == pytest.approx((0.5, *intervals(mixed).f1))
    _, (lower, higher) = mean_f1([mixed, [Tally(1, 1, 1)] * 150 + [Tally(0, 1, 1)] * 50])
    assert higher - lower > high - low, "runs that differ are less sure than their sentences"
    assert mean_f1([mixed, good * 4]) == mean_f1([mixed, good * 4])


def test_a_picture_needs_nothing_else_and_believes_no_name(tmp_path: Path) -> None:
    for file in (tmp_path / "curve.svg", tmp_path / "curve.html"):
        write_curve_report(file, curve())
        text = file.read_text(encoding="utf-8")
        assert "<script" not in text
        assert not re.search(r"(?:href|src)=", text)
    page = (tmp_path / "curve.html").read_text(encoding="utf-8")
    for words in ("20 (all)", "40.0", "without any labelled span", "<svg"):
        assert words in page
    with pytest.raises(EvaluationError, match="cannot be written"):
        write_curve_report(tmp_path / "none" / "curve.svg", curve())


def test_a_picture_has_a_field_for_each_data_set_and_a_name_for_each_curve() -> None:
    picture = render_curves(
        [(title, [as_curve(curve(), HOSTILE), as_curve(curve((5, 20)), "other")]) for title in ("one", "two")]
    )
    root = ElementTree.fromstring(picture)
    name = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{name}polyline")) == 6 - 2
    texts = [element.text for element in root.iter(f"{name}text")]
    for label in ("one", "two", HOSTILE, "other", "100", "20"):
        assert label in texts
    assert texts.count(HOSTILE) == 1, "one legend for all fields"
    titles = [element.text or "" for element in root.iter(f"{name}title")]
    assert any(title.startswith(f"{HOSTILE}, 5 labelled sentences: F1 40.0 (") for title in titles)


def test_more_curves_than_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="5 curves"):
        render_curves([("one", [as_curve(curve(), str(number)) for number in range(6)])])


def test_fields_share_their_axis_and_sizes_are_spread_by_their_ratio() -> None:
    places = tuple(Place(size, figure, (figure, figure)) for size, figure in ((10, 0.2), (20, 0.4), (40, 0.55)))
    small, large = curve_fields([("a", [Curve("x", places[:1])]), ("b", [Curve("y", places)])])
    assert small.figures == large.figures
    assert [tick.label for tick in large.figures] == ["0", "10", "20", "30", "40", "50", "60"]
    left, middle, right = (tick.at for tick in large.sizes)
    assert (left, middle, right) == (0, large.width / 2, large.width)
    assert small.sizes[0].at == small.width / 2
    assert large.curves[0].dots[0][1] == pytest.approx(large.height * (1 - 0.2 / 0.6), abs=0.01)


def test_sizes_may_be_anything_and_only_round_ones_be_labelled() -> None:
    places = tuple(Place(size, 0.4, (0.3, 0.5)) for size in (130, 480))
    picture = render_curves([("one", [Curve("x", places)])], unit="ms", ticks=(100, 200, 400, 600))
    root = ElementTree.fromstring(picture)
    name = "{http://www.w3.org/2000/svg}"
    texts = {element.text for element in root.iter(f"{name}text")}
    assert {"ms", "200", "400"} <= texts
    assert not {"labelled sentences", "100", "130", "480", "600"} & texts
    assert root.get("aria-label") == "F1 by ms"
    (field,) = curve_fields([("one", [Curve("x", places)])], ticks=(260,))
    assert 0 < field.sizes[0].at < field.width


ONE, TWO = Prompt("s", "one"), Prompt("s", "two")


def test_states_are_read_once_and_are_the_engines() -> None:
    engine, twin = ScriptedStateEngine("a"), ScriptedStateEngine("a")
    known = RememberedStates(engine)
    for requests in (
        [StateRequest(ONE, ("x", "y"))],
        [StateRequest(TWO, ("x",)), StateRequest(ONE, ("y", "z"))],
        [StateRequest(ONE, ("z", "x")), StateRequest(TWO, ("x",))],
        [StateRequest(ONE, ("new", "newer")), StateRequest(ONE, ("newer", "x"))],
        [StateRequest(ONE, ("one two", "x"), ((3, 7), ())), StateRequest(ONE, ("one two",), ((3,),))],
        [StateRequest(ONE, ("one two", "one two", "x"), ((3, 7), (3,), (1,)))],
        [StateRequest(ONE, ())],
        [],
    ):
        for mine, its in zip(known.states(requests), twin.states(requests), strict=True):
            np.testing.assert_array_equal(mine.states, its.states)
    asked = [(request.prompt.user, request.tails) for request in engine.shown]
    assert asked[:3] == [("one", ("x", "y")), ("two", ("x",)), ("one", ("z",))]
    again = len(engine.shown)
    (remembered,) = known.states([StateRequest(TWO, ("x",))])
    assert len(engine.shown) == again
    assert remembered.usage.prompt_tokens == 0, "nothing was read"


def test_what_was_asked_for_longest_ago_is_forgotten_first() -> None:
    engine = ScriptedStateEngine("a")
    known = RememberedStates(engine, most_bytes=2 * 2 * 8 * 4)
    for user in ("one", "two", "one", "three", "one", "two"):
        known.states([StateRequest(Prompt("s", user), ("x",))])
    assert [request.prompt.user for request in engine.shown] == ["one", "two", "three", "two"]


def test_it_passes_for_the_engine_that_it_asks() -> None:
    engine = ScriptedStateEngine("a", prefer=lambda tail, candidates: candidates[-1])
    known = remembering(engine)
    assert isinstance(known, StateEngine)
    for name in ("name", "fingerprint", "context_length", "hidden_size"):
        assert getattr(known, name) == getattr(engine, name)
    assert known.count_tokens(ONE) == engine.count_tokens(ONE)
    without_states = InstantEngine("b")
    assert remembering(without_states) is without_states
