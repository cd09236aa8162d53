"""Leaving a consumer group at once: aiokafka's own coordinator, with a client that answers as a broker would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from workers.kafka import leaving
from workers.kafka.leaving import LeavingThread, _DaemonThread

HEARTBEAT_SECONDS = 0.01


class Client:
    """Answers heartbeats, and ``leaving`` only if it is told to. ``asked`` is what it was asked for."""

    api_version = (2, 3, 0)

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers_leaving = True
        self.beat = asyncio.Event()
        self.cluster = SimpleNamespace(
            add_listener=lambda _: None, topics=lambda **_: set(), partitions_for_topic=lambda _: None
        )

    def set_topics(self, _: Any) -> None:
        """Whatever."""

    async def send(self, _node: int, request: Any, *, group: Any) -> Any:
        name = type(request).__name__
        self.asked.append(name)
        self.beat.set()
        if name.startswith("Leave") and not self.answers_leaving:
            await asyncio.Event().wait()
        return SimpleNamespace(error_code=0)

    async def next(self) -> None:
        """The next request."""
        self.beat.clear()
        await self.beat.wait()


@pytest.fixture
async def client() -> Client:
    return Client()


@pytest.fixture
async def coordinator(client: Client) -> AsyncIterator[Any]:
    """A member of its group, which sends heartbeats."""
    subscription = SubscriptionState()
    one: Any = GroupCoordinator(client, subscription, group_id="g", heartbeat_interval_ms=int(HEARTBEAT_SECONDS * 1000))
    one.coordinator_id, one.generation, one.member_id = 1, 4, "m"
    one._start_heartbeat_task()
    await client.next()
    yield one
    for task in (one._coordination_task, one._heartbeat_task, one._commit_refresh_task):
        if task is not None and not task.done():
            task.cancel()
    await asyncio.sleep(0)


@pytest.fixture
async def thread(coordinator: Any) -> LeavingThread:
    """Its thread: here it is this one."""
    one: Any = LeavingThread.__new__(LeavingThread)
    one._consumer = SimpleNamespace(_coordinator=coordinator)
    one.thread_loop = asyncio.get_running_loop()
    leaving_thread: LeavingThread = one
    return leaving_thread


async def silence(client: Client) -> None:
    """Fails if anything is asked for in what is ten heartbeats' time."""
    count = len(client.asked)
    await asyncio.sleep(10 * HEARTBEAT_SECONDS)
    assert client.asked[count:] == []


async def test_who_leaves_says_so_and_sends_no_heartbeats_any_more(
    client: Client, coordinator: Any, thread: LeavingThread
) -> None:
    await asyncio.wrap_future(thread.leave())
    assert client.asked[-1].startswith("LeaveGroup")
    await silence(client)
    # A second time there is nothing to leave.
    await asyncio.wrap_future(thread.leave())
    await silence(client)
    # What Faust does at the end does not wait for anything either.
    await asyncio.wait_for(coordinator.close(), 30)


async def test_from_another_thread_though_this_one_waits(client: Client, thread: LeavingThread) -> None:
    left = await asyncio.to_thread(lambda: thread.leave())
    await asyncio.wrap_future(left)
    assert client.asked[-1].startswith("LeaveGroup")


async def test_heartbeats_end_though_the_broker_does_not_answer(
    client: Client, thread: LeavingThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "_LEAVE_SECONDS", 0.05)
    client.answers_leaving = False
    await asyncio.wrap_future(thread.leave())
    await silence(client)


async def test_heartbeats_end_though_nobody_knows_the_coordinator(
    client: Client, coordinator: Any, thread: LeavingThread
) -> None:
    coordinator.coordinator_id = None
    await asyncio.wrap_future(thread.leave())
    coordinator.coordinator_id = 1
    await silence(client)


async def test_a_join_that_was_under_way_leads_to_no_heartbeats(
    client: Client, coordinator: Any, thread: LeavingThread
) -> None:
    await asyncio.wrap_future(thread.leave())
    # The client's routine comes back from a join, and goes on as it does then.
    coordinator._heartbeat_task = None
    coordinator.generation, coordinator.member_id, coordinator.coordinator_id = 5, "again", 1
    coordinator._start_heartbeat_task()
    await silence(client)


async def test_who_has_left_commits_nothing_any_more(client: Client, coordinator: Any, thread: LeavingThread) -> None:
    await asyncio.wrap_future(thread.leave())
    assignment = SimpleNamespace(active=True)
    with pytest.raises(CommitFailedError):
        await coordinator.commit_offsets(assignment, {TopicPartition("documents", 0): OffsetAndMetadata(3, "")})
    await silence(client)


async def test_a_consumer_that_has_not_started_joins_nothing(thread: Any) -> None:
    thread._consumer = None
    await asyncio.wrap_future(thread.leave())
    assert thread._has_left


async def test_a_thread_that_has_ended_has_left(thread: Any) -> None:
    thread.thread_loop = asyncio.new_event_loop()
    thread.thread_loop.close()
    assert thread.leave().done()


def test_a_thread_that_does_not_stop_holds_up_neither_the_loop_nor_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_THREAD_SECONDS", 0.01)
    go = threading.Event()
    service: Any = SimpleNamespace(_start_thread=go.wait)
    one = _DaemonThread(service)
    assert one.daemon
    one.start()
    one.stop()
    assert one.is_alive()
    go.set()
    one.join()
