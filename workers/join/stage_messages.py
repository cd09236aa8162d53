"""The stages' messages, as the join reads them. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from el4ner.assemble import assemble_by
from el4ner.errors import MessageError
from el4ner.serialize import dumps, entities_from_json, types_from_json
from el4ner.types import TaggedDocument
from workers.config import StreamSettings
from workers.join.rules import Deletion, JoinInput, JoinRules, ReceivedAnswer
from workers.messages.envelope import REVISION, STATUS, Record, decode, document_id, failed_value, origin_of
from workers.messages.headers import find
from workers.stages.table import STAGE_TABLE
from workers.topics import Topic

__all__ = ["join_rules", "read_input", "unreadable_answer"]

_STAGE_OF: Final[Mapping[Topic, str]] = {stage.output: stage.name for stage in STAGE_TABLE.values()}


def join_rules(settings: StreamSettings) -> JoinRules:
    """The join's rules by configuration."""
    method = settings.method

    def read(stage: str, value: bytes) -> Mapping[str, Any]:
        return decode(STAGE_TABLE[stage].output, value)

    def assembled(stage: str, body: Mapping[str, Any]) -> TaggedDocument:
        result = entities_from_json(body) if stage == "validate" else types_from_json(body)
        return assemble_by(method, result)

    return JoinRules(read=read, assemble=assembled, deadline_ms=int(settings.worker.deadline_seconds * 1000))


def read_input(record: Record) -> JoinInput:
    """What a message tells the join, by its headers if they say enough.

    Raises:
        MessageError: the value is no stage message, and no header says whose it is.
    """
    origin = origin_of(record)
    traced = find(record.headers, "traceparent")
    trace = None if traced is None else traced.decode("ascii", "replace")
    if record.value is None:
        return Deletion(document_id(record, None), origin, trace)
    subject, revision, status = (find(record.headers, name) for name in ("ce_subject", REVISION, STATUS))
    if subject and revision and revision.isdigit() and len(revision) <= 16 and status in (b"ok", b"failed"):
        document, number, failed = subject.decode("utf-8", "replace"), int(revision), status == b"failed"
    else:
        body = decode(record.topic, record.value)
        document, number = body["document"]["id"], body["document"]["revision"]
        failed = body["status"] == "failed"
    stage, place = _STAGE_OF[record.topic], (record.offset, record.timestamp_ms)
    return ReceivedAnswer(document, number, stage, failed, record.value, origin, trace, place, record)


def unreadable_answer(record: Record, error: MessageError, *, document: str, revision: int) -> ReceivedAnswer:
    """In the place of an answer that cannot be read: that its stage has failed."""
    stage = _STAGE_OF[record.topic]
    value = failed_value(stage, document=document, revision=revision, text=None, pool=None, error=error, carried={})
    return ReceivedAnswer(document, revision, stage, True, dumps(value), origin_of(record))
