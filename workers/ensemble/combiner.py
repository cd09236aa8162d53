"""member-answers → span-candidates and typed-entities: a stage's answer from what its members said apart.

As soon as all members have answered, or ``worker.members_deadline_seconds`` after the first one, the ordinary stage
message is written, as a process with all members would write it; its manifest names those that are missing. When it
is settled is :mod:`workers.ensemble.member_join`'s to say, what it says :mod:`el4ner.stages.combine`'s. No engine is
loaded.

Answers are acknowledged when what they led to is delivered: after a crash they come again. So a document may be told
twice, and the aggregator ignores the second one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from el4ner.errors import DocumentError, MessageError
from el4ner.participation import SPLITTABLE
from el4ner.serialize import answers_from_json, candidates_from_json, fingerprint
from el4ner.types import DocumentCandidates, DocumentTypes
from workers.ensemble.member_join import MemberAnswer, MemberDeletion, MemberJoin, SettledAnswer
from workers.join.write_loop import WriteLoop
from workers.kafka.delivery import RefusedError, may_be_of_a_message
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Outgoing, Record, dead_letter, decode, document_id, origin_of, peek, whose_answer
from workers.messages.headers import RandomBytes, find
from workers.roles import COMBINE
from workers.stages.crash_journal import CrashJournal
from workers.stages.failure_limit import FailureLimit
from workers.stages.isolation import Result
from workers.stages.refusals import deliver_answers, fitting
from workers.stages.stage import STAGE, Deleted, Failure, Stage, StageAnswer, Work
from workers.stages.stage_telemetry import StageTelemetry
from workers.stages.table import CLASSIFY, EXTRACT, STAGE_TABLE
from workers.telemetry.recorder import Telemetry
from workers.topics import Topic

if TYPE_CHECKING:
    # At run time it takes numpy and scipy along.
    from el4ner.stages.combine import Combiner

__all__ = ["CombineWorker", "build", "combined", "read_member_answer", "smaller"]

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
_GROUP: Final = 100
_MOST_SETTLED: Final = 1_000
_YIELD_EVERY: Final = 50
_STAGES: Final[Mapping[str, Stage[Any, Any]]] = {name: STAGE_TABLE[name] for name in SPLITTABLE}


@dataclass(frozen=True, slots=True)
class WaitingAnswer:
    """A member's answer with its acknowledgement."""

    record: Record
    ticket: Ticket


def build(
    app: StageApp,
    *,
    clock_ms: Callable[[], int],
    monotonic_ms: Callable[[], int],
    random: RandomBytes,
    telemetry: Telemetry,
) -> CombineWorker:
    """The worker that combines.

    Raises:
        ConfigError, PoolError: the method's settings do not allow it, or a pool cannot be loaded.
    """
    from el4ner.stages.combine import Combiner

    combiner = Combiner.from_settings(app.settings)
    return CombineWorker(
        app, combiner, clock_ms=clock_ms, monotonic_ms=monotonic_ms, random=random, telemetry=telemetry
    )


def read_member_answer(record: Record) -> MemberAnswer | MemberDeletion:
    """What a message of ``member-answers`` says.

    Raises:
        MessageError: it is none.
    """
    origin = origin_of(record)
    if record.value is None:
        return MemberDeletion(_stage_of(record), document_id(record, None), origin)
    data = decode(record.topic, record.value)
    document = data["document"]
    return MemberAnswer(
        data["stage"],
        document["id"],
        document["revision"],
        tuple(data["members"]),
        tuple(data["expected"]),
        None if data["status"] == "failed" else _question(data),
        origin,
        len(record.value),
    )


def _stage_of(record: Record) -> str:
    named = (find(record.headers, STAGE) or b"").decode("utf-8", "replace")
    if named not in _STAGES:
        raise MessageError(f"the header {STAGE} says {named!r}, expected one of {', '.join(_STAGES)}", code="schema")
    return named


def _question(data: Mapping[str, Any]) -> str:
    """Names what members were asked: the answers to different questions do not go together."""
    producer, is_extract = data["producer"], data["stage"] == "extract"
    asked = [
        [item["start"], item["end"]]
        if is_extract
        else [
            item["start"],
            item["end"],
            item["demonstrations"],
            [[candidate["start"], candidate["end"], candidate["proposed_by"]] for candidate in item["candidates"]],
        ]
        for item in data["sentences"]
    ]
    about = [producer[name] for name in ("mode", "prompt_version", "pool", "pool_fingerprint")]
    return fingerprint(data["document"]["text"], data["expected"], about, asked)


def combined(
    settled: SettledAnswer[WaitingAnswer],
    combiner: Combiner,
    *,
    now_ms: int,
    random: RandomBytes,
    refusal: Callable[[Outgoing], RefusedError | None] = lambda _: None,
) -> tuple[StageAnswer, list[StageAnswer]]:
    """The stage's answer; and answers of members that cannot be read, with their dead letters. ``refusal``: why a
    message cannot be sent, None if it can.

    Raises:
        ConfigError: nothing says how to weigh what they said.
    """
    stage = _STAGES[settled.stage]
    if settled.deleted:
        record = settled.tickets[0].record
        return stage.forward(Deleted(record, settled.document), now_ms=now_ms, random=random), []
    read = candidates_from_json if stage is EXTRACT else answers_from_json
    parts: list[tuple[tuple[str, ...], Any]] = []
    kept: list[tuple[Record, Mapping[str, Any]]] = []
    broken: list[StageAnswer] = []
    for members, held in settled.parts:
        data = _json(held.record)
        try:
            parts.append((members, read(data)))
        except MessageError as error:
            broken.append(_letter(held.record, settled, error, now_ms))
        else:
            kept.append((held.record, data))
    if not parts:
        return _failed(stage, settled, broken, now_ms=now_ms, random=random), broken
    record, data = kept[0]
    work = Work(record, parts[0][1].document, None, _carried(data))
    make: Callable[..., DocumentCandidates | DocumentTypes] = (
        combiner.candidates if stage is EXTRACT else combiner.types
    )
    try:
        answer = stage.answer(work, Result(make(parts, settled.expected)), now_ms=now_ms, random=random)
        if (refused := refusal(answer.messages[0])) is not None:
            raise refused.of_the_document
    except DocumentError as error:
        # All that it was made of: sent again, they come to the same.
        broken += [_letter(other, settled, error, now_ms) for other, _ in kept[1:]]
        return stage.answer(work, Result(error), now_ms=now_ms, random=random), broken
    return answer, broken


def smaller(answer: StageAnswer, error: DocumentError, *, now_ms: int, random: RandomBytes) -> Iterator[StageAnswer]:
    """Answers in the place of one that is too large, as :meth:`workers.stages.stage.Stage.smaller`: with the document's
    text,
    without it, without what goes with it too. None for a deletion, and for a dead letter without an answer."""
    data = peek(answer.record.value)
    if answer.messages[-1].topic is Topic.DEAD_LETTERS or not isinstance(data, dict):
        return
    stage, document = _STAGES[data["stage"]], data["document"]
    carried = _carried(data)
    for text, more in ((document["text"], carried), (None, carried), (None, {})):
        failure = Failure(
            answer.record,
            document["id"],
            document["revision"],
            text,
            document["pool"],
            answer.error or error,
            carried=more,
        )
        yield stage.give_up(failure, now_ms=now_ms, random=random)


def _failed(
    stage: Stage[Any, Any],
    settled: SettledAnswer[WaitingAnswer],
    broken: Sequence[StageAnswer],
    *,
    now_ms: int,
    random: RandomBytes,
) -> StageAnswer:
    """No member has a result: the stage has failed, with the first error. Each process has sent its own dead letter."""
    if settled.failures:
        record = settled.failures[0].record
        data = _json(record)
        error = DocumentError(data["error"]["message"], code=data["error"]["code"])
    else:
        record = broken[0].record
        data = _json(record)
        error = broken[0].error or DocumentError("no member has an answer")
    document = data["document"]
    failure = Failure(
        record,
        document["id"],
        document["revision"],
        document["text"],
        document["pool"],
        error,
        carried=_carried(data),
    )
    message = stage.failed(document["id"], failure, now_ms=now_ms, random=random)
    return StageAnswer(record, document["id"], (message,), error)


def _json(record: Record) -> Mapping[str, Any]:
    """It was found valid when it came."""
    data: Mapping[str, Any] = orjson.loads(record.value or b"")
    return data


def _carried(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in ("manifests", "metadata") if name in data}


def _letter(record: Record, settled: SettledAnswer[WaitingAnswer], error: DocumentError, now_ms: int) -> StageAnswer:
    letter = dead_letter(record, stage=settled.stage, error=error, document=settled.document, attempts=1, now_ms=now_ms)
    return StageAnswer(record, settled.document, (letter,), error)


class CombineWorker:
    """The agent.

    Args:
        clock_ms: the wall clock, for what is written.
        monotonic_ms: a clock that never jumps, for deadlines.
    """

    def __init__(
        self,
        app: StageApp,
        combiner: Combiner,
        *,
        clock_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        random: RandomBytes,
        telemetry: Telemetry,
    ) -> None:
        worker = app.settings.worker
        self.app = app
        self.documents = 0
        self.failures = 0
        self._combiner = combiner
        self._settings = app.settings
        self._clock_ms = clock_ms
        self._monotonic_ms = monotonic_ms
        self._random = random
        self._telemetry = StageTelemetry(telemetry, COMBINE, clock_ms=clock_ms, random=random)
        self._limit = FailureLimit(run=worker.max_failure_run, share=worker.max_failure_share)
        self._join: MemberJoin[WaitingAnswer] = MemberJoin(
            deadline_ms=int(worker.members_deadline_seconds * 1000),
            remember_ms=int(worker.remember_seconds * 1000),
            max_documents=worker.max_open_documents,
            max_bytes=worker.max_open_mb << 20,
        )
        self._letters: list[tuple[StageAnswer, Ticket]] = []
        self._journal = CrashJournal(worker.data_dir, COMBINE)
        self._crashed = False
        self._writes = WriteLoop(lambda: self._has_work, self._write_group)
        telemetry.metrics.observe("el4ner_partial_answers", self.partial_answers)
        app.agent(app.raw_topic(Topic.MEMBER_ANSWERS), name=f"el4ner-{COMBINE}", concurrency=1)(self.run)
        app.task(self._write)
        app.task(self._tick)
        app.prepare = self._on_assigned

    # --- what health and metrics ask ---

    batch_seconds: Final = None
    """There is no engine."""

    def partial_answers(self) -> dict[tuple[str, ...], float]:
        """Documents that only some members have answered about, by stage."""
        found = self._join.open_by_stage()
        return {(stage,): float(found.get(stage, 0)) for stage in _STAGES}

    @property
    def settled_early(self) -> int:
        """Documents that went on before their time, since too many were open."""
        return self._join.settled_early

    # --- messages ---

    async def run(self, stream: Any) -> None:
        """The agent."""
        try:
            async for event in stream.noack().events():
                early = self._join.settled_early
                for count, (record, ticket) in enumerate(self.app.take(event), 1):
                    self._handle(record, ticket)
                    if count % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                    await self._writes.room(lambda: self._join.settled_documents >= _MOST_SETTLED)
                if self._join.settled_early > early:
                    log.warning(
                        "too many documents wait for a member: the oldest go on without it",
                        extra={"stage": COMBINE, "documents": self._join.settled_early - early},
                    )
        except Exception as error:
            self.app.fail(error)
            raise

    def _handle(self, record: Record, ticket: Ticket) -> None:
        held = WaitingAnswer(record, ticket)
        try:
            read = read_member_answer(record)
        except MessageError as error:
            self._refuse(record, ticket, error)
        else:
            if isinstance(read, MemberDeletion):
                free = self._join.delete(read, held)
            else:
                free = self._join.answer(read, held, now=self._monotonic_ms())
            for one in free:
                self.app.positions.finish(one.ticket)
        self._writes.wake()

    def _refuse(self, record: Record, ticket: Ticket, error: MessageError) -> None:
        """A message that cannot be read: its document goes on without it, when its time has come."""
        whose, _ = whose_answer(record)
        named = (find(record.headers, STAGE) or b"").decode("utf-8", "replace")
        stage = named if named in _STAGES else CLASSIFY.name
        letter = dead_letter(record, stage=stage, error=error, document=whose, attempts=1, now_ms=self._clock_ms())
        self._letters.append((StageAnswer(record, whose, (letter,), error), ticket))

    @property
    def _has_work(self) -> bool:
        return bool(self._letters or self._join.settled_documents)

    # --- what goes out ---

    async def _write(self) -> None:
        try:
            await self._writes.run()
        except Exception as error:
            self.app.fail(error)
            raise

    async def _write_group(self) -> None:
        began = self._clock_ms()
        letters, self._letters = self._letters, []
        group = self._join.take(_GROUP)
        answers = [answer for answer, _ in letters]
        # Numbers of large documents take their time, and the loop has heartbeats to send.
        for answer, broken in await asyncio.to_thread(self._combined, group):
            answers += [answer, *broken]
        answers = fitting([self._unless_it_kills(one) for one in answers], self.app.refusal, self._smaller)
        self._limit.check([None if answer.error is None else answer.error.code for answer in answers])
        groups = self._journal.groups([answer.record for answer in answers])
        answers = [each for group in groups for each in await self._deliver([answers[index] for index in group])]
        for _, ticket in letters:
            self.app.positions.finish(ticket)
        for settled in group:
            for held in self._join.delivered(settled, now=self._monotonic_ms()):
                self.app.positions.finish(held.ticket)
        self._tell(group, answers, began)

    async def _deliver(self, answers: Sequence[StageAnswer]) -> list[StageAnswer]:
        """Deliver answers; what is refused fails its own document."""
        try:
            delivered = await deliver_answers(
                answers,
                lambda messages: self.app.deliver(messages, retried=lambda: self._telemetry.retried("delivery")),
                self._smaller,
                refused=lambda error: self._limit.amend(error.code),
            )
        except Exception as error:
            if may_be_of_a_message(error):
                self._journal.blame([answer.record for answer in answers])
                self._crashed = True
            raise
        for answer in answers:
            self._journal.settled(answer.record, given_up=answer.error is not None)
        return delivered

    def _unless_it_kills(self, answer: StageAnswer) -> StageAnswer:
        """The answer, or the failure of a document over which too many workers died."""
        deaths = self._journal.deaths(answer.record)
        if deaths < self._settings.worker.max_crashes:
            return answer
        error = RefusedError(f"{deaths} workers died when they told this answer alone", code="worker-crash")
        return next(self._smaller(answer, error), answer)

    def _smaller(self, answer: StageAnswer, refused: RefusedError) -> Iterator[StageAnswer]:
        return smaller(answer, refused.of_the_document, now_ms=self._clock_ms(), random=self._random)

    def _combined(self, group: Sequence[SettledAnswer[WaitingAnswer]]) -> list[tuple[StageAnswer, list[StageAnswer]]]:
        now = self._clock_ms()
        return [
            combined(settled, self._combiner, now_ms=now, random=self._random, refusal=self.app.refusal)
            for settled in group
        ]

    def _tell(self, group: Sequence[SettledAnswer[WaitingAnswer]], answers: Sequence[StageAnswer], began: int) -> None:
        self.documents += len(group)
        self._telemetry.answered(answers, began_ms=began)
        for answer in answers:
            if answer.error is not None:
                self.failures += 1
                log.warning(
                    "%s",
                    answer.error,
                    extra={"stage": COMBINE, "code": answer.error.code, "document_id": answer.document},
                )
        without = [settled.missing for settled in group if settled.parts and settled.missing]
        if without:
            log.warning(
                "documents go on without some members",
                extra={
                    "stage": COMBINE,
                    "documents": len(without),
                    "members": sorted({name for missing in without for name in missing}),
                },
            )

    # --- partitions come and go ---

    async def _on_assigned(self) -> None:
        self._telemetry.assigned()
        self._join.reset()
        self._letters.clear()
        await asyncio.to_thread(self._journal.take_over)

    async def drain(self) -> None:
        """Tell what is settled, within ``worker.shutdown_seconds``. What is open comes again, here or elsewhere."""
        await self._writes.drain(asyncio.get_running_loop().time() + self._settings.worker.shutdown_seconds)

    async def release(self) -> None:
        """Stop for good, in order unless a process has to be told what this one died of."""
        if not self._crashed:
            self._journal.close()

    async def _tick(self) -> None:
        while not self.app.should_stop:
            await asyncio.sleep(TICK_SECONDS)
            self._join.tick(now=self._monotonic_ms())
            self._writes.wake()
