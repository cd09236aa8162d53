"""The topics: their names, how each has to be, and what is wrong with one that is not so. Pure: no Kafka in here.

Every stage answers a document into the *same partition number* that the document came from, so the topics that the
aggregator joins must have equally many partitions. :func:`workers.kafka.topic_admin.check` refuses anything else before
a worker starts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from el4ner.canonical.entity_settings import EntitySettings
from el4ner.errors import ConfigError, El4nerError
from el4ner.redaction.redaction_settings import RedactionSettings
from workers.config import KafkaSettings, StreamSettings
from workers.roles import AGGREGATE, ENTITIES

__all__ = [
    "CANONICAL",
    "JOINED",
    "LETTER_HEADERS_BYTES",
    "MOST_EXAMPLE_BYTES",
    "OPTIONAL",
    "REDACTION",
    "Topic",
    "TopicError",
    "TopicPlan",
    "TopicReport",
    "app_id",
    "changelog_name",
    "entities_changelog_name",
    "entity_topics",
    "find_problems",
    "plan",
    "redaction_topics",
    "topic_name",
    "transactional_id",
    "wanted_topics",
]

LETTER_HEADERS_BYTES: Final = 64 * 1024
"""By how much a dead letter may be larger than its message: its headers say why, when and where from."""
MOST_EXAMPLE_BYTES: Final = 1024 * 1024
"""The largest message of ``pool-examples``. The largest example that is valid has less than half of it."""
TABLE_NAME: Final = "joins"
_COMPACTED: Final[Mapping[str, str]] = {
    # Small segments that are cleaned early: whoever starts reads the whole topic.
    "cleanup.policy": "compact",
    "segment.bytes": str(64 * 1024 * 1024),
    "segment.ms": "600000",
    "min.cleanable.dirty.ratio": "0.1",
}


class Topic(StrEnum):
    """The topics by the names that they have without a prefix."""

    DOCUMENTS = "documents"
    SPAN_CANDIDATES = "span-candidates"
    TYPED_ENTITIES = "typed-entities"
    VALIDATION_VERDICTS = "validation-verdicts"
    TAGGED_DOCUMENTS = "tagged-documents"
    ENTITY_MENTIONS = "entity-mentions"
    DEAD_LETTERS = "dead-letters"
    MEMBER_ANSWERS = "member-answers"
    POOL_EXAMPLES = "pool-examples"
    REDACTED_DOCUMENTS = "redacted-documents"
    REDACTED_ORIGINALS = "redacted-originals"
    ENTITY_OCCURRENCES = "entity-occurrences"
    ENTITY_DECISIONS = "entity-decisions"
    ENTITIES = "entities"
    ENTITY_TRENDS = "entity-trends"


JOINED: Final = (
    Topic.DOCUMENTS,
    Topic.SPAN_CANDIDATES,
    Topic.TYPED_ENTITIES,
    Topic.VALIDATION_VERDICTS,
    Topic.MEMBER_ANSWERS,
    Topic.TAGGED_DOCUMENTS,
    Topic.REDACTED_DOCUMENTS,
    Topic.REDACTED_ORIGINALS,
)
"""What a document keeps its partition number through: with the changelog, these have one partition count."""


REDACTION: Final = (Topic.REDACTED_DOCUMENTS, Topic.REDACTED_ORIGINALS)
"""What is there only where redaction is wanted."""
CANONICAL: Final = (Topic.ENTITY_OCCURRENCES, Topic.ENTITY_DECISIONS, Topic.ENTITIES, Topic.ENTITY_TRENDS)
"""What is there only where canonical entities are wanted."""
OPTIONAL: Final = (*REDACTION, *CANONICAL)
_ONE_PARTITION: Final = (Topic.POOL_EXAMPLES, Topic.ENTITY_OCCURRENCES, Topic.ENTITY_DECISIONS)
"""Of two examples of one key the later one counts: in one partition that is the same for every reader, by whatever
client they were written. And all entities are known in one place."""


class TopicError(El4nerError):
    """The broker cannot be reached, or a topic is missing or not as it has to be; the message says what to do."""

    code = "topics"


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it has to be.

    ``joined``: it takes part in the join by partition number. ``ours``: it holds what this pipeline writes. The topic
    ``documents`` belongs to its producers: only what would break the pipeline is asked of it. ``single``: all of it has
    to be in one partition.
    """

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str]
    joined: bool
    ours: bool = True
    single: bool = False


@dataclass(frozen=True, slots=True)
class TopicReport:
    """A topic as it is, beside its plan. ``exists`` False leaves the rest empty; no ``problems``: it is as planned.

    ``max_message_bytes``: the largest message that it takes; None: the broker did not say.
    """

    plan: TopicPlan
    exists: bool
    partitions: int = 0
    replication: int = 0
    configs: Mapping[str, str] | None = None
    problems: tuple[str, ...] = ()
    max_message_bytes: int | None = None


def topic_name(settings: KafkaSettings, topic: Topic) -> str:
    """The topic's name on the broker."""
    if topic is Topic.DOCUMENTS and settings.documents_topic is not None:
        return settings.documents_topic
    return f"{settings.topic_prefix}{topic.value}"


def redaction_topics(settings: RedactionSettings) -> tuple[Topic, ...]:
    """Those of :data:`REDACTION` that these settings need; none, where they say nothing."""
    if not settings.is_configured:
        return ()
    return REDACTION if settings.reversible else (Topic.REDACTED_DOCUMENTS,)


def entity_topics(settings: EntitySettings) -> tuple[Topic, ...]:
    """Those of :data:`CANONICAL` that these settings need."""
    return CANONICAL if settings.enabled else ()


def wanted_topics(settings: StreamSettings) -> tuple[Topic, ...]:
    """Those of :data:`OPTIONAL` that these settings need."""
    return (*redaction_topics(settings.redaction), *entity_topics(settings.entities))


def app_id(settings: KafkaSettings, stage: str) -> str:
    """The name of a stage's Faust app, which is its consumer group."""
    return f"{settings.topic_prefix}el4ner-{stage}"


def changelog_name(settings: KafkaSettings) -> str:
    """The join's changelog."""
    return f"{app_id(settings, AGGREGATE)}-{TABLE_NAME}-changelog"


def entities_changelog_name(settings: KafkaSettings) -> str:
    """What the entities are rebuilt from."""
    return f"{app_id(settings, ENTITIES)}-state-changelog"


def transactional_id(settings: KafkaSettings, partition: int, role: str = AGGREGATE) -> str:
    """Under this name the one writer of what ``role`` makes of a partition writes it."""
    return f"{app_id(settings, role)}-{partition}"


def plan(settings: KafkaSettings, optional: Collection[Topic] = ()) -> list[TopicPlan]:
    """Every topic of the pipeline, in the order of the flow. ``optional``: those of :data:`OPTIONAL` that are wanted.

    Raises:
        ConfigError: ``kafka.documents_topic`` is a topic that the pipeline writes.
    """
    own = {topic_name(settings, topic) for topic in Topic if topic is not Topic.DOCUMENTS}
    own |= {changelog_name(settings), entities_changelog_name(settings)}
    if settings.documents_topic in own:
        raise ConfigError(
            f"kafka.documents_topic: {settings.documents_topic!r} is what el4ner writes to: name the topic that has "
            "the texts, or give the others a kafka.topic_prefix"
        )
    retention = int(settings.retention_hours * 3_600_000)
    # What acks=all is worth: with three replicas one broker may be away, and two hold what was acknowledged.
    in_sync = {"min.insync.replicas": str(max(1, settings.replication - 1))}
    # A stage message holds the document's text and what was found in it: more than the document, but not without bound.
    large = str(settings.max_message_bytes)
    larger = str(2 * settings.max_message_bytes)
    letters = str(max(2 * settings.max_message_bytes, settings.max_message_bytes + LETTER_HEADERS_BYTES))
    deleted = {"cleanup.policy": "delete", "retention.ms": str(retention)}
    configs: dict[Topic, dict[str, str]] = {
        Topic.DOCUMENTS: {**deleted, "max.message.bytes": large},
        Topic.SPAN_CANDIDATES: {**deleted, "max.message.bytes": larger},
        Topic.TYPED_ENTITIES: {**deleted, "max.message.bytes": larger},
        Topic.VALIDATION_VERDICTS: {**deleted, "max.message.bytes": larger},
        Topic.TAGGED_DOCUMENTS: {**deleted, "max.message.bytes": larger},
        Topic.ENTITY_MENTIONS: {**deleted},
        # The value is the document's as it came, but the headers are longer.
        Topic.DEAD_LETTERS: {**deleted, "retention.ms": str(4 * retention), "max.message.bytes": letters},
        Topic.MEMBER_ANSWERS: {**deleted, "max.message.bytes": larger},
        # Every worker reads all of it before it serves; what was withdrawn need not be read for long.
        Topic.POOL_EXAMPLES: {**_COMPACTED, "max.message.bytes": str(MOST_EXAMPLE_BYTES)},
        Topic.REDACTED_DOCUMENTS: {**deleted, "max.message.bytes": larger},
        # A tagged document, encrypted and in base64. What was deleted is gone after a day at the latest.
        Topic.REDACTED_ORIGINALS: {
            **_COMPACTED,
            "max.compaction.lag.ms": str(24 * 3_600_000),
            "max.message.bytes": str(3 * settings.max_message_bytes),
        },
        # Names and how often each stands in a document, without its text.
        Topic.ENTITY_OCCURRENCES: {**deleted, "max.message.bytes": larger},
        Topic.ENTITY_DECISIONS: {**_COMPACTED},
        Topic.ENTITIES: {**_COMPACTED, "max.message.bytes": larger},
        Topic.ENTITY_TRENDS: {**_COMPACTED, "max.message.bytes": larger},
    }
    plans = [
        TopicPlan(
            name=topic_name(settings, topic),
            partitions=1 if topic in _ONE_PARTITION else settings.partitions,
            replication=settings.replication,
            configs={**configs[topic], **in_sync},
            joined=topic in JOINED,
            ours=topic is not Topic.DOCUMENTS,
            single=topic in (Topic.ENTITY_OCCURRENCES, Topic.ENTITY_DECISIONS),
        )
        for topic in Topic
        if topic not in OPTIONAL or topic in optional
    ]
    plans.append(
        TopicPlan(
            name=changelog_name(settings),
            partitions=settings.partitions,
            replication=settings.replication,
            configs={
                **_COMPACTED,
                **in_sync,
                "max.message.bytes": larger,
            },
            joined=True,
        )
    )
    if Topic.ENTITIES in optional:
        state = {**_COMPACTED, **in_sync, "max.message.bytes": larger}
        name = entities_changelog_name(settings)
        plans.append(TopicPlan(name, 1, settings.replication, state, joined=False, single=True))
    return plans


def find_problems(
    planned: TopicPlan,
    *,
    partitions: int,
    replication: int,
    configs: Mapping[str, str],
    reference: tuple[str, int] | None,
) -> list[str]:
    """What keeps a topic that exists from being used; pure.

    ``reference`` is the documents topic's name and partition count: a joined topic must match it. The plan's own count
    is only what topics are created with: a documents topic that was there before with 12 partitions is fine, if all
    have 12. Longer retention and larger messages than planned are fine too.
    """
    problems = []
    if planned.single and partitions != 1:
        problems.append(f"topic {planned.name!r} has {partitions} partitions, but needs exactly one")
    if planned.joined and reference is not None and partitions != reference[1]:
        problems.append(
            f"topics {reference[0]!r} and {planned.name!r} are joined by partition and must have equally many: "
            f"{reference[0]!r} has {reference[1]}, {planned.name!r} has {partitions}"
        )
    if not planned.ours:
        limit, allowed = planned.configs["max.message.bytes"], configs.get("max.message.bytes")
        if allowed is not None and int(allowed) > int(limit):
            problems.append(
                f"topic {planned.name!r} lets messages of {allowed} bytes in, kafka.max_message_bytes is {limit}: "
                "a larger one could not be dead-lettered; raise the setting"
            )
        return problems
    if replication < planned.replication:
        problems.append(
            f"topic {planned.name!r} has replication {replication}, kafka.replication is {planned.replication}"
        )
    policy = {item.strip() for item in configs.get("cleanup.policy", "delete").split(",")}
    wanted = planned.configs.get("cleanup.policy")
    if wanted is not None and policy != {wanted}:
        # "compact,delete" would forget documents that are still open; "compact" on a stage topic would merge revisions.
        problems.append(f"topic {planned.name!r} has cleanup.policy={','.join(sorted(policy))}, but needs {wanted}")
    for key, unlimited in (("retention.ms", "-1"), ("max.message.bytes", None), ("min.insync.replicas", None)):
        least, actual = planned.configs.get(key), configs.get(key)
        if least is not None and actual is not None and actual != unlimited and int(actual) < int(least):
            problems.append(f"topic {planned.name!r} has {key}={actual}, but needs at least {least}")
    return problems
