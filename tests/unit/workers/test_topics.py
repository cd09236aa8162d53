"""What the topics have to be, and what is said about those that are not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from el4ner.canonical.entity_settings import EntitySettings
from el4ner.errors import ConfigError
from el4ner.redaction.redaction_settings import RedactionSettings
from workers.config import KafkaSettings
from workers.topics import (
    CANONICAL,
    JOINED,
    OPTIONAL,
    REDACTION,
    Topic,
    TopicPlan,
    changelog_name,
    entities_changelog_name,
    entity_topics,
    find_problems,
    plan,
    redaction_topics,
    topic_name,
    transactional_id,
)

SETTINGS = KafkaSettings(topic_prefix="p.", partitions=6, replication=2)
PLANS = {planned.name: planned for planned in plan(SETTINGS, OPTIONAL)}
ONE_PARTITION = {"p.pool-examples", "p.entity-occurrences", "p.entity-decisions", "p.el4ner-entities-state-changelog"}


def problems(
    planned: TopicPlan,
    *,
    partitions: int | None = None,
    replication: int = 2,
    configs: Mapping[str, str] | None = None,
    reference: tuple[str, int] | None = ("p.documents", 6),
) -> list[str]:
    return find_problems(
        planned,
        partitions=planned.partitions if partitions is None else partitions,
        replication=replication,
        configs={**planned.configs, **(configs or {})},
        reference=reference,
    )


def test_every_topic_and_the_changelogs_are_planned_with_prefix_and_partitions() -> None:
    assert set(PLANS) == {f"p.{topic.value}" for topic in Topic} | {
        "p.el4ner-aggregate-joins-changelog",
        "p.el4ner-entities-state-changelog",
    }
    assert changelog_name(SETTINGS) == "p.el4ner-aggregate-joins-changelog"
    assert {planned.partitions for name, planned in PLANS.items() if name not in ONE_PARTITION} == {6}
    assert {planned.replication for planned in PLANS.values()} == {2}


def test_topics_of_redaction_and_entities_are_there_where_they_are_wanted() -> None:
    assert redaction_topics(RedactionSettings()) == ()
    assert redaction_topics(RedactionSettings(action="mask")) == (Topic.REDACTED_DOCUMENTS,)
    assert redaction_topics(RedactionSettings(reversible=True)) == REDACTION
    assert entity_topics(EntitySettings()) == ()
    assert entity_topics(EntitySettings(enabled=True)) == CANONICAL
    others = {entities_changelog_name(SETTINGS), *(f"p.{topic.value}" for topic in OPTIONAL)}
    assert {planned.name for planned in plan(SETTINGS)} == PLANS.keys() - others


def test_documents_may_come_from_a_topic_of_somebody_elses() -> None:
    settings = SETTINGS.model_copy(update={"documents_topic": "shop.public.articles"})
    assert topic_name(settings, Topic.DOCUMENTS) == "shop.public.articles"
    assert topic_name(settings, Topic.TAGGED_DOCUMENTS) == "p.tagged-documents"
    assert [planned.name for planned in plan(settings) if not planned.ours] == ["shop.public.articles"]


@pytest.mark.parametrize("name", ["p.tagged-documents", "p.el4ner-aggregate-joins-changelog"])
def test_what_the_pipeline_writes_it_does_not_read_as_documents(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"documents_topic: '{name}' is what el4ner writes to"):
        plan(SETTINGS.model_copy(update={"documents_topic": name}))


def test_the_joined_topics_are_those_that_keep_a_documents_partition() -> None:
    joined = {planned.name for planned in PLANS.values() if planned.joined}
    assert joined == {topic_name(SETTINGS, topic) for topic in JOINED} | {changelog_name(SETTINGS)}


def test_examples_have_one_order_for_every_reader_and_entities_one_owner() -> None:
    assert {name for name, planned in PLANS.items() if planned.partitions == 1} == ONE_PARTITION
    (problem,) = problems(PLANS["p.entity-occurrences"], partitions=4)
    assert "'p.entity-occurrences' has 4 partitions, but needs exactly one" in problem


def test_changelogs_examples_and_entities_are_compacted_and_dead_letters_take_what_documents_take() -> None:
    compacted = {planned.name for planned in PLANS.values() if planned.configs["cleanup.policy"] == "compact"}
    assert compacted == {
        *(changelog_name(SETTINGS), entities_changelog_name(SETTINGS), "p.pool-examples", "p.redacted-originals"),
        *("p.entities", "p.entity-trends", "p.entity-decisions"),
    }
    letters, documents = PLANS["p.dead-letters"].configs, PLANS["p.documents"].configs
    assert int(letters["max.message.bytes"]) > int(documents["max.message.bytes"]) >= 8 * 1024 * 1024
    assert int(letters["retention.ms"]) > int(documents["retention.ms"])


@pytest.mark.parametrize("name", PLANS)
def test_a_topic_as_planned_has_no_problems(name: str) -> None:
    assert problems(PLANS[name]) == []


@pytest.mark.parametrize("name", [name for name, planned in PLANS.items() if planned.joined and planned.ours])
def test_a_joined_topic_with_other_partitions_is_refused_by_both_names_and_counts(name: str) -> None:
    (problem,) = problems(PLANS[name], partitions=4)
    for word in ("'p.documents'", "has 6", repr(name), "has 4"):
        assert word in problem


def test_what_matters_is_that_the_joined_topics_agree_not_the_setting() -> None:
    assert problems(PLANS["p.typed-entities"], partitions=12, reference=("p.documents", 12)) == []
    assert problems(PLANS["p.documents"], partitions=12, reference=("p.documents", 12)) == []
    assert problems(PLANS["p.dead-letters"], partitions=1) == []


@pytest.mark.parametrize(
    ("name", "configs", "word"),
    [
        ("p.typed-entities", {"cleanup.policy": "compact"}, "cleanup.policy=compact"),
        ("p.el4ner-aggregate-joins-changelog", {"cleanup.policy": "delete"}, "cleanup.policy=delete"),
        ("p.el4ner-aggregate-joins-changelog", {"cleanup.policy": "compact,delete"}, "compact,delete"),
        ("p.pool-examples", {"cleanup.policy": "compact,delete"}, "compact,delete"),
        ("p.tagged-documents", {"retention.ms": "1000"}, "retention.ms=1000"),
        ("p.dead-letters", {"max.message.bytes": "1048588"}, "max.message.bytes=1048588"),
        ("p.documents", {"max.message.bytes": "100000000"}, "100000000"),
    ],
)
def test_settings_that_would_break_the_pipeline_are_named(name: str, configs: dict[str, str], word: str) -> None:
    (problem,) = problems(PLANS[name], configs=configs)
    assert repr(name) in problem
    assert word in problem


def test_more_is_fine() -> None:
    assert problems(PLANS["p.tagged-documents"], replication=3, configs={"retention.ms": "-1"}) == []
    assert problems(PLANS["p.documents"], replication=1, configs={"max.message.bytes": "1048588"}) == []
    (problem,) = problems(PLANS["p.tagged-documents"], replication=1)
    assert "replication 1" in problem


def test_every_partition_has_a_writer_of_its_own() -> None:
    ids = [transactional_id(SETTINGS, partition) for partition in range(6)]
    assert ids[3] == "p.el4ner-aggregate-3"
    assert len(set(ids)) == 6
