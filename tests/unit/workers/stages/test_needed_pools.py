"""Which pool is read next, and whose turn it is while one cannot be read."""

from __future__ import annotations

from workers.stages.needed_pools import NeededPools


def needed(*unread: str, ahead: tuple[str, ...] = ()) -> tuple[NeededPools, list[float]]:
    """With its clock."""
    now = [0.0]
    return NeededPools(unread, ahead, clock=lambda: now[0]), now


def test_those_that_are_needed_come_in_their_order_and_before_those_that_are_read_ahead() -> None:
    pools, _ = needed("a", "b", "c", ahead=("a", "b", "gone"))
    assert pools.next() == "a"
    waiting = pools.need("c")
    pools.need("b")
    assert (pools.next(), "c" in pools, "a" in pools) == ("c", True, False)
    assert pools.need("c") is waiting
    assert pools.read("c") is waiting
    assert pools.next() == "b"
    pools.read("b")
    pools.read("a")
    assert (pools.next(), pools.seconds(), pools.unread) == (None, None, set())
    assert pools.need("a").result() is None, "it is read"


def test_while_one_is_put_off_others_have_their_turn_and_then_it_has_its_own() -> None:
    pools, now = needed("a", "b", "c", ahead=("a", "c"))
    pools.need("a")
    pools.need("b")
    assert pools.due(besides="a") == "b"
    pools.pass_by("a", 30.0)
    assert (pools.next(), pools.due(besides="b"), pools.seconds()) == ("b", None, 30.0)
    pools.pass_by("b", 10.0)
    assert (pools.next(), pools.seconds()) == ("c", 10.0), "ahead, and not the one that is put off"
    now[0] = 10.0
    assert pools.next() == "b"
    pools.read("b")
    assert pools.next() == "a", "what kept it from being read may be over"


def test_what_is_settled_begins_anew_when_it_is_needed_again() -> None:
    pools, _ = needed("a", ahead=("a",))
    first = pools.need("a")
    assert [pools.failed("a"), pools.failed("a")] == [1, 2]
    assert pools.settle("a") is first
    assert pools.next() is None, "it is not read ahead any more"
    assert pools.need("a") is not first
    assert (pools.next(), pools.failed("a")) == ("a", 1)


def test_who_does_not_wait_any_more_is_not_told() -> None:
    pools, _ = needed("a")
    assert pools.need("a").cancel()
    assert pools.read("a") is None
