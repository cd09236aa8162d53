"""Weights from the pool alone: in which order sources are asked, what early settling may cost, and the file."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.engines.base import LAYERS
from el4ner.evidence import Calibration, Evidence, SentenceQuestion, Source, StateSource, calibrate, even_calibration
from el4ner.evidence.calibration import COSTS_AT_MOST, IN_CONTEXT_SENTENCES, calibration_key
from el4ner.evidence.combination import Combination
from el4ner.evidence.leave_one_out import Figures
from el4ner.evidence.span_memory import PoolSpans, SpanMemory
from el4ner.text.overlaps import resolve_overlaps
from el4ner.types import NONE_TYPE, Entity
from tests.support.doubles import ToldProgress
from tests.support.evidence_worlds import KINDS, NONE, TYPES, KnownSource, in_context, made_spans, noisy
from tests.support.examples import examples

SPANS = made_spans()


def known(name: str, strength: float, seed: int = 1, spans: PoolSpans = SPANS, **more: Any) -> KnownSource:
    return KnownSource(name, spans, noisy(spans.labels, strength, seed), **more)


def test_the_best_source_is_asked_first_and_those_that_ask_in_context_last() -> None:
    weak, strong = known("weak", 1.0, 1), known("strong", 3.0, 2)
    perfect, _ = in_context("member", SPANS, noisy(SPANS.labels, 50.0, 3))
    found = calibrate([perfect, weak, strong], SPANS, KINDS)
    assert [step.source for step in found.steps] == ["strong", "weak", "member in context"]
    assert [len(step.combination.weights) for step in found.steps] == [1, 2, 3]
    assert found.steps[-1].margin is None
    assert found.steps[-1].combination.weights[2] > max(found.steps[-1].combination.weights[:2])


def test_a_source_that_knows_nothing_gets_about_nothing() -> None:
    found = calibrate([known("useless", 0.0, 1), known("strong", 3.0, 2)], SPANS, KINDS)
    assert [step.source for step in found.steps] == ["strong", "useless"]
    assert found.steps[-1].combination.weights[1] < 0.15 * found.steps[-1].combination.weights[0]


def test_figures_say_how_well_the_pool_itself_was_tagged() -> None:
    found = calibrate([known("perfect", 50.0)], SPANS, KINDS)
    proposed = SPANS.proposed & (SPANS.labels != NONE)
    gold = int((SPANS.labels != NONE).sum())
    recall = int(proposed.sum()) / gold
    assert found.figures is not None
    assert (found.figures.precision, found.figures.recall) == (1.0, recall), "what nobody proposed is missed"
    assert (found.sentences, found.spans) == (40, int(SPANS.proposed.sum()))
    guessing = calibrate([known("useless", 0.0)], SPANS, KINDS)
    assert guessing.figures is not None
    assert guessing.figures.f1 < 0.6


def asked_of(sources: Sequence[KnownSource], found: Calibration, spans: PoolSpans, *, adaptive: bool = True) -> Figures:
    """Strict scores of the ensemble on the pool itself, by the way that documents go."""
    evidence = Evidence(sources, found, TYPES, adaptive=adaptive)
    proposed = iter(spans.proposed)
    questions = [
        SentenceQuestion(text, tuple(span for span in own if next(proposed)))
        for text, own in zip(spans.texts, spans.spans, strict=True)
    ]
    gold = {
        (place, span.start, TYPES[label])
        for place, own in enumerate(spans.spans)
        for span, label in zip(own, spans.labels[4 * place :].tolist(), strict=False)
        if label != NONE
    }
    reported = set()
    for place, (question, own) in enumerate(zip(questions, evidence.judge(questions)[0], strict=True)):
        entities = [
            Entity(span.start, span.end, span.text, one.type, one.confidence)
            for span, one in zip(question.spans, own, strict=True)
            if one.type != NONE_TYPE
        ]
        reported |= {(place, entity.start, entity.type) for entity in resolve_overlaps(entities)}
    right = len(reported & gold)
    return Figures(right / max(1, len(reported)), right / len(gold), 2 * right / (len(reported) + len(gold)))


@settings(max_examples=examples(15), deadline=None)
@given(st.integers(0, 999), st.lists(st.floats(0, 6), min_size=1, max_size=3))
def test_settling_clear_spans_early_costs_next_to_nothing_on_the_pool(seed: int, strengths: list[float]) -> None:
    spans = made_spans(seed, sentences=25)
    sources = [known(f"s{number}", strength, seed + number, spans) for number, strength in enumerate(strengths)]
    found = calibrate(sources, spans, KINDS)
    full = asked_of(sources, found, spans, adaptive=False)
    early = asked_of(sources, found, spans)
    assert found.figures is not None
    assert early.f1 >= full.f1 - COSTS_AT_MOST - 1e-9
    assert early.f1 == pytest.approx(found.figures.f1), "the figures are those of the way that documents go"
    assert found.steps[-1].figures is not None
    assert full.f1 == pytest.approx(found.steps[-1].figures.f1)


def test_where_the_first_source_knows_all_the_others_are_asked_about_little() -> None:
    sources = [known("perfect", 50.0, 1), known("weak", 1.0, 2)]
    found = calibrate(sources, SPANS, KINDS)
    asked_of(sources, found, SPANS)
    assert len(sources[0].asked) == SPANS.proposed.sum()
    assert sources[1].asked == []


def small(spans: PoolSpans, sentences: int) -> PoolSpans:
    rows = slice(0, 4 * sentences)
    return PoolSpans(
        spans.texts[:sentences],
        spans.spans[:sentences],
        spans.labels[rows],
        spans.sentences[rows],
        spans.proposed[rows],
    )


@pytest.mark.parametrize(
    "spans",
    [
        small(SPANS, 9),
        PoolSpans(SPANS.texts, SPANS.spans, np.full_like(SPANS.labels, NONE), SPANS.sentences, SPANS.proposed),
        PoolSpans(SPANS.texts, SPANS.spans, SPANS.labels, SPANS.sentences, np.zeros_like(SPANS.proposed)),
        PoolSpans((), (), *(np.zeros(0, np.int64),) * 2, np.zeros(0, bool)),
    ],
    ids=["nine sentences", "no entities", "nothing proposed", "nothing at all"],
)
def test_a_pool_that_says_too_little_gives_even_weights(spans: PoolSpans) -> None:
    sources: list[Source] = [known("one", 1.0, 1), KnownSource("two", SPANS, noisy(SPANS.labels, 1.0, 2, features=2))]
    found = calibrate(sources, spans, KINDS)
    assert found.figures is None
    assert [step.source for step in found.steps] == ["one", "two"]
    assert found.steps[0].combination == Combination.even(1)
    assert found.steps[1].combination == Combination.even(3)
    assert found == even_calibration(sources, spans)


def test_even_weights_ask_every_source_about_every_span() -> None:
    sources = [known("one", 50.0, 1), known("two", 50.0, 2)]
    asked_of(sources, even_calibration(sources, SPANS), SPANS)
    assert len(sources[0].asked) == len(sources[1].asked) == SPANS.proposed.sum()
    assert [source.estimated for source in sources] == [0, 0]


def test_the_same_pool_gives_the_same_calibration_in_whatever_order_the_sources_are() -> None:
    sources: list[Source] = [known("one", 1.0, 1), known("two", 1.5, 2), known("three", 1.5, 3)]
    first = calibrate(sources, SPANS, KINDS)
    assert calibrate(sources, SPANS, KINDS) == first
    assert calibrate(sources[::-1], SPANS, KINDS) == first
    assert calibrate(sources[::-1], SPANS, KINDS).fingerprint == first.fingerprint


def test_of_a_large_pool_a_part_is_asked_about_in_context() -> None:
    spans = made_spans(sentences=IN_CONTEXT_SENTENCES + 60)
    member, questions = in_context("member", spans, noisy(spans.labels, 3.0, 1))
    found = calibrate([member, known("states", 2.0, 2, spans)], spans, KINDS)
    texts = [question.text for question in questions]
    assert len(texts) == len(set(texts)) == found.sentences == IN_CONTEXT_SENTENCES
    assert texts == [text for text in spans.texts if text in set(texts)], "in the pool's order"
    assert texts != list(spans.texts[:IN_CONTEXT_SENTENCES]), "and not the first ones"
    assert found.figures is not None
    assert found.figures.f1 > 0.7, "spans and labels still belong together"
    assert calibrate([known("states", 2.0, 2, spans)], spans, KINDS).sentences == len(spans.texts)


def test_progress_is_told_of_every_source() -> None:
    progress = ToldProgress()
    calibrate([known("one", 1.0, 1), known("two", 1.0, 2)], SPANS, KINDS, label="weighing", progress=progress)
    assert progress.told == [("weighing", 2), 1, 1, "done"]


# --- the key and the file -------------------------------------------------------------------------------------------


def test_the_key_follows_all_that_the_weights_depend_on() -> None:
    one, two = known("one", 1.0), known("two", 1.0)
    plain = calibration_key([one, two])
    assert calibration_key([two, one]) == plain
    more_features = KnownSource("two", SPANS, noisy(SPANS.labels, 1.0, 1, features=2))
    others = {
        calibration_key([one]),
        calibration_key([one, known("three", 1.0)]),
        calibration_key([one, known("two", 1.0, fingerprint="g")]),
        calibration_key([one, more_features]),
    }
    assert len(others - {plain}) == 4


def test_the_key_follows_the_pool_and_its_proposals_by_what_the_sources_say_of_themselves() -> None:
    """Who combines what others said has no pool to compare: the key is made of the sources alone."""
    changed = [
        SPANS,
        replace(SPANS, labels=(SPANS.labels + 1) % KINDS),
        replace(SPANS, texts=("other", *SPANS.texts[1:])),
        replace(SPANS, proposed=~SPANS.proposed),
    ]
    encoder: Any = SimpleNamespace(name="a", fingerprint="f")
    memory = SpanMemory.of(np.zeros((len(SPANS.labels), LAYERS, 4), np.float32))
    keys = {calibration_key([StateSource(encoder, memory, spans, KINDS, ["neighbours"])]) for spans in changed}
    assert len(keys) == len(changed)


def opened(folder: Path, *sources: Source, **more: Any) -> Calibration:
    return Calibration.open(folder, sources, SPANS, KINDS, **more)


def test_weights_are_estimated_once_and_then_taken_from_their_file(tmp_path: Path) -> None:
    first = [known("one", 1.0, 1), known("two", 2.0, 2)]
    made = opened(tmp_path / "not yet there", *first)
    again = [known("one", 1.0, 1), known("two", 2.0, 2)]
    stored = opened(tmp_path / "not yet there", *again)
    assert [source.estimated for source in (*first, *again)] == [1, 1, 0, 0]
    assert stored == made
    assert stored.fingerprint == made.fingerprint


def test_values_survive_the_file() -> None:
    for found in (
        calibrate([known("a", 1.0, 1), known("b", 2.0, 2)], SPANS, KINDS),
        even_calibration([known("a", 1.0)], SPANS),
    ):
        assert Calibration.from_json(found.as_json()) == found


def test_fresh_weights_are_estimated_in_any_case(tmp_path: Path) -> None:
    opened(tmp_path, known("one", 1.0))
    again = known("one", 1.0)
    opened(tmp_path, again, fresh=True)
    assert again.estimated == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"weights"', '"heights"'),
        lambda text: re.sub(r'"format": \d+', '"format": 0', text),
    ],
    ids=["empty", "half", "something else", "a key is missing", "of another version"],
)
def test_a_damaged_file_is_made_anew(
    tmp_path: Path, damage: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    made = opened(tmp_path, known("one", 1.0))
    (path,) = tmp_path.iterdir()
    text = path.read_text(encoding="utf-8")
    path.write_text(damage(text), encoding="utf-8")
    again = known("one", 1.0)
    with caplog.at_level(logging.WARNING):
        assert opened(tmp_path, again) == made
    assert again.estimated == 1
    assert "made anew" in caplog.text
    assert path.read_text(encoding="utf-8") == text


def test_a_file_of_another_pool_is_not_taken(tmp_path: Path) -> None:
    """Somebody copied a file over it."""
    made = opened(tmp_path, known("one", 1.0))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(made.key.encode(), b"0" * 24))
    again = known("one", 1.0)
    assert opened(tmp_path, again).key == made.key
    assert again.estimated == 1


def test_several_may_open_it_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    found: list[Calibration] = []

    class Waiting(KnownSource):
        def leave_one_out(self, *asked: Any) -> Any:
            together.wait(timeout=30)
            return super().leave_one_out(*asked)

    def work() -> None:
        found.append(opened(tmp_path, Waiting("one", SPANS, noisy(SPANS.labels, 1.0, 1))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(one == found[0] for one in found)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"], "one file, nothing left over"
