"""member-answers → span-candidates and typed-entities: a stage's answer, made of its members' answers.

As soon as all members have answered, or ``worker.members_deadline_seconds`` after the first one, the ordinary stage
message is written, as a process with all members would write it; its manifest names those that are missing. No engine
is loaded.

Answers are acknowledged when what they led to is delivered: after a crash they come again. So a stage's answer may be
written twice. The aggregator ignores the second one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from el4ner.errors import MessageError
from workers.ensemble.combined_answers import (
    SPLIT_STAGES,
    WaitingAnswer,
    combined,
    read_member_answer,
    smaller,
    unreadable,
)
from workers.ensemble.member_join import MemberDeletion, MemberJoin, SettledAnswer
from workers.join.agent import JoinAgent, World
from workers.join.write_loop import MOST_SETTLED, WriteLoop
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record
from workers.roles import COMBINE
from workers.stages.answer_delivery import AnswerDelivery
from workers.stages.stage import StageAnswer
from workers.stages.stage_telemetry import StageTelemetry
from workers.telemetry.mixes import observe_mixes
from workers.telemetry.recorder import Telemetry
from workers.topics import Topic

if TYPE_CHECKING:
    # At run time it takes numpy and scipy along.
    from el4ner.stages.combine import Combiner

__all__ = ["CombineWorker", "build"]

log = logging.getLogger(__name__)

_GROUP: Final = 100


def build(app: StageApp, world: World, telemetry: Telemetry) -> CombineWorker:
    """The worker that combines.

    Raises:
        ConfigError, PoolError: the method's settings do not allow it, or a pool cannot be loaded.
    """
    from el4ner.stages.combine import Combiner

    return CombineWorker(app, world, telemetry, Combiner.from_settings(app.settings))


class CombineWorker(JoinAgent):
    """The agent that joins members' answers. It has one join for all partitions that are assigned to it."""

    _recorder: StageTelemetry

    def __init__(self, app: StageApp, world: World, telemetry: Telemetry, combiner: Combiner) -> None:
        worker = app.settings.worker
        recorder = StageTelemetry(telemetry, COMBINE, clock_ms=world.clock_ms, random=world.random)
        super().__init__(app, world, recorder, [Topic.MEMBER_ANSWERS])
        self._combiner = combiner
        self._delivery = AnswerDelivery(app, self._journal, recorder, self._smaller)
        self._join: MemberJoin[WaitingAnswer] = MemberJoin(
            deadline_ms=int(worker.members_deadline_seconds * 1000),
            remember_ms=int(worker.remember_seconds * 1000),
            max_documents=worker.max_open_documents,
            max_bytes=worker.max_open_mb << 20,
        )
        # Dead letters of messages that cannot be read, each with the message's ticket.
        self._letters: list[tuple[StageAnswer, Ticket]] = []
        self._writes = WriteLoop(
            lambda: bool(self._letters or self._join.settled_documents),
            self._write_group,
            lambda: self._join.settled_documents >= MOST_SETTLED,
        )
        self._reported_early = 0
        telemetry.metrics.observe("el4ner_partial_answers", self.partial_answers)
        observe_mixes(telemetry.metrics, lambda: combiner.mixes)
        app.task(self._write_all)

    def partial_answers(self) -> dict[tuple[str, ...], float]:
        """Documents that only some members have answered about, by stage."""
        documents = self._join.open_by_stage()
        return {(stage,): float(documents.get(stage, 0)) for stage in SPLIT_STAGES}

    # --- messages ---

    @override
    def _write_loops(self) -> Iterable[WriteLoop]:
        return [self._writes]

    @override
    def _write_loop_of(self, record: Record) -> WriteLoop:
        return self._writes

    @override
    def _take_in(self, record: Record, ticket: Ticket) -> Iterable[Ticket]:
        answer, waiting = read_member_answer(record), WaitingAnswer(record, ticket)
        if isinstance(answer, MemberDeletion):
            free = self._join.delete(answer, waiting)
        else:
            free = self._join.answer(answer, waiting, now=self._world.monotonic_ms())
        return [freed.ticket for freed in free]

    @override
    def _refuse(self, record: Record, ticket: Ticket, error: MessageError) -> None:
        """The document goes on without it, when its time has come."""
        self._letters.append((unreadable(record, error, now_ms=self._world.clock_ms()), ticket))

    @override
    def _settle_due(self, *, now: int) -> None:
        self._join.tick(now=now)

    @override
    def _limit_open_documents(self) -> None:
        """The join has settled the oldest documents itself, for want of room: say so."""
        early = self._join.settled_early - self._reported_early
        if early:
            self._reported_early += early
            log.warning(
                "too many documents wait for a member: the oldest go on without it",
                extra={"stage": COMBINE, "documents": early},
            )

    # --- what goes out ---

    async def _write_all(self) -> None:
        await self._write(self._writes)

    async def _write_group(self) -> None:
        began = self._world.clock_ms()
        letters, self._letters = self._letters, []
        group = self._join.take(_GROUP)
        answers = [letter for letter, _ in letters]
        # Numbers of large documents take their time, and the loop has heartbeats to send.
        answers += await asyncio.to_thread(self._combined, group)
        answers = self._delivery.fitting([self._unless_it_kills(answer) for answer in answers])
        self._delivery.check(answers)
        delivered: list[StageAnswer] = []
        for indices in self._journal.groups([answer.record for answer in answers]):
            together = [answers[index] for index in indices]
            delivered += await self._delivery.deliver(together)
            for answer in together:
                self._journal.settled(answer.record, given_up=answer.error is not None)
        for _, ticket in letters:
            self.app.positions.finish(ticket)
        for settled in group:
            for waiting in self._join.delivered(settled, now=self._world.monotonic_ms()):
                self.app.positions.finish(waiting.ticket)
        self._report(group, delivered, began)

    def _combined(self, group: Sequence[SettledAnswer[WaitingAnswer]]) -> list[StageAnswer]:
        now, random, refusal = self._world.clock_ms(), self._world.random, self.app.refusal
        return [
            answer
            for settled in group
            for answer in combined(settled, self._combiner, now_ms=now, random=random, refusal=refusal)
        ]

    def _unless_it_kills(self, answer: StageAnswer) -> StageAnswer:
        """The answer, or the failure of a document over which too many workers died."""
        deaths = self._journal.deaths(answer.record)
        if deaths < self._settings.worker.max_crashes:
            return answer
        error = RefusedError(f"{deaths} workers died when they told this answer alone", code="worker-crash")
        return next(self._smaller(answer, error), answer)

    def _smaller(self, answer: StageAnswer, refused: RefusedError) -> Iterator[StageAnswer]:
        return smaller(answer, refused.of_the_document, now_ms=self._world.clock_ms(), random=self._world.random)

    def _report(
        self, group: Sequence[SettledAnswer[WaitingAnswer]], answers: Sequence[StageAnswer], began_ms: int
    ) -> None:
        self.documents += len(group)
        self._recorder.answered(answers, began_ms=began_ms)
        for answer in answers:
            if answer.error is not None:
                self.failures += 1
                extra = {"stage": COMBINE, "code": answer.error.code, "document_id": answer.document}
                log.warning("%s", answer.error, extra=extra)
        without = [settled.missing for settled in group if settled.parts and settled.missing]
        if without:
            missing = sorted({name for names in without for name in names})
            log.warning(
                "documents go on without some members",
                extra={"stage": COMBINE, "documents": len(without), "members": missing},
            )

    # --- partitions come and go ---

    @override
    async def take_over(self) -> None:
        """What is not delivered comes again, here or elsewhere."""
        self._join.reset()
        self._letters.clear()
        await super().take_over()
