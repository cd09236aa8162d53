"""A store of answers in memory, which pipelines of one test share as a fleet shares Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class DictStore:
    """A :class:`el4ner.repeats.AnswerStore`. ``away``: it only misses, and keeps nothing."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], bytes] = {}
        self.away = False
        self.hits: dict[str, int] = {}
        self.misses: dict[str, int] = {}
        self.damaged: dict[str, int] = {}

    def get_many(self, stage: str, keys: Sequence[str]) -> list[bytes | None]:
        return [None if self.away else self.values.get((stage, key)) for key in keys]

    def put_many(self, stage: str, values: Mapping[str, bytes]) -> None:
        if not self.away:
            self.values.update(((stage, key), value) for key, value in values.items())

    def report(self, stage: str, *, hits: int, misses: int, damaged: int) -> None:
        for counts, count in ((self.hits, hits), (self.misses, misses), (self.damaged, damaged)):
            counts[stage] = counts.get(stage, 0) + count
