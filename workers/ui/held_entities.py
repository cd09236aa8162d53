"""The entities that the page holds: the latest message of each, packed, with what they are found and sorted by.

No Kafka in here. Not to be used by two threads at a time.
"""

from __future__ import annotations

import heapq
import sys
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal

from typing_extensions import override

from el4ner.errors import MessageError
from el4ner.serialize import dumps
from workers.entities.entity_topic import searched_spellings
from workers.messages.envelope import decode, parse
from workers.topics import Topic
from workers.ui.shown_documents import shown_string

__all__ = ["EntityOrder", "EntityWish", "HeldEntities", "ListedEntities"]

EntityOrder = Literal["mentions", "last-seen"]

_ID_BYTES: Final = 16
_FAST: Final = 1
"""zlib's level: a third of the size, for some 15 µs."""


@dataclass(frozen=True, slots=True)
class EntityWish:
    """Which entities are listed: with a spelling that has ``like``, of a type (as it is shown; empty: of any), without
    the one whose id is ``but``; in which order, and from which place on."""

    like: str = ""
    type: str = ""
    order: EntityOrder = "mentions"
    but: str = ""
    start: int = 0
    most: int = 50


@dataclass(frozen=True, slots=True)
class ListedEntities:
    """A page of them, of ``matched`` in all."""

    values: Sequence[Mapping[str, Any]]
    matched: int


@dataclass(frozen=True, slots=True)
class _HeldEntity:
    """``is_own``: it is no other entity. ``spellings`` as they are searched. ``packed``: its message."""

    type: str
    is_own: bool
    spellings: str
    mentions: int
    last_seen: str
    packed: bytes


class HeldEntities(Mapping[str, Mapping[str, Any]]):
    """Messages of ``entities`` by their ids, at most ``most`` of them: of more, those that came least lately are
    forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[bytes, _HeldEntity] = OrderedDict()
        self._types: Counter[str] = Counter()
        self.has_forgotten = False
        self.unreadable = 0

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """A message that came; a null: there is nothing to say about it any more."""
        try:
            entity = bytes.fromhex((key or b"").decode("ascii"))
            held = None if value is None else _held(decode(Topic.ENTITIES, value), entity)
        except (MessageError, ValueError):
            self.unreadable += 1
            return
        self._drop(self._held.pop(entity, None))
        if held is None:
            return
        self._held[entity] = held
        self._types[held.type] += held.is_own
        if len(self._held) > self._most:
            self._drop(self._held.popitem(last=False)[1])
            self.has_forgotten = True

    @property
    def types(self) -> list[str]:
        """Types of entities, as they are shown, the most frequent first."""
        return [kind for kind, count in self._types.most_common() if count > 0]

    @property
    def entities(self) -> int:
        """How many there are, without names that are other entities."""
        return self._types.total()

    def listed(self, wish: EntityWish) -> ListedEntities:
        """Those that are wished for."""
        # Lists of what is held, and no tuples: a hundred thousand new ones would cost a quarter of a second.
        own = [held for held in self._held.values() if held.is_own]
        if wish.type:
            own = [held for held in own if held.type == wish.type]
        if like := wish.like.casefold():
            own = [held for held in own if like in held.spellings]
        if wish.but in self:
            but = self._held[_key(wish.but)]
            own = [held for held in own if held is not but]
        rank = attrgetter("mentions" if wish.order == "mentions" else "last_seen")
        first = _first(own, wish.start + wish.most, rank)[wish.start :]
        return ListedEntities([_unpacked(held) for held in first], len(own))

    @override
    def __getitem__(self, entity: str) -> Mapping[str, Any]:
        return _unpacked(self._held[_key(entity)])

    @override
    def __iter__(self) -> Iterator[str]:
        return (entity.hex() for entity in self._held)

    @override
    def __len__(self) -> int:
        return len(self._held)

    def _drop(self, held: _HeldEntity | None) -> None:
        if held is not None and held.is_own:
            self._types[held.type] -= 1
            if self._types[held.type] == 0:
                del self._types[held.type]


def _first(own: Sequence[_HeldEntity], most: int, rank: Callable[[_HeldEntity], Any]) -> list[_HeldEntity]:
    """Those of the highest rank, the highest first, and equal ones by their spellings."""
    least = heapq.nlargest(most, map(rank, own))[-1:]
    chosen = [held for held in own if rank(held) >= least[0]] if least else []
    chosen.sort(key=attrgetter("spellings"))
    return sorted(chosen, key=rank, reverse=True)[:most]


def _key(entity: str) -> bytes:
    """
    Raises:
        KeyError: nothing that is held has such a key.
    """
    try:
        key = bytes.fromhex(entity)
    except ValueError:
        raise KeyError(entity) from None
    if key.hex() != entity:  # white space, upper case
        raise KeyError(entity)
    return key


def _held(value: Mapping[str, Any], entity: bytes) -> _HeldEntity:
    """
    Raises:
        ValueError: the key is no id, or another one.
    """
    if len(entity) != _ID_BYTES or value["id"] != entity.hex():
        raise ValueError
    is_own = value["merged_into"] is None
    return _HeldEntity(
        sys.intern(shown_string(value["type"])),
        is_own,
        searched_spellings(value) if is_own else "",
        value["mentions"] if is_own else 0,
        value["last_seen"] if is_own else "",
        zlib.compress(dumps(value), _FAST),
    )


def _unpacked(held: _HeldEntity) -> Mapping[str, Any]:
    value: Mapping[str, Any] = parse(zlib.decompress(held.packed))
    return value
