"""How far each stage is behind, as the broker knows it: from the offsets that its consumer group has committed
(kafka-python; blocking)."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from kafka.admin import OffsetSpec

from workers.config import KafkaSettings
from workers.kafka.topic_admin import administering
from workers.roles import ENTITIES, REDACT, ROLES
from workers.topics import TopicError, app_id

__all__ = ["LagKeeper", "group_lags"]

_KEPT_SECONDS: Final = 5.0


class LagKeeper:
    """Asks for the lags when somebody wants them, and not more often than every five seconds."""

    def __init__(self, settings: KafkaSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: tuple[list[dict[str, Any]], str | None] = ([], None)
        self._known_at = -math.inf

    async def latest(self) -> tuple[list[dict[str, Any]], str | None]:
        """The lags, and why there are none."""
        async with self._lock:
            if self._clock() - self._known_at >= _KEPT_SECONDS:
                try:
                    self._known = (await asyncio.to_thread(group_lags, self._settings), None)
                except TopicError as error:
                    self._known = ([], str(error))
                self._known_at = self._clock()
            return self._known


def group_lags(settings: KafkaSettings) -> list[dict[str, Any]]:
    """Of each stage that has ever committed anything: ``lag`` in messages (marks of transactions count), by topic, and
    ``members`` of its group. A group without members is of a stage that does not run.

    Raises:
        TopicError: the broker cannot be reached, or does not let us ask.
    """
    # Redaction and entities are no stages: who may see the stages' groups need not be able to see theirs.
    groups = {app_id(settings, role): role for role in ROLES if role not in (REDACT, ENTITIES)}
    with administering(settings, client_id="el4ner-ui") as admin:
        committed = {
            group: {tp: place.offset for tp, place in admin.list_group_offsets({group: None})[group].items()}
            for group in groups
        }
        known = {group: offsets for group, offsets in committed.items() if any(at >= 0 for at in offsets.values())}
        places = {tp for offsets in known.values() for tp in offsets}
        ends = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST)) if places else {}
        described = admin.describe_groups(list(known)) if known else {}
    lags = []
    for group, offsets in known.items():
        topics: Counter[str] = Counter()
        for tp, at in offsets.items():
            topics[tp.topic] += max(0, ends[tp].offset - at) if at >= 0 and tp in ends else 0
        lags.append(
            {
                "stage": groups[group],
                "lag": topics.total(),
                "topics": dict(topics),
                "members": len(described.get(group, {}).get("members") or ()),
            }
        )
    return lags
