"""The topic ``pool-examples`` for who follows it, without a broker."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from workers.config import KafkaSettings
from workers.teaching.taught_examples import ExampleRecord
from workers.topics import TopicError


class FollowedTopic:
    """What every reading of the topic begins with, and what comes then: records, or what is raised. How often it was
    read. ``away``: what is said where there is no further reading."""

    def __init__(self, *begins: Sequence[ExampleRecord], away: str) -> None:
        self.begins = list(begins)
        self.coming: queue.Queue[list[ExampleRecord] | Exception] = queue.Queue()
        self.readings = 0
        self._away = away

    @contextmanager
    def followed(self, _settings: KafkaSettings) -> Iterator[Any]:
        if not self.begins:
            raise TopicError(self._away)
        self.readings += 1
        yield Followed(self, list(self.begins.pop(0)))


class Followed:
    def __init__(self, topic: FollowedTopic, begin: list[ExampleRecord]) -> None:
        self._topic, self._begin = topic, begin

    @property
    def is_read(self) -> bool:
        return not self._begin

    def poll(self, _milliseconds: int) -> list[ExampleRecord]:
        if self._begin:
            return [self._begin.pop(0)]
        try:
            come = self._topic.coming.get(timeout=0.02)
        except queue.Empty:
            return []
        if isinstance(come, Exception):
            raise come
        return come
