"""From members' answers to a stage's answer. Pure: no I/O.

:mod:`workers.ensemble.member_join` decides when a stage's answer is ready, :mod:`el4ner.stages.combine` what it says.
Here messages become what these two take, and what they give becomes messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from el4ner.errors import DocumentError, MessageError
from el4ner.participation import SPLITTABLE
from el4ner.serialize import answers_from_json, candidates_from_json, fingerprint
from el4ner.types import DocumentCandidates, DocumentTypes
from workers.ensemble.member_join import MemberAnswer, MemberDeletion, SettledAnswer
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import Ticket
from workers.messages.envelope import Outgoing, Record, dead_letter, decode, document_id, origin_of, peek, whose_answer
from workers.messages.headers import RandomBytes, find
from workers.stages.isolation import Result
from workers.stages.stage import STAGE, Deleted, Failure, Stage, StageAnswer, Work
from workers.stages.table import CLASSIFY, EXTRACT, STAGE_TABLE
from workers.topics import Topic

if TYPE_CHECKING:
    # At run time it takes numpy and scipy along.
    from el4ner.stages.combine import Combiner

__all__ = ["SPLIT_STAGES", "WaitingAnswer", "combined", "read_member_answer", "smaller", "unreadable"]

SPLIT_STAGES: Final[Mapping[str, Stage[Any, Any]]] = {name: STAGE_TABLE[name] for name in SPLITTABLE}
"""The stages whose answers can be made of members' answers, by name."""


@dataclass(frozen=True, slots=True)
class WaitingAnswer:
    """A message of ``member-answers``, with the ticket that acknowledges it."""

    record: Record
    ticket: Ticket


# --- what comes in ---


def read_member_answer(record: Record) -> MemberAnswer | MemberDeletion:
    """What a message of ``member-answers`` says.

    Raises:
        MessageError: it is no answer of members.
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
        "" if data["status"] == "failed" else _lineage(data),
    )


def unreadable(record: Record, error: MessageError, *, now_ms: int) -> StageAnswer:
    """The dead letter of a message that is no answer of members."""
    document, _ = whose_answer(record)
    named = _stage_header(record)
    stage = named if named in SPLIT_STAGES else CLASSIFY.name
    return _letter(record, error, stage=stage, document=document, now_ms=now_ms)


def _stage_header(record: Record) -> str:
    return (find(record.headers, STAGE) or b"").decode("utf-8", "replace")


def _stage_of(record: Record) -> str:
    named = _stage_header(record)
    if named not in SPLIT_STAGES:
        expected = ", ".join(SPLIT_STAGES)
        raise MessageError(f"the header {STAGE} says {named!r}, expected one of {expected}", code="schema")
    return named


def _question(data: Mapping[str, Any]) -> str:
    """Names what members were asked: the answers to different questions do not go together."""
    return _asked(data, data["producer"]["pool_fingerprint"], with_demonstrations=True)


def _lineage(data: Mapping[str, Any]) -> str:
    """As :func:`_question`, whatever the pool was taught over its files: in which demonstrations are places, so that
    they are left out."""
    producer = data["producer"]
    return _asked(data, producer.get("pool_base") or producer["pool_fingerprint"], with_demonstrations=False)


def _asked(data: Mapping[str, Any], pool_fingerprint: str, *, with_demonstrations: bool) -> str:
    producer, is_extract = data["producer"], data["stage"] == EXTRACT.name

    def about(item: Mapping[str, Any]) -> list[Any]:
        place = [item["start"], item["end"]]
        if is_extract:
            return place
        shown = [item["demonstrations"]] if with_demonstrations else []
        candidates = [[each["start"], each["end"], each["proposed_by"]] for each in item["candidates"]]
        return [*place, *shown, candidates]

    made = [*(producer[name] for name in ("mode", "prompt_version", "pool")), pool_fingerprint]
    return fingerprint(data["document"]["text"], data["expected"], made, [about(item) for item in data["sentences"]])


# --- what goes out ---


def combined(
    settled: SettledAnswer[WaitingAnswer],
    combiner: Combiner,
    *,
    now_ms: int,
    random: RandomBytes,
    refusal: Callable[[Outgoing], RefusedError | None] = lambda _: None,
) -> list[StageAnswer]:
    """The stage's answer; behind it the dead letters of members' answers that cannot be read.

    Args:
        refusal: why a message cannot be sent; None if it can.

    Raises:
        ConfigError: nothing says how to weigh what the members say.
    """
    stage = SPLIT_STAGES[settled.stage]
    if settled.deleted:
        record = settled.tickets[0].record
        return [stage.forward(Deleted(record, settled.document), now_ms=now_ms, random=random)]
    read = candidates_from_json if stage is EXTRACT else answers_from_json
    parts: list[tuple[tuple[str, ...], Any]] = []
    readable: list[tuple[Record, Mapping[str, Any]]] = []
    letters: list[StageAnswer] = []

    def give_up(record: Record, error: DocumentError) -> None:
        letters.append(_letter(record, error, stage=stage.name, document=settled.document, now_ms=now_ms))

    for members, waiting in settled.parts:
        data = _json(waiting.record)
        try:
            parts.append((members, read(data)))
        except MessageError as error:
            give_up(waiting.record, error)
        else:
            readable.append((waiting.record, data))
    if not parts:
        return [_failed(stage, settled, letters, now_ms=now_ms, random=random), *letters]
    record, data = readable[0]
    work = Work(record, parts[0][1].document, None, _carried(data))
    combine: Callable[..., DocumentCandidates | DocumentTypes] = (
        combiner.candidates if stage is EXTRACT else combiner.types
    )
    try:
        answer = stage.answer(work, Result(combine(parts, settled.expected)), now_ms=now_ms, random=random)
        if (refused := refusal(answer.messages[0])) is not None:
            raise refused.of_the_document
    except DocumentError as error:
        answer = stage.answer(work, Result(error), now_ms=now_ms, random=random)
        # All messages that it was made of: only together they lead to the answer again.
        for other, _ in readable[1:]:
            give_up(other, error)
    return [answer, *letters]


def smaller(answer: StageAnswer, error: DocumentError, *, now_ms: int, random: RandomBytes) -> Iterator[StageAnswer]:
    """Answers in the place of one that is too large, as :meth:`workers.stages.stage.Stage.smaller`: with the document's
    text, without it, without what goes with it too. None for a deletion, and for a dead letter without an answer."""
    data = peek(answer.record.value)
    if answer.messages[-1].topic is Topic.DEAD_LETTERS or not isinstance(data, dict):
        return
    whole = _failure(answer.record, data, answer.error or error)
    for failure in (whole, replace(whole, text=None), replace(whole, text=None, carried={})):
        yield SPLIT_STAGES[data["stage"]].give_up(failure, now_ms=now_ms, random=random)


def _failed(
    stage: Stage[Any, Any],
    settled: SettledAnswer[WaitingAnswer],
    letters: Sequence[StageAnswer],
    *,
    now_ms: int,
    random: RandomBytes,
) -> StageAnswer:
    """No member has a result: the stage has failed, with the first error. Each process has sent its own dead letter."""
    record = settled.failures[0].record if settled.failures else letters[0].record
    data = _json(record)
    if settled.failures:
        error = DocumentError(data["error"]["message"], code=data["error"]["code"])
    else:
        error = letters[0].error or DocumentError("no member has an answer")
    document: str = data["document"]["id"]
    message = stage.failed(document, _failure(record, data, error), now_ms=now_ms, random=random)
    return StageAnswer(record, document, (message,), error)


def _failure(record: Record, data: Mapping[str, Any], error: DocumentError) -> Failure:
    document = data["document"]
    return Failure(
        record,
        document["id"],
        document["revision"],
        document["text"],
        document["pool"],
        error,
        carried=_carried(data),
    )


def _json(record: Record) -> Mapping[str, Any]:
    """It was found valid when it came."""
    data: Mapping[str, Any] = orjson.loads(record.value or b"")
    return data


def _carried(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in ("manifests", "metadata") if name in data}


def _letter(record: Record, error: DocumentError, *, stage: str, document: str | None, now_ms: int) -> StageAnswer:
    letter = dead_letter(record, stage=stage, error=error, document=document, attempts=1, now_ms=now_ms)
    return StageAnswer(record, document, (letter,), error)
