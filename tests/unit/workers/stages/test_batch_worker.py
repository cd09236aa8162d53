"""Messages of a pool that is being read wait, and others pass them: by the stages apart, and in one hop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from el4ner.serialize import dumps
from tests.support.answers import raw
from tests.unit.workers.one_hop.test_pipeline_worker import Process as OneHop
from tests.unit.workers.stages.test_stage_worker import Process as Apart
from workers.messages.envelope import Record
from workers.stages.batch_worker import Received
from workers.stages.unread_pools import ALL_READ


class Pools:
    """Read when they are told to be."""

    slice_seconds: float | None = None
    idle_seconds = 0.0

    def __init__(self, *unread: str) -> None:
        self.unread = set(unread)
        self.needed: dict[str, Future[None]] = {}

    def need(self, name: str) -> Future[None]:
        return self.needed.setdefault(name, Future())

    def ready(self, name: str) -> None:
        self.unread.discard(name)
        self.needed[name].set_result(None)


def document(offset: int, name: str, pool: str | None, partition: int = 2, **more: Any) -> Record:
    value = {"id": name, "text": f"{name} flew to Berlin", **({} if pool is None else {"pool": pool}), **more}
    return replace(raw(dumps(value), key=name.encode(), offset=offset), partition=partition)


def deletion(offset: int, name: str, partition: int = 2) -> Record:
    return replace(raw(None, key=name.encode(), offset=offset), partition=partition)


def staged(folder: Path, pools: Any, **worker: Any) -> Any:
    process = Apart(folder, lambda _: None, **worker)
    process.worker._pools = pools
    return process


def one_hop(folder: Path, pools: Any, **worker: Any) -> Any:
    process = OneHop(folder, **worker)
    process.worker._pools = pools
    return process


BOTH = pytest.mark.parametrize(("topology", "passing"), [(staged, 3), (one_hop, 2)], ids=["staged", "one hop"])
"""Messages that wait are of partition 2; those of ``passing`` may pass them."""


def put(process: Any, *records: Record, generation: int = 1) -> None:
    """They were read from Kafka, and wait to be taken."""
    for record in records:
        process.positions.read((record.source, record.partition), record.offset, generation)
    let_pass = getattr(process.worker, "_let_pass", None)
    process.worker._batcher.add(
        let_pass(records, generation) if let_pass else [Received(each, generation) for each in records]
    )


async def took(process: Any) -> list[int]:
    """The offsets of the next batch that is worked on."""
    async with asyncio.timeout(20):
        batch: Sequence[Received] = await process.worker._take()
    return [received.record.offset for received in batch]


async def took_nothing(process: Any) -> bool:
    taking = asyncio.create_task(process.worker._take())
    for _ in range(20):
        await asyncio.sleep(0)
    taking.cancel()
    await asyncio.wait([taking])
    return taking.cancelled()


@BOTH
async def test_others_pass_those_of_an_unread_pool_which_come_when_it_is_read(
    tmp_path: Path, topology: Any, passing: int
) -> None:
    pools = Pools("large")
    process = topology(tmp_path, pools)
    put(
        process,
        document(1, "a", "large"),
        *(document(at, f"b{at}", pool, passing) for at, pool in ((2, "small"), (3, None))),
    )
    assert await took(process) == [2, 3]
    put(process, document(4, "d", "large"), document(5, "b2", "small", passing, revision=1))
    assert await took(process) == [5]
    assert process.worker.held == 2
    assert list(pools.needed) == ["large"]
    pools.ready("large")
    await asyncio.sleep(0)
    put(process, document(6, "e", "large"))
    assert await took(process) == [1, 4, 6]
    assert process.worker.held == 0
    put(process, document(7, "f", "large"))
    assert await took(process) == [7]


@BOTH
async def test_what_is_about_a_document_that_waits_waits_behind_it(tmp_path: Path, topology: Any, passing: int) -> None:
    pools = Pools("large")
    process = topology(tmp_path, pools)
    about = [document(1, "a", "large"), deletion(2, "a"), document(3, "a", "small", revision=2)]
    put(process, *about, deletion(4, "b", passing))
    assert await took(process) == [4]
    pools.ready("large")
    assert await took(process) == [1, 2, 3]


@BOTH
async def test_the_order_of_one_document_holds_when_several_pools_are_read_one_after_the_other(
    tmp_path: Path, topology: Any, passing: int
) -> None:
    pools = Pools("first", "last")
    process = topology(tmp_path, pools, batch_documents=1)
    put(process, document(1, "a", "first"), document(2, "a", "small"), document(3, "a", "last"), deletion(4, "a"))
    assert await took_nothing(process)
    pools.ready("first")
    assert await took(process) == [1]
    pools.ready("last")
    await asyncio.sleep(0)
    assert [await took(process) for _ in range(3)] == [[2], [3], [4]]


@BOTH
async def test_a_document_that_two_pools_have_waits_for_the_one_before_alone(
    tmp_path: Path, topology: Any, passing: int
) -> None:
    pools = Pools("first", "last")
    process = topology(tmp_path, pools)
    put(process, document(1, "a", "first"), document(2, "a", "last"))
    assert await took_nothing(process)
    pools.ready("first")
    assert await took(process) == [1]
    pools.ready("last")
    assert await took(process) == [2]


@BOTH
async def test_nothing_that_waits_is_acknowledged(tmp_path: Path, topology: Any, passing: int) -> None:
    process = topology(tmp_path, Pools("large"))
    put(process, document(1, "a", "small"), document(2, "a2", "large"), document(3, "b", "small", passing))
    for received in await process.worker._take():
        record = received.record
        ticket = process.positions.take((record.source, record.partition), record.offset, 1)
        assert ticket is not None
        process.positions.finish(ticket)
    assert {of[1]: offset for of, offset in process.positions.committable().items()}[2] == 2


@BOTH
async def test_where_the_order_of_all_is_wanted_nothing_passes(tmp_path: Path, topology: Any, passing: int) -> None:
    pools = Pools("large")
    process = topology(tmp_path, pools, lines_ahead=0)
    put(process, document(1, "a", "small"), document(2, "b", "large"), document(3, "c", "small"))
    assert await took(process) == [1]
    assert await took_nothing(process)
    pools.ready("large")
    assert await took(process) == [2, 3]


async def test_with_the_stages_apart_nothing_passes_in_its_own_partition(tmp_path: Path) -> None:
    """Nobody would remember it after a crash, however long what it has passed has waited."""
    pools = Pools("large")
    process = staged(tmp_path, pools)
    put(process, document(1, "a", "large"), document(2, "b", "small"), document(3, "c", "small", partition=5))
    assert await took(process) == [3]
    assert await took_nothing(process)
    pools.ready("large")
    assert await took(process) == [1, 2]


@BOTH
async def test_when_too_many_wait_all_do(tmp_path: Path, topology: Any, passing: int) -> None:
    pools = Pools("large")
    process = topology(tmp_path, pools, max_held_documents=2)
    put(process, *(document(offset, f"d{offset}", "large") for offset in (1, 2, 3)), document(4, "e", "small"))
    assert await took_nothing(process)
    assert process.worker.held == 2
    pools.ready("large")
    assert await took(process) == [1, 2, 3, 4]


@BOTH
async def test_a_bug_in_reading_a_pool_ends_the_worker_and_no_document_is_to_blame(
    tmp_path: Path, topology: Any, passing: int
) -> None:
    pools, failures = Pools("large"), list[BaseException]()
    process = topology(tmp_path, pools)
    process.worker.app.fail = failures.append
    put(process, document(1, "a", "large"), document(2, "b", "small", passing))
    assert await took(process) == [2]
    pools.needed["large"].set_exception(ValueError("a bug"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [str(error) for error in failures] == ["a bug"]
    assert process.worker.failures == 0
    assert process.worker.held == 1


@BOTH
async def test_what_waits_when_partitions_are_assigned_anew_comes_again(
    tmp_path: Path, topology: Any, passing: int
) -> None:
    pools = Pools("large")
    process = topology(tmp_path, pools)
    put(process, document(1, "a", "large"), document(2, "b", "small", passing))
    assert await took(process) == [2]
    process.worker._held.clear()
    process.positions.open(2)
    pools.ready("large")
    await asyncio.sleep(0)
    assert process.worker.held == 0
    assert len(process.worker._batcher) == 0


@BOTH
async def test_what_was_read_before_partitions_were_assigned_anew_is_not_in_the_way_of_what_comes(
    tmp_path: Path, topology: Any, passing: int
) -> None:
    pools = Pools("large")
    process = topology(tmp_path, pools)
    put(process, document(5, "a", "large"), document(6, "b", "small", passing))
    process.worker._held.clear()
    process.positions.open(2)
    put(process, again := document(6, "b", "small", passing), generation=2)
    async with asyncio.timeout(20):
        assert [(each.record.offset, each.generation) for each in await process.worker._take()] == [(again.offset, 2)]
    assert process.worker.held == 0


@BOTH
async def test_whatever_a_message_makes_of_reading_it_ends_the_worker_as_any_bug(
    tmp_path: Path, topology: Any, passing: int
) -> None:
    pools, failures = Pools("large"), list[BaseException]()
    process = topology(tmp_path, pools)
    process.worker.app.fail, process.worker.app.should_stop = failures.append, False
    put(process, document(1, "a", "large"))

    def bug(_: object) -> None:
        raise KeyError("bug")

    process.worker._needs = bug
    async with asyncio.timeout(20):
        with pytest.raises(KeyError):
            await process.worker._form_batches()
    assert [type(error) for error in failures] == [KeyError]
    assert process.worker._crashed, "what it has noted of its documents stays"


@BOTH
async def test_a_slice_counts_as_a_call_and_a_partition_that_waits_for_a_pool_is_not_stuck(
    tmp_path: Path, topology: Any, passing: int
) -> None:
    pools = Pools("large")
    process = topology(tmp_path, pools)
    pools.slice_seconds, pools.idle_seconds = 7.0, 3.0
    assert process.worker.batch_seconds == 7.0
    clock = [0.0]
    process.positions._clock = lambda: clock[0]
    put(process, document(1, "a", "large"), document(2, "b", "small", passing))
    clock[0] = 100.0
    assert process.worker.stuck_seconds == 100.0
    assert await took(process) == [2]
    assert process.worker.stuck_seconds == 3.0


async def test_in_one_hop_a_document_passes_and_its_outcome_is_written_before_the_offset_is_past_it(
    tmp_path: Path,
) -> None:
    pools = Pools("large")
    process: Any = one_hop(tmp_path, pools)
    put(process, document(1, "a", "large"), document(2, "b", "small"))
    for _ in range(2):
        taken = []
        for received in await process.worker._take():
            ticket = process.worker.app.ticket(received.record, received.generation)
            assert ticket is not None
            taken.append((received, ticket))
        await process.worker._work(taken)
        await process.write()
        if "large" in pools.unread:
            pools.ready("large")
    written = [
        ({message.key for message in messages} - {None}, offset) for messages, offset in process.writer.transactions
    ]
    assert [offset for _, offset in written] == [None, 3] or [offset for _, offset in written] == [1, 3]
    assert b"b" in written[0][0]
    assert b"a" not in written[0][0]
    assert b"a" in written[1][0]


def test_where_all_pools_are_read_nothing_is_looked_at(tmp_path: Path) -> None:
    process = staged(tmp_path, ALL_READ)
    process.worker._read = None
    batch = [Received(document(1, "a", "large"), 1)]
    assert process.worker._set_aside(batch) == batch
