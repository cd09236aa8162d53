"""What is made of sums is what is made of the spans themselves, whatever came to them and went."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from el4ner.evidence.judges import Floats, Prototypes
from el4ner.evidence.one_thread import one_thread
from el4ner.evidence.sources import StateSource
from el4ner.evidence.span_memory import PoolSpans, SpanMemory
from el4ner.evidence.span_sums import SpanSums
from el4ner.types import Span

DIMENSIONS = 12


def drawn(seed: int, count: int, layers: int = 2) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal((layers, count, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)


def close(ours: Prototypes, theirs: Prototypes) -> None:
    scale = max(1.0, float(np.abs(theirs.weights).max(initial=0)))
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=2e-4 * scale)
    np.testing.assert_allclose(ours.offsets, theirs.offsets, atol=2e-4 * scale)


@given(st.integers(0, 99), st.integers(0, 40), st.integers(0, 10), st.integers(0, 10), st.integers(1, 4))
def test_prototypes_of_sums_are_those_of_the_spans(seed: int, kept: int, gone: int, come: int, kinds: int) -> None:
    vectors = drawn(seed, kept + gone + come, 1)[0]
    labels = np.random.default_rng(seed).integers(0, kinds, len(vectors))
    was, now = slice(0, kept + gone), np.r_[0:kept, kept + gone : len(vectors)]
    sums = SpanSums.of(vectors[was], labels[was], kinds)
    sums -= SpanSums.of(vectors[kept : kept + gone], labels[kept : kept + gone], kinds)
    sums += SpanSums.of(vectors[kept + gone :], labels[kept + gone :], kinds)
    close(sums.prototypes(), Prototypes.of(vectors[now], labels[now], kinds))


def test_types_that_are_new_stand_between_the_others_and_none() -> None:
    vectors, labels = drawn(1, 30, 1)[0], np.random.default_rng(1).integers(0, 3, 30)
    sums = SpanSums.of(vectors, labels, 3).placed(np.array([0, 1, 3]), 4)
    close(sums.prototypes(), Prototypes.of(vectors, np.where(labels == 2, 3, labels), 4))


def spans_of(sentences: int, labels: list[int], first: int) -> PoolSpans:
    """Two spans in each sentence, of which the second one is a part of the first."""
    spans = (Span(0, 4, "Anna"), Span(0, 2, "An"))
    count = 2 * sentences
    return PoolSpans(
        tuple(f"Anna {first + place}" for place in range(sentences)),
        (spans,) * sentences,
        np.asarray(labels[:count], dtype=np.int64),
        np.repeat(np.arange(sentences), 2),
        np.ones(count, dtype=np.bool_),
    )


@pytest.mark.parametrize("by_boundaries", [True, False])
@pytest.mark.parametrize("kinds", [3, 4])
@pytest.mark.parametrize("dropped", [(), ("Anna 2", "Anna 7")])
def test_a_taught_source_says_what_one_that_is_made_from_scratch_says(
    by_boundaries: bool, kinds: int, dropped: tuple[str, ...]
) -> None:
    encoder: Any = SimpleNamespace(name="a", fingerprint="f", states_fingerprint="s")
    using = ("neighbours", "prototypes")
    draw = np.random.default_rng(5)
    files = spans_of(20, draw.integers(0, 3, 40).tolist(), 0)
    memory = SpanMemory(drawn(2, 40), np.zeros((2, DIMENSIONS), np.float32), np.ones((2, DIMENSIONS), np.float32))
    source = StateSource(encoder, memory, files, 3, using, by_boundaries=by_boundaries)  # type: ignore[arg-type]
    taught = spans_of(3, draw.integers(0, kinds, 6).tolist(), 100)
    merged, rows = files.with_taught(taught, dropped=dropped, none=(2, kinds - 1))
    ours = source.with_taught(drawn(3, 6), rows, merged, kinds)
    theirs = StateSource(
        encoder,
        memory.with_taught(drawn(3, 6), rows),
        merged,
        kinds,
        using,  # type: ignore[arg-type]
        by_boundaries=by_boundaries,
    )
    assert (ours.fingerprint, ours.features) == (theirs.fingerprint, theirs.features)
    queries = drawn(4, 9)
    np.testing.assert_allclose(ours.compared(queries), theirs.compared(queries), atol=1e-3)


def test_blas_has_one_thread_inside_and_as_many_as_before_behind_the_last_block() -> None:
    def threads() -> list[int]:
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    before = threads()
    seen: list[list[int]] = []

    def other() -> None:
        with one_thread():
            seen.append(threads())

    thread = threading.Thread(target=other)
    with one_thread():
        thread.start()
        with one_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
        assert seen == [], "the other one waits"
    thread.join(20)
    assert [set(each) for each in seen] == [{1}]
    assert threads() == before
