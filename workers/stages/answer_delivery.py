"""Delivering a stage's answers: what becomes of one that cannot be delivered, and of a process that ends over one."""

from __future__ import annotations

from collections.abc import Sequence

from workers.kafka.delivery import may_be_of_a_message
from workers.kafka.stage_app import StageApp
from workers.stages.crash_journal import CrashJournal
from workers.stages.failure_limit import FailureLimit
from workers.stages.refusals import Smaller, deliver_answers, fitting
from workers.stages.stage import StageAnswer
from workers.stages.stage_telemetry import StageTelemetry

__all__ = ["AnswerDelivery"]


class AnswerDelivery:
    """Delivers the answers of one stage's worker.

    Args:
        smaller: answers in the place of one that is refused.
    """

    def __init__(self, app: StageApp, journal: CrashJournal, telemetry: StageTelemetry, smaller: Smaller) -> None:
        worker = app.settings.worker
        self._app = app
        self._journal = journal
        self._telemetry = telemetry
        self._smaller = smaller
        self._limit = FailureLimit(run=worker.max_failure_run, share=worker.max_failure_share)

    def fitting(self, answers: Sequence[StageAnswer]) -> list[StageAnswer]:
        """The answers; in the place of one that is too large, an answer that gives up on its document."""
        return fitting(answers, self._app.refusal, self._smaller)

    def check(self, answers: Sequence[StageAnswer]) -> None:
        """Count the answers that give up on their document, before any of them is delivered.

        Raises:
            TooManyFailuresError: none of them may be delivered.
        """
        self._limit.check([None if answer.error is None else answer.error.code for answer in answers])

    async def deliver(self, answers: Sequence[StageAnswer]) -> list[StageAnswer]:
        """Deliver answers. One that is refused fails its own document. Returns what was delivered.

        A bug is blamed on the answers: the process ends, and its successor has to know.
        """
        try:
            return await deliver_answers(
                answers,
                lambda messages: self._app.deliver(messages, retried=lambda: self._telemetry.retried("delivery")),
                self._smaller,
                refused=lambda error: self._limit.amend(error.code),
            )
        except Exception as error:
            if may_be_of_a_message(error):
                self._journal.blame([answer.record for answer in answers])
            raise
