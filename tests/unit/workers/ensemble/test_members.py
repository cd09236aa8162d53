"""Who hosts whom: what a process with some of the members runs as, and what is refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from el4ner.config import Settings, load_settings
from el4ner.errors import ConfigError
from el4ner.loader import load_members, load_pipeline
from el4ner.participation import StageName, engines_for, members_of
from workers.config import StreamSettings, load_stream_settings
from workers.ensemble.members import check, group_of, hosted_members, part_of, split_stages
from workers.stages.table import CLASSIFY, EXTRACT, VALIDATE
from workers.topics import Topic

ENSEMBLE = {"preset": "instant"}
"""Its members are instant-a and instant-b, and the second one verifies."""
ALL = ("extract", "classify", "validate", "aggregate")


def stream(members: list[str] | None = None, **sections: Mapping[str, Any]) -> StreamSettings:
    worker = {**sections.pop("worker", {}), **({} if members is None else {"members": members})}
    overrides = {"ensemble": ENSEMBLE, "worker": worker, **sections}
    return load_stream_settings(environ={}, overrides=overrides)


# --- which engines ---


@pytest.mark.parametrize(
    ("method", "stages", "members", "loaded"),
    [
        ({}, ["extract"], None, []),
        ({}, ["extract", "validate"], None, []),
        ({"proposals": ["models"]}, ["extract"], None, ["instant-a", "instant-b"]),
        ({"mode": "paper"}, ["extract"], None, ["instant-a", "instant-b"]),
        ({"mode": "paper"}, ["extract"], ["instant-b"], ["instant-b"]),
        ({}, ["classify"], None, ["instant-a", "instant-b"]),
        ({}, ["classify"], ["instant-a"], ["instant-a"]),
        ({}, ["validate"], None, []),
        ({"validation": "soft"}, ["validate"], None, ["instant-b"]),
        ({"validation": "soft"}, ["extract", "classify", "validate"], None, ["instant-a", "instant-b"]),
    ],
)
def test_a_process_loads_the_engines_that_its_stages_need(
    method: Mapping[str, Any], stages: list[StageName], members: list[str] | None, loaded: list[str]
) -> None:
    overrides = {"ensemble": ENSEMBLE, "method": method, "retrieval": {"kind": "none"}}
    settings = load_settings(Settings, environ={}, overrides=overrides)
    assert engines_for(settings, stages, members) == tuple(loaded)
    load = load_pipeline if members is None else partial(load_members, members=members)
    with load(settings, stages=stages) as pipeline:
        assert list(pipeline.engines) == loaded


def test_members_that_propose_what_is_retrieved_by_take_part_in_extraction() -> None:
    overrides = {"ensemble": ENSEMBLE, "retrieval": {"kind": "span", "query_spans": "models"}}
    settings = load_settings(Settings, environ={}, overrides=overrides)
    assert members_of(settings, "extract") == ("instant-a", "instant-b")


# --- which part of which stage ---


@pytest.mark.parametrize("members", [None, ["instant-a", "instant-b"], ["instant-b", "instant-a"]])
def test_a_process_with_all_members_runs_as_ever(members: list[str] | None) -> None:
    settings = stream(members)
    check(settings, ALL)
    assert hosted_members(settings) is None
    assert split_stages(settings, ALL) == ()
    assert part_of(CLASSIFY, settings) is CLASSIFY
    assert group_of("classify", settings) == "classify"


def test_all_stages_in_one_hop_need_all_members_and_go_on_where_extract_stopped() -> None:
    check(stream(), ["pipeline"])
    assert group_of("pipeline", stream()) == group_of("extract", stream())
    with pytest.raises(ConfigError, match=r"worker\.members: pipeline asks all members"):
        check(stream(["instant-b"]), ["pipeline"])


def test_a_process_with_some_says_its_part_in_a_group_of_its_own() -> None:
    settings = stream(["instant-b"], method={"proposals": ["chunks", "models"]})
    check(settings, ALL)
    assert split_stages(settings, ALL) == ("extract", "classify")
    for stage in (EXTRACT, CLASSIFY):
        part = part_of(stage, settings)
        assert (part.input, part.output) == (stage.input, Topic.MEMBER_ANSWERS)
        assert (part.members, part.ensemble) == (("instant-b",), ("instant-a", "instant-b"))
        assert group_of(stage.name, settings) == f"{stage.name}-instant-b"
        assert part.journal_name.endswith(f"-{stage.name}")
        assert part.journal_name != part_of(stage, stream(["instant-a"], method={"mode": "paper"})).journal_name
    assert part_of(VALIDATE, settings) is VALIDATE
    assert VALIDATE.journal_name == "validate"


def test_the_order_in_which_members_are_named_makes_no_other_group() -> None:
    models = {name: {"source": "none", "engine": "instant"} for name in "abc"}
    groups = {
        group_of("classify", stream(members, ensemble={"members": ["c", "b", "a"]}, models=models))
        for members in (["a", "c"], ["c", "a"])
    }
    assert groups == {"classify-a+c"}


def test_extraction_without_models_is_no_members_business() -> None:
    settings = stream(["instant-a"])
    check(settings, ["extract", "classify"])
    assert split_stages(settings, ALL) == ("classify",)
    assert part_of(EXTRACT, settings) is EXTRACT
    assert group_of("extract", settings) == "extract"


SHOWING = {name: {"source": "none", "engine": "transformers"} for name in "ab"}
BOTH = {"ensemble": {"members": ["a", "b"]}, "models": SHOWING}
"""Both show hidden states, so the last one reads where entities begin and end."""


def test_extraction_by_one_member_runs_whole_where_that_one_is() -> None:
    settings = stream(["b"], **BOTH)
    check(settings, ["extract", "classify"])
    assert members_of(settings, "extract") == ("b",)
    assert split_stages(settings, ALL) == ("classify",)
    assert part_of(EXTRACT, settings) is EXTRACT
    assert group_of("extract", settings) == "extract"
    chosen = {**BOTH, "ensemble": {"members": ["a", "b"], "proposer": "a"}}
    check(stream(["a"], **chosen), ["extract", "classify"])
    check(stream(["a"], **BOTH), ["classify"])
    check(stream(["a"], **BOTH, method={"proposals": ["chunks", "lexicon"]}), ["extract", "classify"])


def test_where_members_write_spans_each_takes_part_and_one_of_them_reads_boundaries() -> None:
    method = {"proposals": ["boundaries", "chunks", "models"]}
    for member in "ab":
        settings = stream([member], **BOTH, method=method)
        check(settings, ["extract", "classify"])
        assert split_stages(settings, ALL) == ("extract", "classify")


# --- what is refused ---


@pytest.mark.parametrize(
    ("members", "stages", "sections", "said"),
    [
        (["instant-c"], ["aggregate"], {}, "no member 'instant-c'; its members are: instant-a, instant-b"),
        (["instant-a"], ["validate"], {"method": {"validation": "soft"}}, "verifier 'instant-b'"),
        (["a"], ["extract"], BOTH, r"extract reads sentences with 'b' alone, which is not among a: run extract where"),
        (["instant-a"], ["classify"], {"method": {"adaptive": True}}, r"method\.adaptive"),
        (None, ["combine"], {"method": {"adaptive": True}}, r"method\.adaptive"),
        (["instant-a"], ["classify"], {"method": {"encoder": "embedder"}}, "asks no member"),
        (["instant-a"], ["extract"], {"retrieval": {"kind": "span", "pool_spans": "models"}}, r"retrieval\.pool_spans"),
        (None, ["combine"], {"retrieval": {"kind": "span", "pool_spans": "models"}}, r"retrieval\.pool_spans"),
        (
            None,
            ["combine"],
            {"worker": {"members_deadline_seconds": 900, "stall_seconds": 900}},
            "would count as a stall",
        ),
    ],
)
def test_what_members_cannot_do_apart_is_refused(
    members: list[str] | None, stages: list[str], sections: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check(stream(members, **sections), stages)


def test_in_paper_mode_members_apart_propose_the_pools_spans_too() -> None:
    settings = stream(["instant-a"], method={"mode": "paper"}, retrieval={"kind": "span", "pool_spans": "models"})
    check(settings, ["extract"])
    assert split_stages(settings, ["extract"]) == ("extract",)


def test_the_verifiers_process_validates() -> None:
    check(stream(["instant-b"], method={"validation": "soft"}), ["validate"])
    check(stream(["instant-a"]), ["validate"])
