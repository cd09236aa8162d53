"""How long to wait before something is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.backoff import Backoff

seconds = st.floats(0.001, 100)


@given(seconds, seconds, st.integers(1, 10_000))
def test_a_wait_is_between_half_and_all_of_what_doubles_up_to_the_bound(first: float, most: float, retry: int) -> None:
    longest = min(most, first * 2.0 ** min(retry - 1, 60))
    waited = Backoff(first, most).seconds(retry)
    assert 0 < longest / 2 <= waited <= longest <= most


def test_waits_double() -> None:
    backoff = Backoff(0.1, 10.0, uniform=lambda low, high: high)
    assert [round(backoff.seconds(retry), 3) for retry in range(1, 10)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]


def test_those_that_failed_together_do_not_come_back_together() -> None:
    backoff = Backoff(1.0, 10.0)
    assert len({backoff.seconds(4) for _ in range(50)}) > 1
