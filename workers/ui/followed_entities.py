"""The topics ``entities`` and ``entity-decisions`` for the page, which a thread follows; and deciding more.

Where entities are not switched on, nothing is read.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from http import HTTPStatus
from typing import Final, TypeVar

from el4ner.canonical.decisions import EntityDecision, EntityDecisions
from el4ner.canonical.names import entity_id
from el4ner.errors import MessageError
from workers.config import StreamSettings
from workers.entities.entity_messages import read_decision
from workers.entities.entity_topic import EntitiesError, KnownEntities, decide, decided_joins, decisions_until_now
from workers.http.problems import ProblemError
from workers.kafka.followed_topics import followed_records
from workers.messages.result_reading import ResultReading
from workers.topics import Topic, topic_name
from workers.ui.following_thread import FollowingThread
from workers.ui.held_entities import HeldEntities

__all__ = ["FollowedEntities"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_CLIENT: Final = "el4ner-ui-entities"
_POLL_MS: Final = 200
_PATIENCE_SECONDS: Final = 10.0
"""How long a decision waits to come back from the topic."""


class FollowedEntities:
    """Safe to call from any thread. Nothing is read before :meth:`start`.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, settings: StreamSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self.is_enabled = settings.entities.enabled
        self._deciding = threading.Lock()
        """One decision at a time: each is dated after those before it."""
        self._following = FollowingThread("followed-entities", "the entities", self._follow)
        self._changed = self._following.changed
        """Holds what follows."""
        self._held = HeldEntities(settings.ui.keep_entities)
        self._decisions = EntityDecisions()
        self._is_read = False

    def start(self) -> None:
        """Begin to follow the topics."""
        if self.is_enabled:
            self._following.start()

    def close(self, seconds: float) -> None:
        """Stop following, within so many seconds."""
        self._following.close(seconds)

    @property
    def problem(self) -> str | None:
        """Why the topics cannot be read; None: they can, as far as is known."""
        return self._following.problem

    @property
    def is_read(self) -> bool:
        """Whether all is known that was there when following began."""
        return self._is_read

    def look(self, call: Callable[[HeldEntities, EntityDecisions], T]) -> T:
        """What ``call`` makes of what is held and what was decided, which it may not change, nor keep."""
        with self._changed:
            return call(self._held, self._decisions)

    def merge(self, kept: str, other: str, by: str) -> EntityDecision:
        """Decide that the entity of the id ``other`` is part of that of ``kept``.

        Raises:
            ProblemError: 422: they cannot be one, or one of them is no entity of its own any more, so that another one
                would be merged than was seen. 503: the topics were not read yet.
            EntitiesError: the broker did not take it.
        """
        with self._deciding:
            # Read anew: what somebody decided by the command line a moment ago may not have come here yet.
            before = decisions_until_now(self._settings.kafka)
            kind, name, into = self._asked(lambda held: _merge_of(KnownEntities(held), kept, other, before))
            return self._decide((kind, name), into, by, before)

    def split(self, entity: str, name: str, by: str) -> EntityDecision:
        """Decide that a name, by its id, is no part of an entity.

        Raises:
            ProblemError: 422: it is no name that was joined in it. 503: the topics were not read yet.
            EntitiesError: the broker did not take it.
        """
        with self._deciding:
            before = decisions_until_now(self._settings.kafka)
            subject = self._asked(lambda held: KnownEntities(held).split(entity, name, before))
            return self._decide(subject, None, by, before)

    def _asked(self, call: Callable[[HeldEntities], T]) -> T:
        if not self._is_read:
            detail = self.problem or "the entities are still being read: try again in a moment"
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "entities", detail)
        try:
            return self.look(lambda held, _: call(held))
        except EntitiesError as error:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, error.code, str(error)) from error

    def _decide(
        self, subject: tuple[str, str], into: str | None, by: str, before: Iterable[EntityDecision]
    ) -> EntityDecision:
        now_ms = int(self._clock() * 1000)
        decision = decide(self._settings.kafka, subject, into, by=by, before=before, now_ms=now_ms, random=os.urandom)

        def has_come() -> bool:
            latest = self._decisions.about(decision.entity)
            return latest is not None and latest.rank >= decision.rank

        with self._changed:
            # So that whoever looks next finds it, if that takes no longer than usual.
            self._changed.wait_for(has_come, _PATIENCE_SECONDS)
        return decision

    # --- on the thread ------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        kafka = self._settings.kafka
        topics = [Topic.ENTITIES, Topic.ENTITY_DECISIONS]
        fetch_bytes = 2 * kafka.max_message_bytes
        decisions = topic_name(kafka, Topic.ENTITY_DECISIONS)
        with (
            followed_records(kafka, topics, client_id=_CLIENT, fetch_bytes=fetch_bytes) as followed,
            closing(ResultReading(kafka, Topic.ENTITIES)) as results,
        ):
            with self._changed:
                # What was held may be of a topic that was made anew; both at once would take twice the memory.
                self._held, self._decisions = HeldEntities(self._settings.ui.keep_entities), EntityDecisions()
                self._is_read = False
            while not self._following.stopping.is_set():
                records = followed.poll(_POLL_MS)
                is_read = self._is_read or followed.is_read
                # Not while anybody waits: a schema registry may be asked.
                values = [_plain(results, record.value) for record in records]
                with self._changed:
                    for record, value in zip(records, values, strict=True):
                        self._take(record.key, value, is_decision=record.topic == decisions)
                    self._is_read = is_read
                    self._following.problem = None
                    self._changed.notify_all()

    def _take(self, key: bytes | None, value: bytes | None, *, is_decision: bool) -> None:
        if not is_decision:
            self._held.take(key, value)
        elif value is not None:
            try:
                self._decisions.add(read_decision(key, value))
            except MessageError as error:
                log.warning("a message is no decision, and is passed over: %s", error, extra={"code": error.code})


def _merge_of(known: KnownEntities, kept: str, other: str, before: Iterable[EntityDecision]) -> tuple[str, str, str]:
    """As :meth:`KnownEntities.merge`, of entities as they were seen."""
    for value in map(known.find, (kept, other)):
        if value["merged_into"] is not None:
            whole = known.entity(value["id"])["name"]
            raise EntitiesError(
                f"{value['name']!r} was merged meanwhile, and is part of {whole!r} now: look at it again"
            )
    kind, name, into = known.merge(kept, other)
    joins = decided_joins(EntityDecisions.of(before))
    if joins.entity(entity_id(kind, name)) == joins.entity(entity_id(kind, into)):
        raise EntitiesError(
            f"somebody has decided already that {name!r} and {into!r} are one: el4ner worker entities has yet to carry "
            "it out"
        )
    return kind, name, into


def _plain(results: ResultReading, value: bytes | None) -> bytes | None:
    """A value as JSON; one that cannot be read, which is for who takes it, as it is."""
    try:
        return None if value is None else results.json(value)
    except MessageError:
        return value
