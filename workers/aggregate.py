"""documents and the three stages' topics → tagged-documents and entity-mentions: the join, over a Faust table.

What is promised, if Kafka keeps what it acknowledged (producer ``acks=all``, idempotent): **every document that comes
in comes out of tagged-documents once**, also when the aggregator is killed at any instruction and started again.
Mentions come at least once, with equal ``ce_id`` if repeated. How:

1. A message is finished (may be committed) only when all it changed is delivered: the state in the changelog and, for
   the message that completed a document, its outcome. So nothing is lost: what was not finished comes again.
2. A document is emitted in the order: state ``emitting`` (with the whole outcome, the output partition and its
   ``floor`` offset) delivered to the changelog → mentions delivered → tagged document delivered → state ``done``
   delivered. Killed before the first is delivered, nothing was sent, and the message that completed it comes again.
   Killed later, the changelog says ``emitting``, and :mod:`workers.recovery` finds in the output topic whether the
   document is there; only if it is not, it is sent. This is done before any new message is looked at. The document is
   sent last, so where it is, its mentions are.
3. Killed after ``done`` is delivered, the messages that come again find ``done`` and change nothing, for
   ``worker.remember_seconds``.

It rests on one owner per partition. A worker that is *paused* beyond the session timeout while a send is on its way,
and then goes on, can still deliver that one send after its successor has looked.

Every write names its partition and is awaited (:mod:`workers.table`); deliveries complete in the background, at most
``worker.joins_in_flight`` at a time, and finish in any order (:mod:`workers.offsets`).

Deadlines come as ticks on a topic of their own: a timer sends one to a partition where something is due. After a
restart deadlines get a grace of half a minute, for the answers that were waiting in the topics meanwhile.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import orjson
from aiokafka.partitioner import murmur2

from el4ner.assemble import assemble_by
from el4ner.errors import MessageError
from el4ner.serialize import dumps, entities_from_json, types_from_json
from el4ner.types import TaggedDocument
from workers import outputs
from workers.app import StageApp
from workers.config import StreamSettings
from workers.headers import RandomBytes, next_trace
from workers.join import AnswerPart, Deletion, DocumentPart, Join, Part, State, event_id_of
from workers.messages import Outgoing, Record, decode, document_id, document_of, peek, revision_of
from workers.offsets import Ticket
from workers.recovery import OutputTopic
from workers.table import JoinTable
from workers.topics import TABLE_NAME, Topic, topic_name

__all__ = ["Aggregator", "build", "join_of", "read_part"]

log = logging.getLogger(__name__)

GRACE_MS: Final = 30_000
_RECOVERED_AT_ONCE: Final = 200
_STAGE_OF: Final = {
    Topic.SPAN_CANDIDATES: "extract",
    Topic.TYPED_ENTITIES: "classify",
    Topic.VALIDATION_VERDICTS: "validate",
}


def build(app: StageApp, *, clock_ms: Callable[[], int], random: RandomBytes) -> Aggregator:
    """The worker of the join."""
    return Aggregator(app, clock_ms=clock_ms, random=random)


def join_of(settings: StreamSettings) -> Join:
    """The join's rules by configuration."""
    method, worker = settings.method, settings.worker

    def assembled(stage: str, body: Mapping[str, Any]) -> TaggedDocument:
        result = entities_from_json(body) if stage == "validate" else types_from_json(body)
        return assemble_by(method, result)

    return Join(
        assemble=assembled,
        deadline_ms=int(worker.deadline_seconds * 1000),
        remember_ms=int(worker.remember_seconds * 1000),
    )


def read_part(record: Record, *, max_document_chars: int) -> Part | None:
    """What a message tells the join; None: nothing, somebody else answers for it (pure)."""
    if record.topic is Topic.DOCUMENTS:
        if record.value is None:
            return Deletion(document_id(record, None))
        try:
            data = decode(record.topic, record.value)
        except MessageError:
            data = peek(record.value)
            return DocumentPart(document_id(record, data), revision_of(data), None)
        document = document_of(record, data)
        text = document.text if len(document.text) <= max_document_chars else None
        return DocumentPart(document.id, document.revision, text, document.pool, data.get("metadata"))
    if record.value is None:
        return None
    try:
        body = decode(record.topic, record.value)
        if body["status"] == "ok":
            # Offsets that do not fit are found here, not in the middle of a join.
            if record.topic is Topic.VALIDATION_VERDICTS:
                entities_from_json(body)
            elif record.topic is Topic.TYPED_ENTITIES:
                types_from_json(body)
    except MessageError as error:
        # The stage after it refuses the same bytes, with a dead letter and an answer; a broken last answer is left to
        # the deadline.
        log.warning(
            "a stage's message cannot be read: %s",
            error,
            extra={"stage": "aggregate", "source": f"{record.source}-{record.partition}-{record.offset}"},
        )
        return None
    document_data = body["document"]
    return AnswerPart(document_data["id"], document_data["revision"], _STAGE_OF[record.topic], body)


class _Due:
    """What falls due when, per partition: a hint, to look only at those. Entries may be out of date."""

    def __init__(self) -> None:
        self._heaps: dict[int, list[tuple[int, str]]] = {}

    def clear(self) -> None:
        self._heaps.clear()

    def add(self, partition: int, when: int, document: str) -> None:
        heapq.heappush(self._heaps.setdefault(partition, []), (when, document))

    def partitions(self, now: int) -> list[int]:
        return [partition for partition, heap in self._heaps.items() if heap and heap[0][0] <= now]

    def pop(self, partition: int, now: int) -> list[str]:
        heap = self._heaps.get(partition, [])
        due = []
        while heap and heap[0][0] <= now:
            due.append(heapq.heappop(heap)[1])
        return list(dict.fromkeys(due))


class Aggregator:
    """The join's agent."""

    def __init__(self, app: StageApp, *, clock_ms: Callable[[], int], random: RandomBytes) -> None:
        settings = app.settings
        self.app = app
        self.documents = 0
        self.failures = 0
        self._settings = settings
        self._clock_ms = clock_ms
        self._random = random
        self._join = join_of(settings)
        self._limit = settings.method.max_document_chars
        self._documents_topic = topic_name(settings.kafka, Topic.DOCUMENTS)
        self._output = OutputTopic(settings.kafka, topic_name(settings.kafka, Topic.TAGGED_DOCUMENTS))
        self._ends: dict[int, int] = {}
        self._due = _Due()
        self._ticking: set[int] = set()
        self._slots = asyncio.Semaphore(settings.worker.joins_in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._emitting: dict[str, asyncio.Task[None]] = {}
        self._recovering: asyncio.Task[None] | None = None
        self.table: Any = app.tables.add(
            JoinTable(app, name=TABLE_NAME, key_type=bytes, value_type=bytes, partitions=settings.kafka.partitions)
        )
        self.table.on_recover(self._on_recover)
        topics = app.raw_topic(
            Topic.DOCUMENTS,
            Topic.SPAN_CANDIDATES,
            Topic.TYPED_ENTITIES,
            Topic.VALIDATION_VERDICTS,
            Topic.AGGREGATE_TICKS,
        )
        app.agent(topics, name="el4ner-aggregate", concurrency=1)(self.run)
        app.task(self._tick)

    async def run(self, stream: Any) -> None:
        """The agent."""
        try:
            async for event in stream.noack().events():
                await self._slots.acquire()
                taken = self.app.take(event)
                if taken is None:
                    self._slots.release()
                    continue
                await self._handle(*taken)
        except Exception as error:
            self.app.fail(error)
            raise

    async def drain(self) -> None:
        """Wait, within ``worker.shutdown_seconds``, until what was begun is finished; crash if it is not."""
        seconds = self._settings.worker.shutdown_seconds
        while self._tasks:
            _, unfinished = await asyncio.wait(set(self._tasks), timeout=seconds)
            if unfinished:
                # Somebody else will own these documents: what is on its way must not arrive after they looked.
                self.app.fail(TimeoutError(f"{len(unfinished)} joins were not delivered within {seconds:g} s"))
                return

    async def _handle(self, record: Record, ticket: Ticket) -> None:
        """Apply one message. Its slot is released, and its ticket finished, when what it changed is delivered."""
        if record.topic is Topic.AGGREGATE_TICKS:
            await self._handle_tick(record, ticket)
            return
        part = read_part(record, max_document_chars=self._limit)
        if part is None:
            self._finish(ticket)
            return
        if (emission := self._emitting.get(part.id)) is not None:
            # One document, one thing at a time. It fails the worker if it fails.
            await asyncio.wait([emission])
        now = self._clock_ms()
        state = self._load(part.id)
        trace = next_trace(record.headers, self._random).parent
        after = self._join.apply(state, part, partition=record.partition, now=now, trace=trace)
        if after is state:
            self._finish(ticket)
        elif after["phase"] == "emitting":
            self._start(part.id, self._emit(part.id, after, ticket))
        else:
            self._spawn(self._write(part.id, after, ticket))

    async def _write(self, document: str, state: State, ticket: Ticket) -> None:
        await self._put(document, state)
        self._finish(ticket)

    async def _emit(self, document: str, state: State, ticket: Ticket | None) -> None:
        """See the module's statement: the order of the four deliveries is the guarantee."""
        tagged = state["tagged"]
        key = document.encode()
        partition = (murmur2(key) & 0x7FFFFFFF) % len(self._ends)
        noted = {**state, "output": partition, "floor": self._ends[partition]}
        await self._put(document, noted)
        await self._send_outcome(noted)
        await self._put(document, self._join.delivered(noted, now=self._clock_ms()))
        self.documents += 1
        if tagged["status"] == "failed":
            self.failures += 1
        log.debug(
            "document is %s",
            tagged["status"],
            extra={"stage": "aggregate", "document_id": document, "trace_id": _trace_id(state)},
        )
        if ticket is not None:
            self._finish(ticket)
        else:
            self._slots.release()

    async def _send_outcome(self, state: State) -> None:
        tagged, trace, now = state["tagged"], state.get("trace"), self._clock_ms()
        await self.app.deliver(outputs.mentions(tagged, trace=trace, now_ms=now, random=self._random))
        message = outputs.tagged_document(
            tagged, partition=state["output"], trace=trace, now_ms=now, random=self._random
        )
        (metadata,) = await self.app.deliver([message])
        self._ends[metadata.partition] = max(self._ends.get(metadata.partition, 0), metadata.offset + 1)

    async def _handle_tick(self, record: Record, ticket: Ticket) -> None:
        self._ticking.discard(record.partition)
        data = peek(record.value)
        now = data.get("now") if isinstance(data, dict) else None
        if not isinstance(now, int):
            self._finish(ticket)
            return
        changes: list[asyncio.Task[None]] = []
        for document in self._due.pop(record.partition, now):
            if (emission := self._emitting.get(document)) is not None:
                await asyncio.wait([emission])
            state = self._load(document)
            if state is None:
                continue
            after = self._join.expire(document, state, now=now)
            if after is state:
                continue
            await self._slots.acquire()
            if after is None:
                changes.append(self._spawn(self._forget(document, state["partition"])))
            else:
                changes.append(self._start(document, self._emit(document, after, None)))
        self._spawn(self._finish_after(changes, ticket))

    async def _forget(self, document: str, partition: int) -> None:
        await self.table.put(partition, self._documents_topic, document.encode(), None)
        self._slots.release()

    async def _finish_after(self, changes: list[asyncio.Task[None]], ticket: Ticket) -> None:
        if changes:
            await asyncio.wait(changes)
        if all(not change.cancelled() and change.exception() is None for change in changes):
            self._finish(ticket)

    def _finish(self, ticket: Ticket) -> None:
        self.app.positions.finish(ticket)
        self._slots.release()

    def _load(self, document: str) -> State | None:
        raw = self.table.data.get(document.encode())
        return None if raw is None else orjson.loads(raw)

    def _put(self, document: str, state: State) -> asyncio.Future[Any]:
        due = state.get("deadline") if state["phase"] == "open" else state.get("forget")
        if due is not None:
            self._due.add(state["partition"], due, document)
        written: asyncio.Future[Any] = self.table.put(
            state["partition"], self._documents_topic, document.encode(), dumps(state)
        )
        return written

    def _start(self, document: str, emission: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._spawn(emission)
        self._emitting[document] = task
        task.add_done_callback(lambda _: self._emitting.pop(document, None))
        return task

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.app.fail(error)

    async def _tick(self) -> None:
        """Tell the agent, through the topic, where something is due. A table must not be written from a timer."""
        while not self.app.should_stop:
            await asyncio.sleep(self._settings.worker.tick_seconds)
            if self.app.rebalancing:
                continue
            now = self._clock_ms()
            ticks = [partition for partition in self._due.partitions(now) if partition not in self._ticking]
            self._ticking.update(ticks)
            await self.app.deliver(
                [Outgoing(Topic.AGGREGATE_TICKS, None, dumps({"now": now}), (), partition) for partition in ticks]
            )

    async def _on_recover(self) -> None:
        """The table is as the changelog says; no message is read before this returns."""
        # A rebalance may cancel this, but not what it has begun: a send that is on its way has to be waited for, before
        # anybody looks whether it arrived. Faust looks at no callback's exception; the task's own end does (_done).
        while self._recovering is not None and not self._recovering.done():
            await asyncio.wait([self._recovering])
        self._recovering = self._spawn(self._recover())
        await asyncio.wait([self._recovering])
        if self._recovering.cancelled() or self._recovering.exception() is not None:
            # The worker is on its way down; with a table that is not settled nothing may be read.
            await asyncio.Event().wait()

    async def _recover(self) -> None:
        if not self._ends:
            self._ends = await self._output.ends()
        self._due.clear()
        self._ticking.clear()
        uncertain: dict[str, State] = {}
        earliest = self._clock_ms() + GRACE_MS
        for key, raw in list(self.table.data.items()):
            document, state = key.decode(), orjson.loads(raw)
            if state["phase"] == "emitting":
                uncertain[document] = state
            elif state["phase"] == "open":
                self._due.add(state["partition"], max(state["deadline"], earliest), document)
            else:
                self._due.add(state["partition"], state["forget"], document)
        if not uncertain:
            return
        floors: dict[int, int] = {}
        for state in uncertain.values():
            floors[state["output"]] = min(state["floor"], floors.get(state["output"], state["floor"]))
        there = await self._output.event_ids(floors)
        missing = {document for document, state in uncertain.items() if event_id_of(state["tagged"]) not in there}
        log.info(
            "recovery: a crash interrupted %d documents; %d had been delivered, %d are sent now",
            len(uncertain),
            len(uncertain) - len(missing),
            len(missing),
            extra={"stage": "aggregate", "interrupted": len(uncertain), "resent": len(missing)},
        )
        limit = asyncio.Semaphore(_RECOVERED_AT_ONCE)

        async def settle(document: str, state: State) -> None:
            async with limit:
                if document in missing:
                    await self._send_outcome(state)
                await self._put(document, self._join.delivered(state, now=self._clock_ms()))

        await asyncio.gather(*(settle(document, state) for document, state in uncertain.items()))


def _trace_id(state: State) -> str | None:
    trace = state.get("trace")
    return None if trace is None else str(trace).split("-")[1]
