"""The mix of a stream over a window: when it is known, what is corrected by it, and what the log says of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.evidence.judges import Floats
from el4ner.evidence.priors import Shares
from el4ner.evidence.stream_mix import ESTIMATE_EVERY, WINDOW, Priors, StreamMix

POOL = np.array([0.9, 0.1])
PERSON, PLACE, NONE = (0.94, 0.03, 0.03), (0.03, 0.94, 0.03), (0.01, 0.01, 0.98)
UNSURE = (0.5, 0.4, 0.1)
Belief = tuple[float, float, float]


def answers(*beliefs: Belief) -> Floats:
    return np.log(np.array(beliefs, np.float32).reshape(-1, 3))


def following(
    *, priors: Priors = "stream", threshold: float = 0.05, pool: Shares = POOL, density: float = 0.9
) -> StreamMix:
    return StreamMix("news", ("person", "place"), pool, pool_density=density, priors=priors, threshold=threshold)


def seen(mix: StreamMix, *beliefs: Belief, times: int) -> None:
    mix.corrected(answers(*beliefs * times))


ENOUGH = 4 * ESTIMATE_EVERY


def test_nothing_is_said_or_corrected_of_a_few_spans() -> None:
    mix = following()
    seen(mix, PLACE, times=ESTIMATE_EVERY - 1)
    assert mix.report is None
    unsure = answers(UNSURE)
    assert (mix.reweighted(unsure) == unsure).all()


def test_what_is_no_entity_does_not_count() -> None:
    mix = following()
    seen(mix, NONE, times=20 * ESTIMATE_EVERY)
    assert mix.report is None


def test_an_unclear_span_gets_the_type_that_the_stream_shows() -> None:
    mix = following()
    seen(mix, PLACE, times=ENOUGH)
    (corrected,) = mix.corrected(answers(UNSURE))
    assert corrected.argmax() == 1
    assert np.exp(corrected[2]) == pytest.approx(0.1, abs=0.06), "most candidates are entities, as in the pool"
    assert mix.report is not None
    assert mix.report.shares["place"] > 0.7
    assert mix.report.entities == pytest.approx(ENOUGH, rel=0.05)


def test_with_the_pools_priors_the_mix_is_reported_and_nothing_is_corrected() -> None:
    mix = following(priors="pool")
    unsure = answers(UNSURE)
    for _ in range(ENOUGH):
        assert (mix.corrected(unsure) == unsure).all()
    seen(mix, PLACE, times=ENOUGH)
    assert mix.report is not None
    assert mix.report.drifted
    assert (mix.corrected(unsure) == unsure).all()


def test_only_the_latest_spans_count() -> None:
    mix = following()
    seen(mix, PLACE, times=ENOUGH)
    seen(mix, *[PERSON] * 9, PLACE, times=WINDOW // 10 + ESTIMATE_EVERY)
    assert mix.report is not None
    assert mix.report.shares["place"] == pytest.approx(0.1, abs=0.05)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([PERSON, PLACE, NONE, UNSURE]), min_size=1, max_size=12), st.lists(st.integers(1, 700)))
def test_how_spans_are_batched_makes_no_difference(pattern: list[Belief], sizes: list[int]) -> None:
    stream = answers(*(pattern * 2_000)[:2_000])
    whole = following()
    expected = whole.corrected(stream)
    cuts = [cut for cut in np.cumsum(sizes) if cut < len(stream)]
    batched = following()
    assert (np.concatenate([batched.corrected(part) for part in np.split(stream, cuts)]) == expected).all()
    assert batched.report == whole.report


def test_a_fingerprint_tells_that_answers_depend_on_the_stream() -> None:
    assert following(priors="pool").marked("f-full") == "f-full"
    assert following(priors="density").marked("f-full") == "f-full-density"
    assert following(priors="stream").marked("f-full") == "f-full-stream"


def test_with_density_more_is_an_entity_where_the_stream_has_more_and_types_stay() -> None:
    mix = following(priors="density", density=0.1)
    seen(mix, PLACE, NONE, times=ENOUGH)
    (corrected,) = np.exp(mix.corrected(answers((0.24, 0.16, 0.6))))
    assert corrected[2] < 0.4
    assert corrected[0] / corrected[1] == pytest.approx(1.5, rel=1e-3)


def test_after_it_has_begun_anew_nothing_of_the_stream_is_left() -> None:
    mix = following()
    seen(mix, PLACE, times=ENOUGH)
    mix.begin_anew()
    unsure = answers(UNSURE)
    assert mix.report is None
    assert (mix.corrected(unsure) == unsure).all()


# --- drift ---


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="el4ner.evidence.stream_mix")
    return caplog


MIXED: Sequence[Belief] = [*[PERSON] * 9, PLACE]
LIKE_THE_POOL = WINDOW // len(MIXED) + ESTIMATE_EVERY


def test_a_stream_like_the_pool_is_no_drift(told: pytest.LogCaptureFixture) -> None:
    mix = following()
    seen(mix, *MIXED, times=LIKE_THE_POOL)
    assert mix.report is not None
    assert not mix.report.drifted
    assert lines(told) == []


def test_a_drift_is_told_when_it_begins_and_when_it_is_over(told: pytest.LogCaptureFixture) -> None:
    mix = following(priors="pool")
    seen(mix, PLACE, times=WINDOW)
    drifted, *further = told.records
    assert len(further) <= 2, "again only while the mix goes on to change a lot, as the window fills"
    assert drifted.levelno == logging.WARNING
    assert "unlike the pool's: " in drifted.getMessage()
    assert "(pool: 10.0%)" in drifted.getMessage()
    assert vars(drifted)["pool"] == "news"
    assert vars(drifted)["divergence_bits"] > 0.05
    told.clear()
    seen(mix, PLACE, times=WINDOW)
    assert lines(told) == [], "the same mix is not told again"
    seen(mix, *MIXED, times=2 * LIKE_THE_POOL)
    assert lines(told)[-1] == "the stream's mix of types is like the pool's again"
    assert mix.report is not None
    assert not mix.report.drifted


def test_a_drift_to_yet_another_mix_is_told_too(told: pytest.LogCaptureFixture) -> None:
    mix = following(pool=np.array([0.5, 0.5]))
    seen(mix, PLACE, times=WINDOW)
    seen(mix, PERSON, times=2 * WINDOW)
    drifts = [line for line in lines(told) if "unlike" in line]
    assert len(drifts) < 10, "while the window fills with the new mix"
    assert "place 85.4% (pool: 50.0%)" in drifts[0]
    assert "place 85.4% (pool: 50.0%)" not in drifts[-1]
    assert "person 9" in drifts[-1]


def test_around_the_threshold_a_drift_is_told_once(told: pytest.LogCaptureFixture) -> None:
    """The divergence goes up and down by the share of places in the latest window, and stays above the lower bound."""
    probe = following()
    seen(probe, *[PERSON] * 3, PLACE, times=WINDOW)
    assert probe.report is not None
    told.clear()
    mix = following(threshold=probe.report.divergence * 0.99)
    more, less = [*[PERSON] * 29, *[PLACE] * 11], [*[PERSON] * 31, *[PLACE] * 9]
    for _ in range(4):
        seen(mix, *more, times=WINDOW // 40)
        seen(mix, *less, times=WINDOW // 80)
    assert len(lines(told)) == 1
