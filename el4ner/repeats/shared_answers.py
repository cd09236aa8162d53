"""Answers that a fleet shares: what one process has settled of a text or a line template, the others take over.

An :class:`AnswerStore` keeps bytes under keys for all of them (:mod:`workers.shared_cache` has one in Redis). A key is
a hash of what is asked and of everything that decides the answer, so that another pool, model, prompt, setting or
version of the code never finds it. A value holds no text of a sentence: places, types, confidences, names of members.

Shared is what stands: of a template whose types several lines decide, nothing before they agree, and again after a
later check. Whoever takes it over makes later checks of its own. A value that is not one of ours is a miss.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, Protocol

import orjson
from typing_extensions import override

from el4ner.repeats.entries import Carry, Exchange, Item, Kept, Way

__all__ = ["MOST_BYTES", "AnswerStore", "KeptFormat", "SharedAnswers"]

log = logging.getLogger(__name__)

MOST_BYTES: Final = 64 * 1024
"""A larger value is not shared. A sentence of 1,000 characters with 100 candidates takes some 10 kB."""
_VERSION: Final = b"\x01"
"""Counted up when the bytes of a value would be read differently."""
_CHECK_BYTES: Final = 8


class AnswerStore(Protocol):
    """Bytes by stage and key, for all processes of a fleet. It may forget at any time and never raises: a store that is
    away only misses. Called by one thread."""

    def get_many(self, stage: str, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys, None where there is none."""

    def put_many(self, stage: str, values: Mapping[str, bytes]) -> None:
        """Keep the values for a while, if it can."""

    def report(self, stage: str, *, hits: int, misses: int, damaged: int) -> None:
        """What came of the sentences and templates that were looked up; ``damaged``: values that were of no use."""


class KeptFormat(Protocol[Kept]):
    """How what is kept of an answer is written down."""

    def to_json(self, kept: Kept) -> Any:
        """What ``orjson`` can write."""

    def from_json(self, data: Any) -> Kept:
        """
        Raises:
            ValueError, TypeError, KeyError, IndexError, AttributeError: it is nothing that :meth:`to_json` gives.
        """


@dataclass(frozen=True, slots=True)
class _Asked(Generic[Item, Kept]):
    item: Item
    way: Way[Kept]
    key: str


class SharedAnswers(Exchange[Item, Kept]):
    """One stage's answers to one pool's sentences, in a store.

    Args:
        store: of the fleet.
        stage: its name.
        decided_by: a fingerprint of everything but the sentence that decides an answer; asked for once, when it is
            first needed.
        carry: the stage's.
        form: how its answers are written down.
    """

    def __init__(
        self,
        store: AnswerStore,
        stage: str,
        decided_by: Callable[[], str],
        carry: Carry[Item, Any, Kept],
        form: KeptFormat[Kept],
    ) -> None:
        self._store = store
        self._stage = stage
        self._decided_by = decided_by
        self._carry = carry
        self._form = form
        self._has_warned = False

    @override
    def fetch(self, items: Sequence[Item], ways: Sequence[Sequence[Way[Kept]]]) -> None:
        wanted: dict[Hashable, list[_Asked[Item, Kept]]] = {}
        for item, to_item in zip(items, ways, strict=True):
            if not to_item or to_item[-1].key in wanted:
                continue
            # A template that is being checked, or decided anew, has to be asked about.
            if to_item[-1].is_new and all(way.missing > 0 for way in to_item):
                wanted[to_item[-1].key] = [_Asked(item, way, self._key(way)) for way in to_item]
        if not wanted:
            return
        keys = list(dict.fromkeys(asked.key for each in wanted.values() for asked in each))
        stored = dict(zip(keys, self._store.get_many(self._stage, keys), strict=True))
        hits = damaged = 0
        for each in wanted.values():
            for asked in reversed(each):  # the template first, which answers others too
                value = stored[asked.key]
                if value is None:
                    continue
                if self._take_over(asked, value):
                    hits += 1
                    break
                damaged += 1
        if damaged and not self._has_warned:
            self._has_warned = True
            log.warning(
                "%d shared answers of stage %s could not be read and are asked for: something else writes under "
                "el4ner's keys, or the store damages what it keeps",
                damaged,
                self._stage,
                extra={"component": "cache"},
            )
        self._store.report(self._stage, hits=hits, misses=len(wanted) - hits, damaged=damaged)

    @override
    def publish(self, ways: Sequence[Sequence[Way[Kept]]]) -> None:
        values: dict[str, bytes] = {}
        for to_item in ways:
            for way in reversed(to_item):
                if way.entry is None or way.entry.kept is None:
                    continue
                if way.missing <= 0:
                    key = self._key(way)
                    value = _framed(key, [way.entry.answers, self._form.to_json(way.entry.kept)])
                    if len(value) <= MOST_BYTES:
                        values[key] = value
                break  # a text that its template answers is found by that
        if values:
            self._store.put_many(self._stage, values)

    @cached_property
    def _namespace(self) -> str:
        return self._decided_by()

    def _key(self, way: Way[Kept]) -> str:
        # repr tells keys apart: they are texts and numbers in tuples. 160 bits, as nobody compares the texts.
        asked = repr((self._stage, self._namespace, way.key)).encode()
        return hashlib.blake2b(asked, digest_size=20).hexdigest()

    def _take_over(self, asked: _Asked[Item, Kept], value: bytes) -> bool:
        try:
            answers, data = _unframed(asked.key, value)
            kept = self._form.from_json(data)
            answer = self._carry.recall(asked.item, kept, asked.way.view)  # raises if it does not fit the sentence
            if self._carry.by_view and self._carry.keep(answer, asked.way.view) != kept:
                return False  # it fits this sentence by accident, such as by the length of a field
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return False
        if type(answers) is not int or answers < asked.way.lines:
            return False
        asked.way.take_over(kept, answers)
        return True


def _framed(key: str, data: Any) -> bytes:
    """A version, a checksum of key and content, and the content."""
    content = orjson.dumps(data)
    return _VERSION + _checksum(key, content) + content


def _unframed(key: str, value: bytes) -> tuple[Any, Any]:
    """
    Raises:
        ValueError: it was not written so, or not under this key.
    """
    begin = len(_VERSION) + _CHECK_BYTES
    content = value[begin:]
    if len(value) > MOST_BYTES or value[:begin] != _VERSION + _checksum(key, content):
        raise ValueError("damaged, or something else")
    answers, data = orjson.loads(content)
    return answers, data


def _checksum(key: str, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECK_BYTES, key=key.encode()).digest()
