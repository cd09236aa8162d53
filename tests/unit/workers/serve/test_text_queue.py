"""Texts whose pool is being read wait, within what is accepted at all, and others pass them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import pytest

from el4ner.errors import PoolReadingError
from el4ner.types import Document
from tests.support.http_service import service_settings
from tests.unit.workers.stages.test_batch_worker import Pools
from workers.serve.tag_answers import Tagged
from workers.serve.tag_requests import TagOptions, TextToTag
from workers.serve.text_queue import QueueFullError, StoppedError, TextQueue, WaitingText


class Asked:
    """What the engine was asked, in batches; it answers at once."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, texts: Sequence[TextToTag]) -> Future[list[Tagged]]:
        self.batches.append([text.document.id for text in texts])
        answer: Future[list[Tagged]] = Future()
        results: Any = [_Answered(text.document.id) for text in texts]
        answer.set_result(results)
        return answer


class _Answered:
    error = None
    by_engine = False

    def __init__(self, name: str) -> None:
        self.name = name


def text(name: str, pool: str | None = None) -> TextToTag:
    return TextToTag(Document(name, "Ada flew.", pool), TagOptions())


@asynccontextmanager
async def running(pools: Pools, *, max_waiting_texts: int = 10) -> AsyncIterator[tuple[TextQueue, Asked]]:
    settings, asked = service_settings({"serve": {"max_waiting_texts": max_waiting_texts, "max_texts": 2}}), Asked()
    fatal: list[BaseException] = []
    queue = TextQueue(
        settings.serve,
        settings.worker,
        asked,
        pools=pools,
        default_pool="small",
        fatal=fatal.append,
        clock=lambda: 0.0,
    )
    task = asyncio.create_task(queue.run())
    try:
        yield queue, asked
    finally:
        task.cancel()
    assert fatal == []


async def answered(waiting: Sequence[WaitingText]) -> list[str]:
    async with asyncio.timeout(20):
        results: Any = await asyncio.gather(*(each.answer for each in waiting))
    return [result.name for result in results]


async def test_texts_of_other_pools_are_answered_while_one_is_read() -> None:
    pools = Pools("large")
    async with running(pools) as (queue, asked):
        late = queue.accept([text("a", "large"), text("b", "large")])
        assert await answered(queue.accept([text("c"), text("d", "small")])) == ["c", "d"]
        assert list(pools.needed) == ["large"]
        assert not any(each.answer.done() for each in late)
        assert queue.texts == 2
        pools.ready("large")
        assert await answered(late) == ["a", "b"]
        assert await answered(queue.accept([text("e", "large")])) == ["e"]
    assert sorted(name for batch in asked.batches for name in batch) == list("abcde")


async def test_texts_that_wait_count_as_accepted() -> None:
    async with running(Pools("large"), max_waiting_texts=2) as (queue, _):
        queue.accept([text("a", "large"), text("b", "large")])
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            queue.accept([text("c")])


async def test_whoever_does_not_wait_any_more_makes_room() -> None:
    pools = Pools("large")
    async with running(pools) as (queue, asked):
        waiting = queue.accept([text("a", "large"), text("b", "large")])
        assert await answered(queue.accept([text("c")])) == ["c"]
        queue.drop(waiting[:1])
        assert queue.texts == 1
        pools.ready("large")
        assert await answered(waiting[1:]) == ["b"]
    assert ["a"] not in asked.batches


@pytest.mark.parametrize(
    ("error", "answer"), [(PoolReadingError("no room"), PoolReadingError), (KeyError("bug"), StoppedError)]
)
async def test_a_pool_that_cannot_be_read_is_told_to_who_waits_and_is_tried_again_for_the_next(
    error: Exception, answer: type[Exception]
) -> None:
    pools = Pools("large")
    async with running(pools) as (queue, _):
        waiting = queue.accept([text("a", "large")])
        assert await answered(queue.accept([text("b")])) == ["b"]
        pools.needed.pop("large").set_exception(error)
        with pytest.raises(answer):
            await answered(waiting)
        assert queue.texts == 0
        again = queue.accept([text("c", "large")])
        assert await answered(queue.accept([text("d")])) == ["d"]
        pools.ready("large")
        assert await answered(again) == ["c"]
