"""The join's changelog: what its records look like, and reading them.

Two kinds of records, compacted by key; a null value deletes. Times in them are the wall clock's, in milliseconds.

- ``open:DOCUMENT``: a document that has been open for a while.
- ``done:NUMBER``: outcomes that went out in one transaction, so that late and repeated answers are recognised.

Records are written in the transaction of the outcomes that they are about, so they are read with ``read_committed``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from el4ner.errors import El4nerError
from el4ner.participation import STAGES
from el4ner.serialize import dumps
from workers.config import KafkaSettings
from workers.join.rules import Closed, LocalAnswer, Open, ReceivedAnswer
from workers.kafka.partition_reader import committed_records
from workers.messages.envelope import Origin
from workers.roles import AGGREGATE

__all__ = [
    "ChangelogError",
    "Recovered",
    "Remembered",
    "closed_record",
    "drop_record",
    "forget_record",
    "open_record",
    "read_changelog",
]

log = logging.getLogger(__name__)

_FORMAT: Final = 2
_OPEN: Final = b"open:"
_DONE: Final = b"done:"

KeyValue = tuple[bytes, bytes | None]


class ChangelogError(El4nerError):
    """The join's changelog holds something that this version cannot go on from."""

    code = "changelog"


@dataclass(frozen=True, slots=True)
class Remembered:
    """Outcomes of one transaction. ``until``: when they are forgotten."""

    number: int
    until: int
    documents: tuple[tuple[str, Closed], ...]


@dataclass(slots=True)
class Recovered:
    """What a partition's changelog says. ``open``: by document; its ``since`` is the wall clock's."""

    open: dict[str, Open] = field(default_factory=dict)
    done: dict[int, Remembered] = field(default_factory=dict)
    records: int = 0


def open_record(document: str, state: Open, *, since: int) -> KeyValue:
    """A document that stays open; ``since`` by the wall clock."""
    value = {
        "v": _FORMAT,
        "revision": state.revision,
        "origin": [state.origin.position, state.origin.timestamp_ms, state.origin.replays],
        "since": since,
        "trace": state.trace,
        "best": _answer_to_json(state.best),
        "failed": _answer_to_json(state.failed),
        "deleted": state.deleted,
    }
    return _OPEN + document.encode(), dumps(value)


def drop_record(document: str) -> KeyValue:
    """The document is not open any more."""
    return _OPEN + document.encode(), None


def closed_record(remembered: Remembered) -> KeyValue:
    """Outcomes of one transaction."""
    value = {
        "v": _FORMAT,
        "until": remembered.until,
        "documents": [
            [document, closed.revision, closed.position, closed.replays, closed.status, closed.deleted]
            for document, closed in remembered.documents
        ],
    }
    return _DONE + str(remembered.number).encode(), dumps(value)


def forget_record(number: int) -> KeyValue:
    """The outcomes of that number are not remembered any more."""
    return _DONE + str(number).encode(), None


async def read_changelog(settings: KafkaSettings, name: str, partition: int) -> Recovered:
    """What a partition's changelog says. Call it when nobody else can write to it any more.

    Raises:
        ChangelogError: a record of an open document cannot be read; passing over it would lose the document.
    """
    recovered = Recovered()
    async for record in committed_records(settings, name, partition):
        _take_in(recovered, record.key, record.value, f"{name}-{partition}-{record.offset}")
    return recovered


def _take_in(recovered: Recovered, key: bytes | None, value: bytes | None, place: str) -> None:
    recovered.records += 1
    try:
        if key is not None and key.startswith(_OPEN):
            document = key.removeprefix(_OPEN).decode()
            if value is None:
                recovered.open.pop(document, None)
            else:
                recovered.open[document] = _open_from_json(document, orjson.loads(value))
        elif key is not None and key.startswith(_DONE):
            number = int(key.removeprefix(_DONE))
            if value is None:
                recovered.done.pop(number, None)
            else:
                recovered.done[number] = _remembered_from_json(number, orjson.loads(value))
        elif value is not None and orjson.loads(value)["phase"] in {"open", "emitting"}:
            # As an aggregator before the format 2 wrote them, under the document's id alone.
            raise ValueError("it is of an older version: let that one finish its documents first")  # noqa: TRY301
    except (KeyError, TypeError, ValueError) as error:
        if key is not None and key.startswith(_DONE):
            log.warning(
                "a record of finished documents cannot be read and is passed over: %s",
                error,
                extra={"stage": AGGREGATE, "source": place},
            )
            return
        raise ChangelogError(f"the join's changelog cannot be read at {place}: {error}") from error


def _answer_to_json(answer: ReceivedAnswer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    if isinstance(answer.value, LocalAnswer):
        raise TypeError(f"document {answer.id!r} waits for an answer of {answer.stage}, which runs in this process")
    try:
        value = answer.value.decode()
    except UnicodeDecodeError:
        value = ""  # as useless as what it stands for: neither is a stage's message
    return {"stage": answer.stage, "value": value, "place": answer.place}


def _open_from_json(document: str, data: Mapping[str, Any]) -> Open:
    if data["v"] != _FORMAT:
        raise ValueError(f"version {data['v']!r}")
    revision = int(data["revision"])
    origin = Origin(*map(int, data["origin"]))

    def answer(answered: Mapping[str, Any] | None, *, failed: bool) -> ReceivedAnswer | None:
        if answered is None:
            return None
        if answered["stage"] not in STAGES:
            raise ValueError(f"stage {answered['stage']!r}")
        # Who wrote it before there were places did not say where the message lies.
        offset, timestamp = map(int, answered.get("place", (-1, -1)))
        value, place = answered["value"].encode(), (offset, timestamp)
        return ReceivedAnswer(document, revision, answered["stage"], failed, value, origin, data["trace"], place)

    return Open(
        revision,
        origin,
        int(data["since"]),
        data["trace"],
        answer(data["best"], failed=False),
        answer(data["failed"], failed=True),
        int(data["deleted"]),
    )


def _remembered_from_json(number: int, data: Mapping[str, Any]) -> Remembered:
    if data["v"] != _FORMAT:
        raise ValueError(f"version {data['v']!r}")
    documents: Iterable[Any] = data["documents"]
    return Remembered(
        number,
        int(data["until"]),
        tuple(
            (str(document), Closed(int(revision), int(position), int(replays), status, int(deleted)))
            for document, revision, position, replays, status, deleted in documents
        ),
    )
