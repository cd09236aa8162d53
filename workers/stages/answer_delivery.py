"""Delivering a stage's answers.

A message that is refused (too large, or no broker takes it) fails its own document. The other answers are delivered.
A bug while answers are delivered is blamed on them in the crash journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from workers.kafka.delivery import RefusedError, may_be_of_a_message
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Outgoing
from workers.stages.crash_journal import CrashJournal
from workers.stages.failure_limit import FailureLimit
from workers.stages.stage import StageAnswer
from workers.stages.stage_telemetry import StageTelemetry
from workers.topics import Topic

__all__ = ["AnswerDelivery", "Smaller", "deliver_answers", "fitting"]

Smaller = Callable[[StageAnswer, RefusedError], Iterator[StageAnswer]]
"""``(answer, why it is refused)`` → answers in its place that give up on the document, each smaller than the one
before."""


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


def fitting(
    answers: Sequence[StageAnswer], refusal: Callable[[Outgoing], RefusedError | None], smaller: Smaller
) -> list[StageAnswer]:
    """The answers, and in the place of each that is too large one that says so.

    ``refusal``: why a message cannot be sent, None if it can. An answer stays if nothing fits in its place.
    """
    fitting_answers = []
    for answer in answers:
        refused = _refusal_of(answer, refusal)
        if refused is not None:
            candidates = smaller(answer, refused)
            answer = next((candidate for candidate in candidates if _refusal_of(candidate, refusal) is None), answer)
        fitting_answers.append(answer)
    return fitting_answers


async def deliver_answers(
    answers: Sequence[StageAnswer],
    deliver: Callable[[Sequence[Outgoing]], Awaitable[None]],
    smaller: Smaller,
    *,
    refused: Callable[[RefusedError], None],
) -> list[StageAnswer]:
    """Deliver all, together; if a message is refused, one answer after another. Returns what was delivered.

    ``refused`` is called for each answer that is replaced, before its replacement is sent. Where a refusal comes late,
    messages of other answers are sent twice.

    Raises:
        RefusedError: not even the dead letter is taken.
        Whatever ``deliver`` and ``refused`` raise.
    """
    try:
        await deliver([message for answer in answers for message in answer.messages])
    except RefusedError:
        return [await _deliver_alone(answer, deliver, smaller, refused) for answer in answers]
    return list(answers)


async def _deliver_alone(
    answer: StageAnswer,
    deliver: Callable[[Sequence[Outgoing]], Awaitable[None]],
    smaller: Smaller,
    refused: Callable[[RefusedError], None],
) -> StageAnswer:
    try:
        await deliver(answer.messages)
    except RefusedError as error:
        refused(error)
        last = error
    else:
        return answer
    letters_sent = False
    for candidate in smaller(answer, last):
        letters = [message for message in candidate.messages if message.topic is Topic.DEAD_LETTERS]
        if not letters_sent:
            # Once: from candidate to candidate only the answer becomes smaller.
            await deliver(letters)
            letters_sent = True
        try:
            await deliver([message for message in candidate.messages if message not in letters])
        except RefusedError as error:
            last = error
        else:
            return candidate
    raise last


def _refusal_of(answer: StageAnswer, refusal: Callable[[Outgoing], RefusedError | None]) -> RefusedError | None:
    return next((refused for message in answer.messages if (refused := refusal(message)) is not None), None)
