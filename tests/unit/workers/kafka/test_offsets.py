"""What may be committed: everything before the oldest unfinished message, and nothing of another epoch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.kafka.offsets import OffsetTracker, Ticket

P = ("documents", 0)


def tracker() -> OffsetTracker:
    made = OffsetTracker(lambda: 0.0)
    made.open(1)
    return made


def take(made: OffsetTracker, offset: int, generation: int = 1) -> Ticket:
    made.read(P, offset, generation)
    ticket = made.take(P, offset, generation)
    assert ticket is not None
    return ticket


@given(st.data())
def test_an_offset_is_committable_only_when_all_before_it_are_finished(data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=20)))
    made = tracker()
    tickets = {offset: take(made, offset) for offset in offsets}
    finished: set[int] = set()
    for offset in data.draw(st.permutations(offsets)):
        made.finish(tickets[offset])
        made.finish(tickets[offset])
        finished.add(offset)
        prefix = [one for index, one in enumerate(offsets) if set(offsets[: index + 1]) <= finished]
        assert made.committable() == ({P: prefix[-1] + 1} if prefix else {})
    assert made.in_flight == 0


def test_the_first_message_unfinished_means_nothing_to_commit_whatever_follows() -> None:
    made = tracker()
    take(made, 5)
    made.finish(take(made, 6))
    assert made.committable() == {}
    assert made.in_flight == 1


def test_what_finishes_after_its_partitions_went_away_does_not_count() -> None:
    made = tracker()
    ticket = take(made, 5)
    made.close()
    made.finish(ticket)
    assert made.committable() == {}
    made.open(2)
    made.read(P, 6, 1)
    assert made.take(P, 6, 1) is None
    take(made, 5, 2)
    made.finish(ticket)
    assert made.committable() == {}


def test_a_pause_gives_no_tickets_but_lets_the_begun_finish() -> None:
    made = tracker()
    ticket = take(made, 5)
    made.read(P, 6, 1)
    made.pause()
    assert made.take(P, 6, 1) is None
    made.finish(ticket)
    assert made.committable() == {P: 6}


def test_reading_again_from_the_committed_offset_starts_the_count_again() -> None:
    made = tracker()
    first = [take(made, offset) for offset in (5, 6, 7)]
    made.finish(first[0])
    again = [take(made, offset) for offset in (6, 7)]
    for ticket in first:
        made.finish(ticket)
    assert made.committable() == {}
    made.finish(again[0])
    assert made.committable() == {P: 7}


def test_a_message_that_was_read_and_never_arrived_holds_the_commit_back() -> None:
    made = tracker()
    for offset in (5, 6, 7):
        made.read(P, offset, 1)
    for offset in (5, 7):
        ticket = made.take(P, offset, 1)
        assert ticket is not None
        made.finish(ticket)
    assert made.committable() == {P: 6}
    assert made.in_flight == 0


def test_a_message_has_one_ticket() -> None:
    made = tracker()
    take(made, 5)
    assert made.take(P, 5, 1) is None
    assert made.take(P, 6, 1) is None


def test_a_partition_is_stuck_from_when_it_last_got_on_with_messages_to_finish() -> None:
    now = 10.0
    made = OffsetTracker(lambda: now)
    made.open(1)
    first, second = take(made, 1), take(made, 2)
    now = 25.0
    assert made.stuck_seconds == 15.0
    made.finish(first)
    assert made.stuck_seconds == 0.0
    now = 30.0
    assert made.stuck_seconds == 5.0
    made.finish(second)
    now = 99.0
    assert made.stuck_seconds == 0.0
    take(made, 3)
    assert made.stuck_seconds == 0.0


# --- offsets that hold no message ---


@given(st.data())
def test_marks_and_aborted_messages_are_committed_over_when_all_before_them_is_finished(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.booleans(), min_size=1, max_size=30), label="whether an offset holds a message")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(kinds))), label="ends of fetches") | {len(kinds)})
    made = tracker()
    tickets: dict[int, Ticket] = {}
    begin = 0
    for end in cuts:
        for offset in range(begin, end):
            if kinds[offset]:
                tickets[offset] = take(made, offset)
        made.moved(P, begin, end, 1)
        begin = end
        for offset in data.draw(st.permutations(sorted(tickets))):
            if data.draw(st.booleans()):
                made.finish(tickets.pop(offset))
        done = made.committable().get(P, 0)
        # Never over a message that is unfinished; and to the end when there is none.
        assert done <= min(tickets, default=end)
        assert made.unfinished() == {P: min(tickets, default=end)}
        if not tickets:
            assert done == end


def test_a_fetch_that_does_not_follow_on_the_one_before_commits_over_nothing() -> None:
    made = tracker()
    made.finish(take(made, 0))
    made.moved(P, 0, 1, 1)
    made.moved(P, 3, 9, 1)
    assert made.committable() == {P: 1}
    made.moved(P, 1, 2, 7)
    assert made.committable() == {P: 1}, "of another generation"


def test_a_partition_where_nothing_moved_has_nothing_to_commit() -> None:
    made = tracker()
    made.moved(P, 5, 5, 1)
    assert made.committable() == {}


def test_going_back_counts_anew_what_was_passed_over() -> None:
    made = tracker()
    made.finish(take(made, 5))
    made.moved(P, 5, 9, 1)
    again = take(made, 5)
    made.moved(P, 5, 6, 1)
    assert made.committable() == {}
    made.finish(again)
    assert made.committable() == {P: 6}


def test_what_may_be_committed_together_with_what_is_finished_by_it() -> None:
    made = tracker()
    first, second, third = (take(made, offset) for offset in (5, 6, 8))
    assert made.committable_with(P, [second, third]) is None, "the first one is not finished"
    assert made.committable_with(P, [first, second]) == 7
    assert made.committable() == {}, "asking finishes nothing"
    made.finish(first)
    made.finish(second)
    assert made.committable_with(P, []) == 7
    # Behind the last message lies the mark of a transaction.
    made.moved(P, 9, 10, 1)
    assert made.committable_with(P, [third]) == 10
    assert made.committable_with(("documents", 1), []) is None
