"""Forming batches: nobody waits for nothing, and a backlog goes in full batches."""

from __future__ import annotations

import asyncio
from typing import Any

from workers.stages.batching import Batcher


class Engine:
    """Whether it works."""

    idle = True


def batcher(engine: Engine, *, size: int = 4, seconds: float = 60.0) -> Batcher[int]:
    return Batcher(size, seconds, lambda: engine.idle)


async def settle() -> None:
    """Let everybody run who can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def within(awaitable: asyncio.Task[Any]) -> Any:
    async with asyncio.timeout(10):
        return await awaitable


async def test_an_idle_engine_gets_what_is_there_at_once() -> None:
    made = batcher(Engine())
    await made.put([1])
    assert await made.take() == [1]
    assert len(made) == 0


async def test_a_backlog_is_taken_in_full_batches_in_order() -> None:
    made = batcher(Engine())
    await made.put(range(7))
    assert await made.take() == [0, 1, 2, 3]
    assert await made.take() == [4, 5, 6]


async def test_one_that_waits_gets_what_comes() -> None:
    made = batcher(Engine())
    taking = asyncio.create_task(made.take())
    await settle()
    assert not taking.done()
    await made.put([1])
    assert await within(taking) == [1]


async def test_while_the_engine_works_a_batch_fills_up() -> None:
    engine = Engine()
    engine.idle = False
    made = batcher(engine)
    await made.put([1, 2])
    taking = asyncio.create_task(made.take())
    await settle()
    assert not taking.done()
    await made.put([3, 4, 5])
    assert await within(taking) == [1, 2, 3, 4]
    assert len(made) == 1


async def test_a_batch_goes_when_the_engine_becomes_idle() -> None:
    engine = Engine()
    engine.idle = False
    made = batcher(engine)
    await made.put([1, 2])
    taking = asyncio.create_task(made.take())
    await settle()
    engine.idle = True
    made.wake()
    assert await within(taking) == [1, 2]


async def test_a_batch_does_not_wait_for_longer_than_it_may() -> None:
    engine = Engine()
    engine.idle = False
    made = batcher(engine, seconds=0.01)
    await made.put([1])
    assert await within(asyncio.create_task(made.take())) == [1]


async def test_who_puts_is_held_back_at_two_batches() -> None:
    made = batcher(Engine())
    await made.put(range(7))
    putting = asyncio.create_task(made.put([7]))
    await settle()
    assert not putting.done()
    assert len(made) == 8
    assert await made.take() == [0, 1, 2, 3]
    await within(putting)


async def test_no_wake_up_is_lost_between_one_that_is_held_back_and_one_that_waits() -> None:
    engine = Engine()
    made = batcher(engine, size=3)
    taken: list[int] = []

    async def source() -> None:
        for start in range(0, 300, 5):
            await made.put(range(start, start + 5))
            engine.idle = not engine.idle
            made.wake()
        engine.idle = True
        made.wake()

    async def sink() -> None:
        while len(taken) < 300:
            taken.extend(await made.take())

    async with asyncio.timeout(30):
        await asyncio.gather(source(), sink())
    assert taken == list(range(300))


async def test_what_is_put_back_is_taken_first_in_its_order() -> None:
    made = batcher(Engine())
    await made.put([4, 5])
    made.put_back([1, 2, 3])
    assert await made.take() == [1, 2, 3, 4]
    made.put_back([])
    assert await made.take() == [5]
