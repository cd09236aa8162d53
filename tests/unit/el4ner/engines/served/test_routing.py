"""Which server a request goes to."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.engines.served.routing import Router


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def router(servers: int, most: int = 4, clock: Clock | None = None) -> Router:
    return Router(servers, most, clock or Clock(), chance=lambda: 0.5)


def test_work_goes_to_the_server_that_has_the_least_of_it() -> None:
    one = router(3)
    assert [one.take(), one.take(), one.take(), one.take()] == [0, 1, 2, 0]
    one.done(2, ok=True)
    assert one.take() == 2


def test_a_prompt_goes_where_it_is_known_while_that_server_has_room() -> None:
    one = router(2, most=2)
    assert [one.take(home=0), one.take(home=0), one.take(home=0)] == [0, 0, 1]


def test_the_same_hint_gets_the_same_one_of_idle_servers() -> None:
    one = router(3)
    for hint in (0, 1, 2, 3, 4):
        taken = one.take(hint=hint)
        assert taken == hint % 3
        one.done(taken, ok=True)


def test_a_server_that_failed_rests_twice_as_long_each_time_and_is_tried_by_one_request() -> None:
    clock = Clock()
    one = router(1, clock=clock)
    for rest in (0.25, 0.5, 1.0, 2.0):
        assert one.take(timeout=0) == 0
        if one.on_trial(0):
            assert one.take(timeout=0) is None
        assert one.done(0, ok=False)
        assert one.take(timeout=0) is None
        assert one.rest() == pytest.approx(rest)
        clock.now += rest
        assert one.rest() == 0


def test_many_requests_that_fail_with_a_server_are_one_failure() -> None:
    clock = Clock()
    one = router(1, clock=clock)
    for _ in range(4):
        one.take()
    assert [one.done(0, ok=False) for _ in range(4)] == [True, False, False, False]
    assert one.rest() == pytest.approx(0.25)


def test_a_server_that_answers_again_is_as_good_as_before() -> None:
    clock = Clock()
    one = router(1, clock=clock)
    one.take()
    one.done(0, ok=False)
    clock.now += one.rest()
    one.take()
    one.done(0, ok=True)
    assert not one.on_trial(0)
    assert [one.take(timeout=0) for _ in range(5)] == [0, 0, 0, 0, None]


def test_a_server_rests_as_long_as_it_asks_for_within_reason() -> None:
    one = router(1)
    one.take()
    one.done(0, ok=False, rest=7)
    assert one.rest() == pytest.approx(7)
    one.failed(0)
    assert one.rest() == pytest.approx(7)
    other = router(1)
    other.take()
    other.done(0, ok=False, rest=1e9)
    assert other.rest() == pytest.approx(30)


def test_a_server_that_has_rested_is_tried_while_others_work() -> None:
    clock = Clock()
    one = router(2, clock=clock)
    one.failed(1)
    assert one.take() == 0
    assert one.take() == 0
    clock.now += 1
    assert one.take() == 1
    assert one.take() == 0


def test_the_number_of_requests_of_one_server_can_be_lowered() -> None:
    one = router(1, most=8)
    one.limit(0, 2)
    assert [one.take(timeout=0) for _ in range(3)] == [0, 0, None]


def test_who_waits_for_room_gets_it_when_a_request_is_done_or_nothing_when_all_is_over() -> None:
    one = router(1, most=1)
    one.take()
    got: list[int | None] = []
    for end in (lambda: one.done(0, ok=True), one.close):
        waiting = threading.Thread(target=lambda: got.append(one.take()))
        waiting.start()
        end()
        waiting.join(10)
        assert not waiting.is_alive()
    assert got == [0, None]


Step = tuple[str, int, float]


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(
        st.tuples(st.sampled_from(["take", "ok", "fail", "wait"]), st.integers(0, 3), st.floats(0, 40)), max_size=60
    ),
)
def test_whatever_happens(servers: int, most: int, steps: list[Step]) -> None:
    """A model of it: who rests until when, and how much each has to do."""
    clock = Clock()
    one = router(servers, most, clock)
    outstanding = [0] * servers
    failures = [0] * servers
    rests = [0.0] * servers
    for step, which, seconds in steps:
        if step == "wait":
            clock.now += seconds
        elif step == "take":
            taken = one.take(timeout=0)
            free = [
                index
                for index in range(servers)
                if rests[index] <= clock.now and outstanding[index] < (1 if failures[index] else most)
            ]
            assert (taken is None) == (not free)
            if taken is not None:
                assert taken in free
                assert outstanding[taken] == min(outstanding[index] for index in free)
                outstanding[taken] += 1
            elif min(rests) > clock.now:
                assert one.rest() == pytest.approx(min(rests) - clock.now)
        elif outstanding[which % servers]:
            index = which % servers
            outstanding[index] -= 1
            new = one.done(index, ok=step == "ok")
            if step == "ok":
                failures[index], rests[index] = 0, 0.0
            elif new:
                rests[index] = clock.now + min(30.0, 0.25 * 2 ** failures[index])
                failures[index] += 1
            else:
                assert rests[index] > clock.now
