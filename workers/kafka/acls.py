"""Who may do what on a broker with an authorizer: the least that each part of the pipeline needs.

One place for it: ``el4ner topics acls`` prints these, docs/security.md shows them, the tests set nothing else. What
Kafka implies is left out (``Read`` and ``Write`` imply ``Describe``). Nobody needs a right on the cluster: since Kafka
2.8 ``Write`` on its topic is enough for a producer to be idempotent.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from kafka.errors import GroupAuthorizationFailedError, KafkaError

from el4ner.errors import ConfigError
from workers.config import KafkaSettings
from workers.kafka.topic_admin import administering
from workers.topics import (
    CANONICAL,
    OPTIONAL,
    REDACTION,
    Topic,
    TopicError,
    app_id,
    changelog_name,
    entities_changelog_name,
    plan,
    topic_name,
)

__all__ = ["Acl", "Resource", "Role", "bindings", "check_rights", "kafka_acls_commands"]


class Role(StrEnum):
    """Whose rights: each is meant to be a user of its own."""

    ADMIN = "admin"
    PRODUCER = "producer"
    EXTRACT = "extract"
    CLASSIFY = "classify"
    VALIDATE = "validate"
    COMBINE = "combine"
    AGGREGATE = "aggregate"
    PIPELINE = "pipeline"
    READER = "reader"
    DLQ_OPERATOR = "dlq-operator"
    TEACHER = "teacher"
    REDACT = "redact"
    REDACTED_READER = "redacted-reader"
    REVEALER = "revealer"
    ENTITIES = "entities"
    ENTITY_READER = "entity-reader"
    ENTITY_EDITOR = "entity-editor"


class Resource(StrEnum):
    """What a right is on, as ``kafka-acls`` calls it."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional-id"


@dataclass(frozen=True, slots=True)
class Acl:
    """``principal`` may do ``operations`` (Kafka's names) on ``name``; ``prefixed``: on all that begin with it."""

    role: Role
    principal: str
    resource: Resource
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False

    def to_json(self) -> dict[str, Any]:
        """A line of ``el4ner topics acls --format json``."""
        return {
            "role": self.role.value,
            "principal": self.principal,
            "resource": self.resource.value,
            "name": self.name,
            "pattern": "prefixed" if self.prefixed else "literal",
            "operations": list(self.operations),
        }


_READS: Final[Mapping[Role, Sequence[Topic]]] = {
    Role.EXTRACT: (Topic.DOCUMENTS, Topic.POOL_EXAMPLES),
    Role.CLASSIFY: (Topic.SPAN_CANDIDATES, Topic.POOL_EXAMPLES),
    Role.VALIDATE: (Topic.TYPED_ENTITIES, Topic.POOL_EXAMPLES),
    Role.COMBINE: (Topic.MEMBER_ANSWERS,),
    Role.AGGREGATE: (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS),
    Role.PIPELINE: (Topic.DOCUMENTS, Topic.POOL_EXAMPLES),
    Role.READER: (Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS),
    Role.DLQ_OPERATOR: (Topic.DEAD_LETTERS,),
    # Whoever teaches sees what was taught.
    Role.TEACHER: (Topic.POOL_EXAMPLES,),
    Role.REDACT: (Topic.TAGGED_DOCUMENTS,),
    # Who may see redacted texts may see no others, and the originals only who is to reveal them.
    Role.REDACTED_READER: (Topic.REDACTED_DOCUMENTS,),
    Role.REVEALER: (Topic.REDACTED_ORIGINALS,),
    Role.ENTITIES: (Topic.TAGGED_DOCUMENTS, Topic.ENTITY_OCCURRENCES, Topic.ENTITY_DECISIONS),
    Role.ENTITY_READER: (Topic.ENTITIES, Topic.ENTITY_TRENDS),
    # Whoever merges and splits sees what there is, and what was decided.
    Role.ENTITY_EDITOR: (Topic.ENTITIES, Topic.ENTITY_DECISIONS),
}

_WRITES: Final[Mapping[Role, Sequence[Topic]]] = {
    Role.PRODUCER: (Topic.DOCUMENTS,),
    Role.EXTRACT: (Topic.SPAN_CANDIDATES, Topic.MEMBER_ANSWERS, Topic.DEAD_LETTERS),
    Role.CLASSIFY: (Topic.TYPED_ENTITIES, Topic.MEMBER_ANSWERS, Topic.DEAD_LETTERS),
    Role.VALIDATE: (Topic.VALIDATION_VERDICTS, Topic.DEAD_LETTERS),
    Role.COMBINE: (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.DEAD_LETTERS),
    Role.AGGREGATE: (Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS, Topic.DEAD_LETTERS),
    # The stages' topics for worker.publish_stages.
    Role.PIPELINE: (
        Topic.SPAN_CANDIDATES,
        Topic.TYPED_ENTITIES,
        Topic.VALIDATION_VERDICTS,
        Topic.TAGGED_DOCUMENTS,
        Topic.ENTITY_MENTIONS,
        Topic.DEAD_LETTERS,
    ),
    # A letter goes back to where it came from: to whatever a stage reads.
    Role.DLQ_OPERATOR: (
        Topic.DOCUMENTS,
        Topic.SPAN_CANDIDATES,
        Topic.TYPED_ENTITIES,
        Topic.VALIDATION_VERDICTS,
        Topic.MEMBER_ANSWERS,
    ),
    Role.TEACHER: (Topic.POOL_EXAMPLES,),
    # The originals where redaction.reversible says so.
    Role.REDACT: (Topic.REDACTED_DOCUMENTS, Topic.REDACTED_ORIGINALS, Topic.DEAD_LETTERS),
    Role.ENTITIES: (Topic.ENTITY_OCCURRENCES, Topic.ENTITIES, Topic.ENTITY_TRENDS, Topic.DEAD_LETTERS),
    Role.ENTITY_EDITOR: (Topic.ENTITY_DECISIONS,),
}

_STAGES: Final = (
    Role.EXTRACT,
    Role.CLASSIFY,
    Role.VALIDATE,
    Role.COMBINE,
    Role.AGGREGATE,
    Role.PIPELINE,
    Role.REDACT,
    Role.ENTITIES,
)
_OWNERS: Final = (Role.AGGREGATE, Role.PIPELINE)
"""Who writes outcomes: under the transactional ids of the partitions, with the join's changelog."""

_SEE_REDACTION: Final = (Role.ADMIN, Role.REDACT, Role.REDACTED_READER, Role.REVEALER)
_SEE_ENTITIES: Final = (Role.ADMIN, Role.ENTITIES, Role.ENTITY_READER, Role.ENTITY_EDITOR)
_ORDER: Final = ("Create", "Read", "Write", "Describe", "DescribeConfigs")


def bindings(
    settings: KafkaSettings,
    *,
    principals: Mapping[Role, str] | None = None,
    reader_group: str | None = None,
    roles: Collection[Role] = tuple(Role),
) -> list[Acl]:
    """The rights of ``roles`` on the pipeline of ``settings``, in the order of :class:`Role`.

    ``principals`` names users as Kafka does (``User:NAME``); others are ``User:<prefix>el4ner-<role>``. One name may be
    that of several roles. ``reader_group``: the consumer group of those who read the results, if they have one.

    Raises:
        ConfigError: a principal is not of the form ``User:NAME``.
    """
    names = {role: f"User:{settings.topic_prefix}el4ner-{role.value}" for role in Role} | dict(principals or {})
    for role, name in names.items():
        kind, _, who = name.partition(":")
        if kind != "User" or not who:
            raise ConfigError(f"principal of {role.value}: expected User:NAME, not {name!r}")
    acls: list[Acl] = []
    for role in Role:
        if role in roles:
            acls += [
                Acl(role, names[role], Resource.TOPIC, name, operations)
                for name, operations in _on_topics(settings, role).items()
            ]
            acls += _on_others(settings, role, names[role], reader_group)
    return acls


def kafka_acls_commands(acls: Iterable[Acl], bootstrap_servers: str) -> list[str]:
    """The commands of Kafka's own tool that set them, one for all resources with the same rights."""
    together: dict[tuple[Any, ...], list[str]] = {}
    for acl in acls:
        together.setdefault((acl.principal, acl.resource, acl.operations, acl.prefixed), []).append(acl.name)
    lines = []
    for (principal, resource, operations, prefixed), names in together.items():
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--command-config", "admin.properties"]
        words += ["--add", "--allow-principal", principal]
        for operation in operations:
            words += ["--operation", operation]
        for name in names:
            words += [f"--{resource.value}", name]
        words += ["--resource-pattern-type", "prefixed"] if prefixed else []
        lines.append(shlex.join(words))
    return lines


def check_rights(settings: KafkaSettings, stages: Collection[str], optional: Collection[Topic] = OPTIONAL) -> None:
    """Refuse to go on if our user lacks rights that these stages need. A broker without an authorizer grants all.

    Called before a worker starts: Faust waits for ever, and silently, for a group that it may not join. The topics have
    to be there (:func:`workers.kafka.topic_admin.check`). ``optional``: those of the topics not everybody
    has that are there. Rights on transactional ids show when the first one is used.

    Raises:
        TopicError: names every right that is missing.
    """
    unused = {topic_name(settings, topic) for topic in OPTIONAL if topic not in optional}
    wanted = [
        acl
        for role in _STAGES
        if role.value in stages
        for acl in bindings(settings, roles=[role])
        if acl.name not in unused
    ]
    missing = []
    with administering(settings, client_id="el4ner-rights") as admin:
        names = sorted({acl.name for acl in wanted if acl.resource is Resource.TOPIC})
        granted = {topic["name"]: topic.get("authorized_operations") for topic in admin.describe_topics(names)}
        for acl in wanted:
            if acl.resource is Resource.TOPIC and granted.get(acl.name) is not None:
                may = {operation.replace("_", "").lower() for operation in granted[acl.name]}
                missing += [(acl, operation) for operation in acl.operations if operation.lower() not in may]
            elif acl.resource is Resource.GROUP and not acl.prefixed and not _may_use_group(admin, acl.name):
                missing.append((acl, "Read"))
    if missing:
        who = "the user of this worker" if settings.sasl_username is None else f"user {settings.sasl_username!r}"
        rights = "\n".join(
            f"{acl.role.value} needs {right} on {acl.resource.value} {acl.name!r}" for acl, right in missing
        )
        raise TopicError(f"{who} lacks rights on the broker:\n{rights}\nprint what sets them with: el4ner topics acls")


def _may_use_group(admin: Any, group: str) -> bool:
    try:
        admin.list_group_offsets({group: None})
    except GroupAuthorizationFailedError:
        return False
    except KafkaError as error:
        # The coordinator of the group may still be on its way; who may not ask is told that first.
        if not error.retriable:
            raise
    return True


def _on_topics(settings: KafkaSettings, role: Role) -> dict[str, tuple[str, ...]]:
    operations: dict[str, set[str]] = {}

    def may(operation: str, names: Iterable[str]) -> None:
        for name in names:
            operations.setdefault(name, set()).add(operation)

    # Who does not redact need not see what is redacted, nor that anything is. So with entities.
    optional = (
        *(REDACTION if role in _SEE_REDACTION else ()),
        *(CANONICAL if role in _SEE_ENTITIES else ()),
    )
    everything = [planned.name for planned in plan(settings, optional)]
    may("Read", (topic_name(settings, topic) for topic in _READS.get(role, ())))
    may("Write", (topic_name(settings, topic) for topic in _WRITES.get(role, ())))
    if role in _OWNERS:
        may("Read", [changelog_name(settings)])
        may("Write", [changelog_name(settings)])
    if role is Role.ENTITIES:
        may("Read", [entities_changelog_name(settings)])
        may("Write", [entities_changelog_name(settings)])
    if role is Role.ADMIN:
        may("Create", everything)
    if role in _STAGES or role is Role.ADMIN:
        # A worker looks at every topic before it starts, as `el4ner topics describe` does.
        may("DescribeConfigs", everything)
        may("Describe", [name for name in everything if not operations[name] & {"Read", "Write"}])
    return {
        name: tuple(sorted(operations[name], key=_ORDER.index)) for name in sorted(operations, key=everything.index)
    }


def _on_others(settings: KafkaSettings, role: Role, principal: str, reader_group: str | None) -> list[Acl]:
    acls = []
    if role in _STAGES:
        # Both topologies read documents in one group.
        group = Role.EXTRACT if role is Role.PIPELINE else role
        acls.append(Acl(role, principal, Resource.GROUP, app_id(settings, group.value), ("Read",)))
    if role in (Role.EXTRACT, Role.CLASSIFY):
        # <app id>-<members>, where members run apart.
        name = f"{app_id(settings, role.value)}-"
        acls.append(Acl(role, principal, Resource.GROUP, name, ("Read",), prefixed=True))
    if role in _OWNERS:
        # One for each partition: <app id>-<number>.
        name = f"{app_id(settings, Role.AGGREGATE.value)}-"
        acls.append(Acl(role, principal, Resource.TRANSACTIONAL_ID, name, ("Write", "Describe"), prefixed=True))
    if role in (Role.REDACT, Role.ENTITIES):
        name = f"{app_id(settings, role.value)}-"
        acls.append(Acl(role, principal, Resource.TRANSACTIONAL_ID, name, ("Write", "Describe"), prefixed=True))
    if role in (Role.READER, Role.REDACTED_READER, Role.ENTITY_READER) and reader_group is not None:
        acls.append(Acl(role, principal, Resource.GROUP, reader_group, ("Read",)))
    return acls
