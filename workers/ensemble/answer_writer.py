"""Writing a stage's answers that were made of members' answers, and what becomes of one that cannot be written.

Answers are delivered in groups, and the messages that they were made of are finished then. An answer that is refused
fails its own document. One that ends worker after worker is given up (:mod:`workers.stages.crash_journal`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from workers.ensemble.combined_answers import WaitingAnswer, combined, smaller
from workers.ensemble.member_join import MemberJoin, SettledAnswer
from workers.join.agent import Backlog
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.headers import RandomBytes
from workers.roles import COMBINE
from workers.stages.answer_delivery import AnswerDelivery
from workers.stages.crash_journal import CrashJournal
from workers.stages.stage import StageAnswer
from workers.stages.stage_telemetry import StageTelemetry

if TYPE_CHECKING:
    # At run time it takes numpy and scipy along.
    from el4ner.stages.combine import Combiner

__all__ = ["AnswerWriter", "MemberBacklog"]

log = logging.getLogger(__name__)

_GROUP: Final = 100

MemberBacklog = Backlog[MemberJoin[WaitingAnswer], tuple[StageAnswer, Ticket]]
"""Members' answers; its letters are about messages that are none, each with the message's ticket."""


class AnswerWriter:
    """Writes for all partitions of a process.

    Args:
        clock_ms: the wall clock, for what is written.
        monotonic_ms: a clock that never jumps.
    """

    def __init__(
        self,
        app: StageApp,
        combiner: Combiner,
        *,
        clock_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        random: RandomBytes,
        telemetry: StageTelemetry,
    ) -> None:
        worker = app.settings.worker
        self._app = app
        self.documents = 0
        self.failures = 0
        self._combiner = combiner
        self._max_crashes = worker.max_crashes
        self._clock_ms = clock_ms
        self._monotonic_ms = monotonic_ms
        self._random = random
        self._telemetry = telemetry
        self.journal = CrashJournal(worker.data_dir, COMBINE)
        self._delivery = AnswerDelivery(app, self.journal, telemetry, self._smaller)

    async def write_group(self, backlog: MemberBacklog) -> None:
        """Write the letters that there are, and what is settled next.

        Raises:
            ConfigError: nothing says how to weigh what the members say.
            TooManyFailuresError: so many documents fail that it is not their fault.
            RefusedError, KafkaError, DeliveryError: as :func:`workers.stages.refusals.deliver_answers`.
        """
        began = self._clock_ms()
        letters, backlog.letters = backlog.letters, []
        group = backlog.join.take(_GROUP)
        answers = [letter for letter, _ in letters]
        # Numbers of large documents take their time, and the loop has heartbeats to send.
        answers += await asyncio.to_thread(self._combined, group)
        answers = self._delivery.fitting([self._unless_it_kills(answer) for answer in answers])
        self._delivery.check(answers)
        delivered: list[StageAnswer] = []
        for indices in self.journal.groups([answer.record for answer in answers]):
            together = [answers[index] for index in indices]
            delivered += await self._delivery.deliver(together)
            for answer in together:
                self.journal.settled(answer.record, given_up=answer.error is not None)
        for _, ticket in letters:
            self._app.positions.finish(ticket)
        for settled in group:
            for waiting in backlog.join.delivered(settled, now=self._monotonic_ms()):
                self._app.positions.finish(waiting.ticket)
        self._report(group, delivered, began)

    def _combined(self, group: Sequence[SettledAnswer[WaitingAnswer]]) -> list[StageAnswer]:
        now, random, refusal = self._clock_ms(), self._random, self._app.refusal
        return [
            answer
            for settled in group
            for answer in combined(settled, self._combiner, now_ms=now, random=random, refusal=refusal)
        ]

    def _unless_it_kills(self, answer: StageAnswer) -> StageAnswer:
        """The answer, or the failure of a document over which too many workers died."""
        deaths = self.journal.deaths(answer.record)
        if deaths < self._max_crashes:
            return answer
        error = RefusedError(f"{deaths} workers died when they told this answer alone", code="worker-crash")
        return next(self._smaller(answer, error), answer)

    def _smaller(self, answer: StageAnswer, refused: RefusedError) -> Iterator[StageAnswer]:
        return smaller(answer, refused.of_the_document, now_ms=self._clock_ms(), random=self._random)

    def _report(
        self, group: Sequence[SettledAnswer[WaitingAnswer]], answers: Sequence[StageAnswer], began_ms: int
    ) -> None:
        self.documents += len(group)
        self._telemetry.answered(answers, began_ms=began_ms)
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
