"""Writing in groups: what comes meanwhile is the next group, and nobody waits for a loop that has ended."""

from __future__ import annotations

import asyncio

import pytest

from workers.join.write_loop import WriteLoop


class Owner:
    """Has things to write; each write takes all of them and waits for the gate."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.written: list[list[int]] = []
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.writes = WriteLoop(lambda: bool(self.waiting), self.write, lambda: not self.written)

    async def write(self) -> None:
        group, self.waiting = self.waiting, []
        self.begun.set()
        await self.gate.wait()
        self.written.append(group)

    def put(self, *items: int) -> None:
        self.waiting += items
        self.writes.wake()


async def test_what_comes_while_a_group_is_written_is_the_next_group() -> None:
    owner = Owner()
    task = asyncio.create_task(owner.writes.run())
    owner.put(1)
    await owner.begun.wait()
    owner.put(2)
    owner.put(3)
    owner.gate.set()
    assert await owner.writes.drain(asyncio.get_running_loop().time() + 10)
    assert owner.written == [[1], [2, 3]]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_drain_is_bounded() -> None:
    owner = Owner()
    task = asyncio.create_task(owner.writes.run())
    owner.put(1)
    await owner.begun.wait()
    # Nothing is left to begin, but a group is on its way.
    assert not await owner.writes.drain(asyncio.get_running_loop().time() + 0.05)
    owner.gate.set()
    assert await owner.writes.drain(asyncio.get_running_loop().time() + 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_who_waits_for_room_goes_on_when_there_is_some() -> None:
    owner = Owner()
    task = asyncio.create_task(owner.writes.run())
    owner.put(1, 2)
    waiting = asyncio.create_task(owner.writes.room())
    await owner.begun.wait()
    assert not waiting.done()
    owner.gate.set()
    await asyncio.wait_for(waiting, 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_nobody_waits_for_a_loop_that_has_failed_or_never_began() -> None:
    async def fails() -> None:
        raise ConnectionError("no broker")

    failed = WriteLoop(lambda: True, fails, lambda: True)
    waiting = asyncio.create_task(failed.room())
    failed.wake()
    with pytest.raises(ConnectionError):
        await failed.run()
    await asyncio.wait_for(waiting, 10)
    assert await failed.drain(asyncio.get_running_loop().time() + 10)
    never = WriteLoop(lambda: True, fails, lambda: True)
    never.end()
    await asyncio.wait_for(never.room(), 10)
