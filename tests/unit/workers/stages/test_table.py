"""The stages of the stream: one table, and one place for their names."""

from __future__ import annotations

import ast

import pytest

from el4ner.participation import SPLITTABLE, STAGES
from tests.support.paths import ROOT
from workers.cli.worker import RoleChoice
from workers.config import KafkaSettings
from workers.kafka.acls import Resource, Role, bindings
from workers.roles import AGGREGATE, COMBINE, ENTITIES, PIPELINE, REDACT, ROLES, STAGED_ROLES, stages_of
from workers.stages.table import STAGE_TABLE
from workers.topics import JOINED, REDACTION, Topic, changelog_name, entities_changelog_name


def test_the_table_has_the_methods_stages_in_their_order() -> None:
    assert tuple(STAGE_TABLE) == STAGES
    assert tuple(stage.name for stage in STAGE_TABLE.values()) == STAGES


def test_each_stage_reads_what_the_one_before_it_writes() -> None:
    topic, before = Topic.DOCUMENTS, None
    for stage in STAGE_TABLE.values():
        assert (stage.input, stage.before) == (topic, before)
        topic, before = stage.output, stage.name
        assert {stage.input, stage.output} <= set(JOINED)


def test_the_command_line_takes_every_role() -> None:
    assert [choice.value for choice in RoleChoice] == [*ROLES, "all"]


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_rights_are_those_that_the_table_says(role: str) -> None:
    settings = KafkaSettings()
    may: dict[str, set[str]] = {"Read": set(), "Write": set()}
    for right in bindings(settings, roles=[Role(role)]):
        for operation in set(right.operations) & set(may) if right.resource is Resource.TOPIC else ():
            may[operation].add(right.name)
    outputs = {stage.output for stage in STAGE_TABLE.values()}
    if role == AGGREGATE:
        assert outputs <= may["Read"]
        assert not outputs & may["Write"]
    elif role == PIPELINE:
        assert may["Read"] == {STAGE_TABLE["extract"].input, Topic.POOL_EXAMPLES, changelog_name(settings)}
        # The stages' topics are for worker.publish_stages.
        ends = {Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS, Topic.DEAD_LETTERS}
        assert may["Write"] == outputs | ends | {changelog_name(settings)}
    elif role == COMBINE:
        assert may["Read"] == {Topic.MEMBER_ANSWERS}
        assert may["Write"] == {STAGE_TABLE[name].output for name in SPLITTABLE} | {Topic.DEAD_LETTERS}
    elif role == REDACT:
        assert may["Read"] == {Topic.TAGGED_DOCUMENTS}
        assert may["Write"] == {*REDACTION, Topic.DEAD_LETTERS}
    elif role == ENTITIES:
        both = {Topic.ENTITY_OCCURRENCES, entities_changelog_name(settings)}
        assert may["Read"] == {Topic.TAGGED_DOCUMENTS, Topic.ENTITY_DECISIONS} | both
        assert may["Write"] == {Topic.ENTITIES, Topic.ENTITY_TRENDS, Topic.DEAD_LETTERS} | both
    else:
        stage = STAGE_TABLE[role]
        answers = {stage.output, Topic.DEAD_LETTERS} | ({Topic.MEMBER_ANSWERS} if role in SPLITTABLE else set())
        assert (may["Read"], may["Write"]) == ({stage.input, Topic.POOL_EXAMPLES}, answers)


def test_all_is_the_methods_stages_and_what_joins_them() -> None:
    assert (*STAGES, AGGREGATE) == STAGED_ROLES
    assert set(ROLES) - set(STAGED_ROLES) == {COMBINE, PIPELINE, REDACT, ENTITIES}
    assert stages_of(STAGED_ROLES) == stages_of([PIPELINE]) == STAGES
    assert stages_of(["validate", "extract", AGGREGATE]) == ("extract", "validate")


@pytest.mark.parametrize("tree", ["el4ner", "workers", "tools", "bench"])
def test_nothing_else_lists_the_stages(tree: str) -> None:
    """Names that a module exports are its functions'."""
    for path in sorted((ROOT / tree).rglob("*.py")):
        if path == ROOT / "el4ner" / "participation.py":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        exported = {
            id(node.value)
            for node in nodes
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        }
        for node in nodes:
            if isinstance(node, ast.Tuple | ast.List | ast.Set) and id(node) not in exported:
                listed = {item.value for item in node.elts if isinstance(item, ast.Constant)} & {*ROLES}
                assert len(listed) < 2, f"{path}:{node.lineno} lists {', '.join(sorted(map(str, listed)))}"
