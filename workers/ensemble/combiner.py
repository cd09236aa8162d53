"""member-answers → span-candidates and typed-entities: a stage's answer from what its members said apart.

As soon as all members have answered, or ``worker.members_deadline_seconds`` after the first one, the ordinary stage
message is written, as a process with all members would write it; its manifest names those that are missing. No engine
is loaded.

Answers are acknowledged when what they led to is delivered: after a crash they come again. So a document may be told
twice, and the aggregator ignores the second one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from typing_extensions import override

from el4ner.errors import MessageError
from workers.ensemble.answer_writer import AnswerWriter, MemberBacklog
from workers.ensemble.combined_answers import SPLIT_STAGES, WaitingAnswer, read_member_answer, unreadable
from workers.ensemble.member_join import MemberDeletion, MemberJoin
from workers.join.agent import JoinAgent
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record
from workers.messages.headers import RandomBytes
from workers.roles import COMBINE
from workers.stages.stage_telemetry import StageTelemetry
from workers.telemetry.recorder import Telemetry
from workers.topics import Topic

if TYPE_CHECKING:
    # At run time it takes numpy and scipy along.
    from el4ner.stages.combine import Combiner

__all__ = ["CombineWorker", "build"]

log = logging.getLogger(__name__)


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


class CombineWorker(JoinAgent[MemberBacklog]):
    """The agent that joins members' answers. The partitions that are assigned to it have one backlog.

    Args:
        clock_ms: the wall clock, for what is written.
        monotonic_ms: a clock that never jumps, for deadlines.
    """

    _writer: AnswerWriter

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
        recorder = StageTelemetry(telemetry, COMBINE, clock_ms=clock_ms, random=random)
        writer = AnswerWriter(
            app, combiner, clock_ms=clock_ms, monotonic_ms=monotonic_ms, random=random, telemetry=recorder
        )
        super().__init__(app, [Topic.MEMBER_ANSWERS], writer, recorder, monotonic_ms=monotonic_ms)
        self._clock_ms = clock_ms
        self._join: MemberJoin[WaitingAnswer] = MemberJoin(
            deadline_ms=int(worker.members_deadline_seconds * 1000),
            remember_ms=int(worker.remember_seconds * 1000),
            max_documents=worker.max_open_documents,
            max_bytes=worker.max_open_mb << 20,
        )
        self._backlog = MemberBacklog(self._join, writer.write_group)
        self._reported_early = 0
        telemetry.metrics.observe("el4ner_partial_answers", self.partial_answers)
        app.task(self._write_backlog)

    def partial_answers(self) -> dict[tuple[str, ...], float]:
        """Documents that only some members have answered about, by stage."""
        documents = self._join.open_by_stage()
        return {(stage,): float(documents.get(stage, 0)) for stage in SPLIT_STAGES}

    @override
    def _backlogs(self) -> Collection[MemberBacklog]:
        return (self._backlog,)

    @override
    def _backlog_of(self, record: Record) -> MemberBacklog:
        return self._backlog

    @override
    def _join_in(self, backlog: MemberBacklog, record: Record, ticket: Ticket) -> Iterable[Ticket]:
        answer, waiting = read_member_answer(record), WaitingAnswer(record, ticket)
        if isinstance(answer, MemberDeletion):
            free = self._join.delete(answer, waiting)
        else:
            free = self._join.answer(answer, waiting, now=self._monotonic_ms())
        return [freed.ticket for freed in free]

    @override
    def _refuse(self, backlog: MemberBacklog, record: Record, ticket: Ticket, error: MessageError) -> None:
        """The document goes on without it, when its time has come."""
        backlog.letters.append((unreadable(record, error, now_ms=self._clock_ms()), ticket))

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

    async def _write_backlog(self) -> None:
        await self._write(self._backlog)

    @override
    async def take_over(self) -> None:
        """What is not delivered comes again, here or elsewhere."""
        self._join.reset()
        self._backlog.letters.clear()
        await super().take_over()
