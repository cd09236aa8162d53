"""Batches with poison in them: what one poison document costs, what is tried again, and what is nobody's fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import DocumentError, EngineAwayError, EngineError, EngineOutOfMemoryError
from workers.backoff import Backoff
from workers.stages.isolation import Isolation, Result


class Fake:
    """A pipeline's stage that raises on batches with poison in them, and keeps what it was called with."""

    def __init__(self, poison: Mapping[int, Callable[[], Exception]], *, most: int = 1_000) -> None:
        self.poison = poison
        self.most = most
        self.calls: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int | DocumentError]:
        self.calls.append(list(items))
        for item in items:
            if item in self.poison:
                raise self.poison[item]()
        if len(items) > self.most:
            raise EngineOutOfMemoryError("too many at once")
        return [DocumentError("no") if item < 0 else item * 10 for item in items]


class Sleeps(list[float]):
    """Notes for how long it would have slept. ``stops``: the worker is to stop meanwhile."""

    stops = False

    def __call__(self, seconds: float) -> bool:
        self.append(seconds)
        return self.stops


def isolation(sleeps: Sleeps | None = None, *, retries: int = 3, **options: Callable[..., None]) -> Isolation:
    backoff = Backoff(0.5, 30.0, uniform=lambda low, high: high)
    return Isolation(retries, backoff, Sleeps() if sleeps is None else sleeps, **options)


def blamed(results: Sequence[Result[int]]) -> list[int]:
    """Which items got an error."""
    return [index for index, result in enumerate(results) if isinstance(result.value, DocumentError)]


def test_a_healthy_batch_is_one_call() -> None:
    fake = Fake({})
    results = isolation().run(fake, [1, -2, 3])
    assert [result.value for result in results if not isinstance(result.value, DocumentError)] == [10, 30]
    assert blamed(results) == [1]
    assert {result.attempts for result in results} == {1}
    assert fake.calls == [[1, -2, 3]]


def test_nothing_is_no_call() -> None:
    fake = Fake({})
    assert isolation().run(fake, []) == []
    assert fake.calls == []


@pytest.mark.parametrize("error", [EngineError, EngineOutOfMemoryError])
@pytest.mark.parametrize("poison", [0, 21, 63])
def test_one_poison_among_64_costs_itself_and_a_dozen_calls(poison: int, error: type[EngineError]) -> None:
    fake = Fake({poison: lambda: error("boom")})
    results = isolation().run(fake, range(64))
    assert blamed(results) == [poison]
    assert [result.value for index, result in enumerate(results) if index != poison] == [
        index * 10 for index in range(64) if index != poison
    ]
    given_up = results[poison].value
    assert isinstance(given_up, DocumentError)
    assert given_up.code == error.code
    assert isinstance(given_up.__cause__, error)
    assert "boom" in str(given_up)
    # Whole, then two halves at each of six levels.
    assert len(fake.calls) == 1 + 2 * 6
    assert results[poison].attempts == 7


@given(st.integers(1, 80), st.sets(st.integers(0, 79), max_size=5))
def test_exactly_the_poison_is_blamed_in_the_order_of_the_items(count: int, poison: set[int]) -> None:
    fake = Fake(dict.fromkeys(poison, lambda: EngineError("boom")))
    results = isolation().run(fake, range(count))
    assert blamed(results) == sorted(one for one in poison if one < count)
    for index, result in enumerate(results):
        assert isinstance(result.value, DocumentError) or result.value == index * 10


def test_a_batch_that_is_too_large_for_memory_is_halved_and_nobody_is_blamed() -> None:
    fake = Fake({}, most=2)
    results = isolation().run(fake, range(8))
    assert blamed(results) == []
    assert [len(call) for call in fake.calls] == [8, 4, 2, 2, 4, 2, 2]


def test_what_may_pass_is_tried_again_with_longer_and_longer_pauses() -> None:
    errors = [EngineAwayError("away")] * 3
    sleeps, told = Sleeps(), []

    def call(items: Sequence[int]) -> list[int | DocumentError]:
        if errors:
            raise errors.pop()
        return list(items)

    def tell(error: EngineError, documents: int) -> None:
        told.append((error.code, documents))

    results = isolation(sleeps, on_error=tell).run(call, [5, 6])
    assert [result.value for result in results] == [5, 6]
    assert {result.attempts for result in results} == {4}
    assert sleeps == [0.5, 1.0, 2.0]
    assert told == [("engine-away", 2)] * 3


def test_what_does_not_pass_is_no_documents_fault() -> None:
    fake, sleeps = Fake({1: lambda: EngineAwayError("away")}), Sleeps()
    with pytest.raises(EngineAwayError):
        isolation(sleeps, retries=2).run(fake, [1, 2])
    assert fake.calls == [[1, 2]] * 3
    assert len(sleeps) == 2


def test_a_worker_that_stops_does_not_try_again() -> None:
    fake, sleeps = Fake({1: lambda: EngineAwayError("away")}), Sleeps()
    sleeps.stops = True
    with pytest.raises(EngineAwayError):
        isolation(sleeps).run(fake, [1])
    assert len(fake.calls) == 1


def test_a_bug_is_not_caught() -> None:
    with pytest.raises(KeyError):
        isolation().run(Fake({1: lambda: KeyError("bug")}), [1, 2])


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_a_wrong_number_of_results_is_a_bug(wrong: int) -> None:
    with pytest.raises(RuntimeError, match=f"{wrong} results to 2 documents"):
        isolation().run(lambda items: [0] * wrong, [1, 2])
