"""``entities`` and ``entity-decisions`` from outside a worker: what there is now, and deciding more (kafka-python)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final, Literal

from kafka.errors import KafkaError

from el4ner.canonical.decisions import EntityDecision, EntityDecisions
from el4ner.canonical.joins import NameJoins
from el4ner.canonical.names import canonical_name
from el4ner.errors import El4nerError, MessageError
from workers.config import KafkaSettings
from workers.entities.entity_messages import decision_message, read_decision
from workers.kafka.topic_reader import reading, records_between
from workers.kafka.topic_sender import sending
from workers.messages.envelope import parse
from workers.messages.headers import RandomBytes, next_trace
from workers.messages.result_reading import ResultReading
from workers.topics import Topic, topic_name

__all__ = [
    "EntitiesError",
    "KnownEntities",
    "decide",
    "decided_at",
    "decided_joins",
    "decisions_until_now",
    "entities_until_now",
    "joined_names",
    "searched_spellings",
]

_CLIENT: Final = "el4ner-entities-command"
_LARGEST: Final = 1024 * 1024
_LEAST_PREFIX: Final = 4


class EntitiesError(El4nerError):
    """The broker cannot be reached, or there is no such entity, or what was decided cannot be so."""

    code = "entities"


class KnownEntities:
    """What ``entities`` has, by id: the values of its messages."""

    def __init__(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        self._values = values

    def all(self) -> list[Mapping[str, Any]]:
        """Those that are no other one, the most frequent first."""
        own = [value for value in self._values.values() if value["merged_into"] is None]
        return sorted(own, key=lambda value: (-value["mentions"], value["type"], value["name"], value["id"]))

    def find(self, wanted: str) -> Mapping[str, Any]:
        """What an id, or the beginning of one, is about.

        Raises:
            EntitiesError: there is none, or there are several.
        """
        if (value := self._values.get(wanted)) is not None:
            return value
        fitting = [entity for entity in self._values if len(wanted) >= _LEAST_PREFIX and entity.startswith(wanted)]
        if len(fitting) == 1:
            return self._values[fitting[0]]
        if fitting:
            raise EntitiesError(f"{wanted}: {len(fitting)} ids begin so: {', '.join(sorted(fitting)[:5])}")
        raise EntitiesError(f"{wanted}: there is no entity of that id; el4ner entities list shows which there are")

    def entity(self, wanted: str) -> Mapping[str, Any]:
        """As :meth:`find`; of what is another entity, that one."""
        value = self.find(wanted)
        return value if value["merged_into"] is None else self.find(value["merged_into"])

    def merge(self, kept: str, other: str) -> tuple[str, str, str]:
        """Type, name and the name that it goes into, for the entity of ``other`` to be that of ``kept``.

        Raises:
            EntitiesError: they are of two types, or one already.
        """
        target, source = self.entity(kept), self.entity(other)
        if target["type"] != source["type"]:
            raise EntitiesError(
                f"{source['name']!r} is of the type {source['type']} and {target['name']!r} of the type "
                f"{target['type']}: entities of two types are never one"
            )
        if target["id"] == source["id"]:
            raise EntitiesError(f"{other} and {kept} are one entity already: {target['name']}")
        return target["type"], _own_name(source), _own_name(target)

    def split(self, entity: str, alias: str, decisions: Iterable[EntityDecision] = ()) -> tuple[str, str]:
        """Type and name, for one of the names that are joined in an entity (or the beginning of its id) to be an entity
        of its own. ``decisions`` tell of names that were merged into it and that no document of the kept windows has.

        Raises:
            EntitiesError: it is no name that was joined, or the beginning of several ids.
        """
        whole = self.entity(entity)
        name = canonical_name(alias)
        joined = joined_names(whole, EntityDecisions.of(decisions))
        by_id = [each for each in joined if len(alias) >= _LEAST_PREFIX and each.startswith(alias)]
        chosen = [each for each in joined if joined[each] == name] or by_id
        if len(chosen) == 1:
            return whole["type"], joined[chosen[0]]
        if chosen:
            raise EntitiesError(f"{alias}: {len(chosen)} ids begin so: {', '.join(sorted(chosen)[:5])}")
        if name in {canonical_name(spelling) for spelling in whole["aliases"]}:
            raise EntitiesError(
                f"{alias!r} is how documents spell {whole['name']!r} beside its full name: each document says that "
                "itself, and nothing was merged that could be split"
            )
        names = ", ".join(map(repr, joined.values())) or "none"
        raise EntitiesError(f"{alias!r} is no name that was joined in {whole['name']!r}; joined are: {names}")


def joined_names(whole: Mapping[str, Any], decisions: EntityDecisions) -> dict[str, str]:
    """The names that are joined in an entity, by their ids, but for its own: those of documents, and those that
    ``decisions`` lead there and that no document of the kept windows has."""
    here = {each["id"]: each["name"] for each in whole["names"]} | {whole["id"]: _own_name(whole)}
    joined = {**here, **_merged_by_decision(decisions, here)}
    del joined[whole["id"]]
    return joined


def decided_joins(decisions: EntityDecisions) -> NameJoins:
    """Which names are one by what people decided alone."""
    return NameJoins(decisions, lambda _: None, unique=False)


def searched_spellings(value: Mapping[str, Any]) -> str:
    """In what a part of a name is looked for, case-folded: the name and the spellings of an entity, one a line."""
    return "\n".join(dict.fromkeys(each.casefold() for each in (value["name"], *value["aliases"])))


def entities_until_now(settings: KafkaSettings) -> KnownEntities:
    """What ``entities`` has when this is called. All of the topic is read for it.

    Raises:
        EntitiesError: no broker, or no topic.
        RegistryAwayError: a value is framed by a schema registry, which does not say what its schema is.
    """
    with closing(ResultReading(settings, Topic.ENTITIES)) as results:
        return _entities(_records(settings, Topic.ENTITIES), results)


def _entities(records: Iterable[Any], results: ResultReading) -> KnownEntities:
    values: dict[str, Mapping[str, Any]] = {}
    for record in records:
        key = (record.key or b"").decode("utf-8", "replace")
        values.pop(key, None)
        if record.value is not None:
            values[key] = parse(results.json(record.value))
    return KnownEntities(values)


def decisions_until_now(settings: KafkaSettings) -> list[EntityDecision]:
    """What was decided, the first first. A message that is no decision is passed over, as the worker does.

    Raises:
        EntitiesError: no broker, or no topic.
    """
    decisions: dict[str, EntityDecision] = {}
    for record in _records(settings, Topic.ENTITY_DECISIONS):
        try:
            if record.value is not None:
                decision = read_decision(record.key, record.value)
                decisions.setdefault(decision.id, decision)
        except MessageError:
            continue
    return sorted(decisions.values(), key=lambda decision: decision.rank)


def decided_at(decisions: Iterable[EntityDecision], kind: str, name: str, *, now_ms: int) -> int:
    """When a new decision about a name is made: now, but after all those that are known about it, though the clock of
    whoever made them was fast. Else what is decided last would not count."""
    before = [each.at_ms for each in decisions if (each.type, each.name) == (kind, name)]
    return max([now_ms, *(at_ms + 1 for at_ms in before)])


def decide(
    settings: KafkaSettings,
    subject: tuple[str, str],
    into: str | None,
    *,
    by: str,
    before: Iterable[EntityDecision],
    now_ms: int,
    random: RandomBytes,
) -> EntityDecision:
    """Decide about ``subject``, a type and a name: that it is merged ``into`` another name, or (None) split off.
    ``before``: what was decided until now. Returns when the broker has it; the worker carries it out a moment later.

    Raises:
        EntitiesError: no broker, or it did not take it.
    """
    kind, name = subject
    at_ms = decided_at(before, kind, name, now_ms=now_ms)
    action: Literal["merge", "split"] = "split" if into is None else "merge"
    decision = EntityDecision(random(16).hex(), at_ms, action, kind, name, into, by)
    _send(settings, decision, now_ms=now_ms, random=random)
    return decision


def _send(settings: KafkaSettings, decision: EntityDecision, *, now_ms: int, random: RandomBytes) -> None:
    message = decision_message(decision, now_ms=now_ms, trace=next_trace((), random))
    name = topic_name(settings, Topic.ENTITY_DECISIONS)
    with sending(settings, EntitiesError, client_id=_CLIENT, max_request_size=_LARGEST) as producer:
        try:
            future = producer.send(
                name, key=message.key, value=message.value, headers=list(message.headers), partition=0
            )
            future.get(timeout=settings.request_timeout_seconds)
        except KafkaError as error:
            raise EntitiesError(f"the decision was not delivered to {name}: {error}") from error


def _records(settings: KafkaSettings, topic: Topic) -> Iterator[Any]:
    name = topic_name(settings, topic)
    with reading(settings, name, EntitiesError, client_id=_CLIENT) as (consumer, partitions):
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        yield from records_between(settings, consumer, begins, ends, EntitiesError)


def _merged_by_decision(decisions: EntityDecisions, into: Iterable[str]) -> dict[str, str]:
    """Names, by their ids, that decisions in force lead to one of ``into``."""
    ends = set(into)
    merged: dict[str, str] = {}
    # Backwards from the ends: there may be many decisions about other names.
    ahead = list(ends)
    while ahead:
        for decision in decisions.all_into(ahead.pop()):
            entity = decision.entity
            if entity not in ends and entity not in merged and decisions.about(entity) == decision:
                merged[entity] = decision.name
                ahead.append(entity)
    return merged


def _own_name(value: Mapping[str, Any]) -> str:
    for each in value["names"]:
        if each["id"] == value["id"]:
            return str(each["name"])
    return canonical_name(value["name"])
