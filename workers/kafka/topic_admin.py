"""The topics on the broker: creating them, describing them, and checking them before a worker starts (kafka-python)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.errors import KafkaError, TopicAlreadyExistsError

from workers.config import KafkaSettings, StreamSettings
from workers.kafka import broker
from workers.roles import ENTITIES, REDACT
from workers.topics import (
    CANONICAL,
    REDACTION,
    Topic,
    TopicError,
    TopicReport,
    find_problems,
    plan,
    topic_name,
    wanted_topics,
)

__all__ = ["administering", "check", "create", "describe"]

_KNOWN_SECONDS: Final = 10.0


@contextmanager
def administering(settings: KafkaSettings, *, client_id: str) -> Iterator[Any]:
    """An admin client.

    Raises:
        TopicError: no broker, or what the block met of Kafka's errors.
    """
    admin = broker.connect(settings, KafkaAdminClient, TopicError, client_id=client_id)
    try:
        yield admin
    except KafkaError as error:
        raise TopicError(f"the broker at {settings.bootstrap_servers} refused: {error}") from error
    finally:
        admin.close()


def create(settings: StreamSettings) -> list[TopicReport]:
    """Create the topics that do not exist; touch none that does. Returns :func:`describe` of all of them.

    Those of redaction are made where ``[redaction]`` says anything, those of entities where ``entities.enabled`` does.

    Where the topic with the documents was there before, those that are joined with it get as many partitions.

    Raises:
        TopicError: the broker cannot be reached or refuses.
    """
    with administering(settings.kafka, client_id="el4ner-topics") as admin:
        existing = set(admin.list_topics())
        documents = topic_name(settings.kafka, Topic.DOCUMENTS)
        there = admin.describe_topics([documents])[0]["partitions"] if documents in existing else ()
        missing = {
            planned.name: {
                "num_partitions": len(there) or planned.partitions if planned.joined else planned.partitions,
                "replication_factor": planned.replication,
                "configs": dict(planned.configs),
            }
            for planned in plan(settings.kafka, wanted_topics(settings))
            if planned.name not in existing
        }
        for name, options in missing.items():
            try:
                admin.create_topics({name: options}, timeout_ms=30_000, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                # Somebody else was first; whether theirs will do is what describe says.
                continue
        end = time.monotonic() + _KNOWN_SECONDS
        while True:
            reports = _describe(admin, settings.kafka, wanted_topics(settings))
            if all(report.exists for report in reports) or time.monotonic() > end:
                return reports
            # Of several brokers not every one has heard of them yet.
            time.sleep(0.1)


def describe(settings: StreamSettings) -> list[TopicReport]:
    """Every topic as it is on the broker, with what is wrong with it.

    Raises:
        TopicError: the broker cannot be reached.
    """
    with administering(settings.kafka, client_id="el4ner-topics") as admin:
        return _describe(admin, settings.kafka, wanted_topics(settings))


def check(settings: StreamSettings, stages: Collection[str] = ()) -> list[TopicReport]:
    """Refuse to go on unless every topic is there and the joined ones fit together. Returns what they are.

    ``stages``: what is to run. The topics of redaction are looked at only for redaction, and the originals' also where
    it is not needed any more but there; those of entities only for entities.

    Raises:
        TopicError: names every topic that is missing or wrong, and what is wrong with it.
    """
    with administering(settings.kafka, client_id="el4ner-topics") as admin:
        optional = (*(REDACTION if REDACT in stages else ()), *(CANONICAL if ENTITIES in stages else ()))
        reports = _describe(admin, settings.kafka, optional)
    if not settings.redaction.reversible:
        originals = topic_name(settings.kafka, Topic.REDACTED_ORIGINALS)
        reports = [report for report in reports if report.exists or report.plan.name != originals]
    problems = [problem for report in reports for problem in report.problems]
    if problems:
        missing = any(not report.exists for report in reports)
        remedy = "\ncreate the topics with: el4ner topics create" if missing else ""
        if missing and ENTITIES in stages and not settings.entities.enabled:
            remedy += " (it makes those of entities where entities.enabled = true)"
        raise TopicError("\n".join(problems) + remedy)
    return reports


def _describe(admin: Any, settings: KafkaSettings, optional: Collection[Topic]) -> list[TopicReport]:
    plans = plan(settings, optional)
    names = [planned.name for planned in plans]
    existing = set(admin.list_topics())
    present = [name for name in names if name in existing]
    described = {topic["name"]: topic for topic in admin.describe_topics(present)} if present else {}
    configs = _configs(admin, present)
    counts = {name: len(topic["partitions"]) for name, topic in described.items()}
    documents = topic_name(settings, Topic.DOCUMENTS)
    reference = (documents, counts[documents]) if documents in counts else None
    reports = []
    for planned in plans:
        name = planned.name
        # A topic that was made a moment ago may be known to a broker by its name alone.
        if name not in described or not described[name]["partitions"]:
            reports.append(TopicReport(plan=planned, exists=False, problems=(f"topic {name!r} does not exist",)))
            continue
        replication = min(len(partition["replica_nodes"]) for partition in described[name]["partitions"])
        problems = find_problems(
            planned,
            partitions=counts[name],
            replication=replication,
            configs=configs[name],
            reference=reference,
        )
        reports.append(
            TopicReport(
                plan=planned,
                exists=True,
                partitions=counts[name],
                replication=replication,
                configs={key: configs[name][key] for key in planned.configs if key in configs[name]},
                problems=tuple(problems),
                max_message_bytes=int(configs[name]["max.message.bytes"])
                if "max.message.bytes" in configs[name]
                else None,
            )
        )
    return reports


def _configs(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    described = admin.describe_configs([ConfigResource("topic", name) for name in names], config_filter="all")
    return {
        name: {key: str(entry["value"]) for key, entry in entries.items()}
        for name, entries in described["topic"].items()
    }
