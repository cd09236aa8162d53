"""The least rights: what each part may do, in the code, in the docs and on the command line."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterable

import pytest
from typer.testing import CliRunner

from el4ner.errors import ConfigError
from tests.support.paths import ROOT
from workers.cli.app import app
from workers.config import KafkaSettings
from workers.kafka.acls import Acl, Resource, Role, bindings, kafka_acls_commands
from workers.topics import OPTIONAL, Topic, changelog_name, entities_changelog_name, plan

STAGES = (Role.EXTRACT, Role.CLASSIFY, Role.VALIDATE, Role.COMBINE, Role.AGGREGATE)
OWNERS = {Role.AGGREGATE, Role.PIPELINE}
"""Who writes outcomes: of a partition one of them at a time."""
SETTINGS = KafkaSettings(topic_prefix="news.")


def may(role: Role, operation: str, resource: Resource = Resource.TOPIC) -> set[str]:
    found = bindings(SETTINGS, roles=[role])
    return {acl.name for acl in found if acl.resource is resource and operation in acl.operations}


def test_what_the_pipeline_is_made_of_has_exactly_one_kind_of_writer() -> None:
    writers = {
        name: {role for role in Role if name in may(role, "Write")}
        for name in (one.name for one in plan(SETTINGS, OPTIONAL))
    }
    operator, one_hop = {Role.DLQ_OPERATOR}, {Role.PIPELINE}
    assert writers.pop("news.dead-letters") == {*STAGES, Role.REDACT, Role.ENTITIES} | one_hop
    assert writers.pop("news.member-answers") == {Role.EXTRACT, Role.CLASSIFY} | operator
    assert writers == {
        "news.documents": {Role.PRODUCER} | operator,
        "news.span-candidates": {Role.EXTRACT, Role.COMBINE} | one_hop | operator,
        "news.typed-entities": {Role.CLASSIFY, Role.COMBINE} | one_hop | operator,
        "news.validation-verdicts": {Role.VALIDATE} | one_hop | operator,
        "news.tagged-documents": OWNERS,
        "news.entity-mentions": OWNERS,
        changelog_name(SETTINGS): OWNERS,
        "news.pool-examples": {Role.TEACHER},
        "news.redacted-documents": {Role.REDACT},
        "news.redacted-originals": {Role.REDACT},
        "news.entity-occurrences": {Role.ENTITIES},
        "news.entity-decisions": {Role.ENTITY_EDITOR},
        "news.entities": {Role.ENTITIES},
        "news.entity-trends": {Role.ENTITIES},
        entities_changelog_name(SETTINGS): {Role.ENTITIES},
    }


def test_outsiders_touch_only_what_goes_in_and_what_comes_out() -> None:
    assert may(Role.PRODUCER, "Write") == {"news.documents"}
    assert may(Role.PRODUCER, "Read") == set()
    assert may(Role.READER, "Read") == {"news.tagged-documents", "news.entity-mentions"}
    assert may(Role.READER, "Write") == set()
    assert may(Role.DLQ_OPERATOR, "Read") == {"news.dead-letters"}
    assert may(Role.REDACTED_READER, "Read") == {"news.redacted-documents"}
    assert may(Role.REVEALER, "Read") == {"news.redacted-originals"}
    assert may(Role.REDACTED_READER, "Write") == may(Role.REVEALER, "Write") == set()
    assert may(Role.ENTITY_READER, "Read") == {"news.entities", "news.entity-trends"}
    assert may(Role.ENTITY_READER, "Write") == set()
    assert may(Role.ENTITY_EDITOR, "Read") == {"news.entities", "news.entity-decisions"}
    assert may(Role.TEACHER, "Read") == may(Role.TEACHER, "Write") == {"news.pool-examples"}


def test_stages_have_their_own_group_and_the_aggregator_its_transactions() -> None:
    for stage in STAGES:
        # Where members run apart, each set of them is a group of its own.
        apart = {f"news.el4ner-{stage.value}-"} if stage in {Role.EXTRACT, Role.CLASSIFY} else set()
        assert may(stage, "Read", Resource.GROUP) == {f"news.el4ner-{stage.value}"} | apart
    # Of the topologies one reads documents, and one writes the outcomes of a partition: the ids fence the other off.
    assert may(Role.PIPELINE, "Read", Resource.GROUP) == {"news.el4ner-extract"}
    for owner in OWNERS:
        assert may(owner, "Write", Resource.TRANSACTIONAL_ID) == {"news.el4ner-aggregate-"}
    assert may(Role.REDACT, "Read", Resource.GROUP) == {"news.el4ner-redact"}
    assert may(Role.REDACT, "Write", Resource.TRANSACTIONAL_ID) == {"news.el4ner-redact-"}
    assert may(Role.ENTITIES, "Read", Resource.GROUP) == {"news.el4ner-entities"}
    assert may(Role.ENTITIES, "Write", Resource.TRANSACTIONAL_ID) == {"news.el4ner-entities-"}
    transactions = [acl for acl in bindings(SETTINGS) if acl.resource is Resource.TRANSACTIONAL_ID]
    assert all(acl.prefixed for acl in transactions)
    assert {acl.role for acl in transactions} == OWNERS | {Role.REDACT, Role.ENTITIES}


def test_only_who_redacts_and_who_reveals_sees_originals_and_neither_needs_the_other_topics() -> None:
    named = {acl.role for acl in bindings(SETTINGS) if acl.name == "news.redacted-originals"}
    assert named == {Role.ADMIN, Role.REDACT, Role.REVEALER}
    assert may(Role.REDACT, "Read") == {"news.tagged-documents"}


def test_nobody_may_delete_alter_or_do_everything() -> None:
    granted = {operation for acl in bindings(SETTINGS, reader_group="g") for operation in acl.operations}
    assert granted == {"Create", "Read", "Write", "Describe", "DescribeConfigs"}
    assert [acl.role for acl in bindings(SETTINGS) if "Create" in acl.operations] == [Role.ADMIN] * len(
        plan(SETTINGS, OPTIONAL)
    )


def test_readers_have_a_group_if_they_name_one() -> None:
    assert may(Role.READER, "Read", Resource.GROUP) == set()
    named = bindings(SETTINGS, roles=[Role.READER], reader_group="archive")
    assert named[-1] == Acl(Role.READER, "User:news.el4ner-reader", Resource.GROUP, "archive", ("Read",))


def test_the_docs_have_the_same_table() -> None:
    lines = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| who | on | may |")
    shown = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        shown.append(line)
    assert shown == list(_rows(bindings(KafkaSettings(), reader_group="GROUP")))


def _rows(acls: Iterable[Acl]) -> Iterable[str]:
    together: dict[tuple[Role, Resource, tuple[str, ...]], list[str]] = {}
    for acl in acls:
        name = f"`{acl.name}*`" if acl.prefixed else f"`{acl.name}`"
        together.setdefault((acl.role, acl.resource, acl.operations), []).append(name)
    everything = len(plan(KafkaSettings(), OPTIONAL))
    for (role, resource, operations), names in together.items():
        shown = "every topic of the pipeline" if len(names) == everything else f"{resource.value} {', '.join(names)}"
        yield f"| {role.value} | {shown} | {', '.join(operations)} |"


def test_commands_are_for_a_shell_and_say_prefixed_where_it_is_meant() -> None:
    acls = bindings(KafkaSettings(), roles=[Role.AGGREGATE], principals={Role.AGGREGATE: "User:CN=a b"})
    commands = [shlex.split(line) for line in kafka_acls_commands(acls, "broker:9093")]
    for words in commands:
        assert words[:3] == ["kafka-acls.sh", "--bootstrap-server", "broker:9093"]
        assert words[words.index("--allow-principal") + 1] == "User:CN=a b"
        assert ("--transactional-id" in words) == (words[-2:] == ["--resource-pattern-type", "prefixed"])
    topics = {word for words in commands for before, word in itertools.pairwise(words) if before == "--topic"}
    assert topics == {one.name for one in plan(KafkaSettings())}


@pytest.mark.parametrize("name", ["joiner", "Group:x", "User:"])
def test_a_principal_that_kafka_would_not_know_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="principal of aggregate: expected User:NAME"):
        bindings(SETTINGS, principals={Role.AGGREGATE: name})


def test_the_command_prints_them_without_a_broker() -> None:
    run = CliRunner().invoke
    done = run(app, ["topics", "acls", "--role", "reader", "--reader-group", "archive", "--format", "json"])
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["resource"], line["name"]) for line in lines] == [
        ("topic", Topic.TAGGED_DOCUMENTS.value),
        ("topic", Topic.ENTITY_MENTIONS.value),
        ("group", "archive"),
    ]
    assert (
        run(app, ["topics", "acls", "--principal", "reader=User:me", "--role", "reader"]).stdout.count("User:me") == 1
    )
    for wrong in (["--role", "boss"], ["--principal", "reader"], ["--principal", "boss=User:x"]):
        assert run(app, ["topics", "acls", *wrong]).exit_code == 2
