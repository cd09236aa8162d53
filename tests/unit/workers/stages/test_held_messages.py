"""What may pass messages that wait for their pool, and what may not."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.answers import raw
from workers.stages.held_messages import HeldMessages, MessageNeeds


def held(**more: Any) -> HeldMessages:
    bounds: dict[str, Any] = {"most": 100, "most_bytes": 1 << 20, "ahead": 10}
    return HeldMessages(**{**bounds, **more})


def large(pool: str) -> bool:
    return pool == "large"


NOBODY = MessageNeeds(None, None)


def offer(messages: HeldMessages, offset: int, document: str | None, pool: str | None, partition: int = 0) -> bool:
    """Whether a message passes; one that must not is held."""
    record = replace(raw(b"{}", offset=offset), partition=partition)
    if messages.must_wait(record, MessageNeeds(document, pool), large):
        messages.hold(record, 1, MessageNeeds(document, pool))
        return False
    return True


def test_documents_of_other_pools_pass_but_not_those_that_one_before_is_about() -> None:
    messages = held()
    assert not offer(messages, 1, "a", "large")
    assert offer(messages, 2, "b", "small")
    assert not offer(messages, 3, "a", "small"), "a later revision, in another pool"
    assert not offer(messages, 4, "a", None), "its deletion"
    assert offer(messages, 5, "a", "small", partition=1), "another document: ids belong to a partition"
    assert offer(messages, 6, None, None), "nobody's"
    released = messages.release(lambda _: False)
    assert [each.record.offset for each in released] == [1, 3, 4]
    assert len(messages) == 0
    assert offer(messages, 7, "a", "small")


def test_what_still_waits_for_another_pool_keeps_its_order() -> None:
    messages = held()
    for offset, document, pool in ((1, "a", "large"), (2, "b", "other"), (3, "b", "large"), (4, "c", "large")):
        messages.hold(raw(b"{}", offset=offset), 1, MessageNeeds(document, pool))
    assert [each.record.offset for each in messages.release(lambda pool: pool == "other")] == [1, 4]
    assert [each.record.offset for each in messages.release(lambda _: False)] == [2, 3]


def test_nothing_passes_by_more_than_so_many_offsets_of_its_partition() -> None:
    messages = held(ahead=10)
    assert not offer(messages, 100, "a", "large")
    assert offer(messages, 110, "b", "small")
    assert not offer(messages, 111, "c", "small")
    assert offer(messages, 500, "d", "small", partition=1)
    assert [each.record.offset for each in messages.release(lambda _: False)] == [100, 111]
    ordered = held(ahead=0)
    assert offer(ordered, 1, "a", "small")
    assert not offer(ordered, 2, "b", "large")
    assert not offer(ordered, 3, "c", "small")


def test_so_many_wait_and_no_more() -> None:
    by_count, by_size = held(most=2), held(most_bytes=3_000)
    for offset in (1, 2):
        assert not by_count.is_full
        assert not by_size.is_full
        by_count.hold(raw(b"{}", offset=offset), 1, NOBODY)
        by_size.hold(raw(b"x" * 1_000, offset=offset), 1, NOBODY)
    assert by_count.is_full
    assert by_size.is_full
    by_size.clear()
    assert not by_size.is_full


def test_what_was_released_is_not_held_again_behind_what_comes_after_it() -> None:
    messages = held(ahead=0)
    messages.hold(raw(b"{}", offset=1), 1, MessageNeeds("a", "large"))
    messages.hold(raw(b"{}", offset=2), 1, MessageNeeds("a", "other"))
    (released,) = messages.release(lambda pool: pool == "other")
    assert not messages.must_wait(released.record, released.needs, lambda pool: pool == "other")
    assert messages.must_wait(raw(b"{}", offset=3), MessageNeeds("a", "small"), lambda pool: pool == "other")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", "z", None])), max_size=30),
    st.permutations(["x", "y", "z"]),
    st.lists(st.integers(0, 30), min_size=3, max_size=3),
    st.integers(0, 5),
)
def test_when_pools_are_read_one_after_the_other_messages_about_a_document_keep_their_order(
    came: list[tuple[str, str | None]], read: list[str], when: list[int], ahead: int
) -> None:
    """What is released is offered again, in its place: as a worker puts it back."""
    messages, unread = held(ahead=ahead), set(read)
    waiting, out = list[int](), list[int]()
    coming, due = deque(enumerate(came)), deque(zip(sorted(when), read, strict=True))
    while waiting or coming or due:
        if due and (not coming or coming[0][0] >= due[0][0]):
            unread.discard(due.popleft()[1])
            waiting = sorted([*waiting, *(each.record.offset for each in messages.release(unread.__contains__))])
        elif coming:
            waiting.append(coming.popleft()[0])
        # One of them: others may wait still when the next pool is read.
        if waiting:
            offset = waiting.pop(0)
            record, needs = raw(b"{}", offset=offset), MessageNeeds(*came[offset])
            if messages.must_wait(record, needs, unread.__contains__):
                messages.hold(record, 1, needs)
            else:
                out.append(offset)
    assert sorted(out) == list(range(len(came)))
    for document in "abc":
        about = [offset for offset in out if came[offset][0] == document]
        assert about == sorted(about)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["large", "small", None])), max_size=30))
def test_messages_about_a_document_come_out_in_their_order_and_all_of_them(came: list[tuple[str, str | None]]) -> None:
    messages = held(ahead=1_000)
    out = [offset for offset, (document, pool) in enumerate(came) if offer(messages, offset, document, pool)]
    out += [each.record.offset for each in messages.release(lambda _: False)]
    assert sorted(out) == list(range(len(came)))
    for document in "abc":
        about = [offset for offset in out if came[offset][0] == document]
        assert about == sorted(about)
