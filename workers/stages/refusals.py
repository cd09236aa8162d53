"""Answers whose messages are refused: each is its own document's failure, and the others are delivered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from workers.kafka.delivery import RefusedError
from workers.messages.envelope import Outgoing
from workers.stages.stage import StageAnswer
from workers.topics import Topic

__all__ = ["Smaller", "deliver_answers", "fitting"]

Smaller = Callable[[StageAnswer, RefusedError], Iterator[StageAnswer]]
"""``(answer, why it is refused)`` → answers in its place that give up on the document, each smaller than the one
before."""


def fitting(
    answers: Sequence[StageAnswer], refusal: Callable[[Outgoing], RefusedError | None], smaller: Smaller
) -> list[StageAnswer]:
    """The answers, and in the place of each that is too large one that says so.

    ``refusal``: why a message cannot be sent, None if it can. An answer that nothing fits in the place of stays.
    """
    found = []
    for answer in answers:
        refused = _refusal_of(answer, refusal)
        if refused is not None:
            others = smaller(answer, refused)
            answer = next((other for other in others if _refusal_of(other, refusal) is None), answer)
        found.append(answer)
    return found


async def deliver_answers(
    answers: Sequence[StageAnswer],
    deliver: Callable[[Sequence[Outgoing]], Awaitable[None]],
    smaller: Smaller,
    *,
    refused: Callable[[RefusedError], None],
) -> list[StageAnswer]:
    """Deliver all, together; if a message is refused, one answer after another. Returns what was delivered.

    ``refused`` is told of each answer that another one is put in the place of, before that is sent. Where a refusal
    came late, messages of other answers are sent twice.

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
    told = False
    for other in smaller(answer, last):
        letters = [message for message in other.messages if message.topic is Topic.DEAD_LETTERS]
        if not told:
            # Once: only the answer becomes smaller.
            await deliver(letters)
            told = True
        try:
            await deliver([message for message in other.messages if message not in letters])
        except RefusedError as error:
            last = error
        else:
            return other
    raise last


def _refusal_of(answer: StageAnswer, refusal: Callable[[Outgoing], RefusedError | None]) -> RefusedError | None:
    return next((refused for message in answer.messages if (refused := refusal(message)) is not None), None)
