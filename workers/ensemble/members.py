"""Members of one ensemble in different processes: which process hosts which member (``worker.members``).

A process with some of the members can only give their part of a stage's answer. The part goes to ``member-answers``.
:mod:`workers.ensemble.combiner` makes the stage's answer of all parts. Every set of members has a consumer group of its
own, so that it sees every document.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from el4ner.errors import ConfigError
from el4ner.nearest import choices, nearest_hint
from el4ner.participation import (
    STAGES,
    StageName,
    asks_models_for_pool_spans,
    is_split,
    members_of,
    shows_demonstrations,
)
from el4ner.serialize import answers_to_json
from el4ner.types import Mode
from workers.config import StreamSettings
from workers.roles import COMBINE, PIPELINE
from workers.stages.stage import Stage
from workers.topics import Topic

__all__ = ["check", "group_of", "hosted_members", "part_of", "split_stages"]


def hosted_members(settings: StreamSettings) -> tuple[str, ...] | None:
    """The members that this process hosts, in the ensemble's order; None: all."""
    named, members = settings.worker.members, settings.ensemble.members
    if named is None or set(named) >= set(members):
        return None
    return tuple(name for name in members if name in named)


def split_stages(settings: StreamSettings, stages: Collection[str]) -> tuple[StageName, ...]:
    """Those of the stages of which this process can only give its members' part."""
    hosted = hosted_members(settings)
    if hosted is None:
        return ()
    return tuple(stage for stage in STAGES if stage in stages and is_split(settings, stage, hosted))


def check(settings: StreamSettings, stages: Collection[str]) -> None:
    """Refuse what members in different processes cannot do.

    Raises:
        ConfigError: ``worker.members`` names no member of the ensemble, or contradicts a stage or a setting.
    """
    worker, method, members = settings.worker, settings.method, settings.ensemble.members
    unknown = [name for name in worker.members or () if name not in members]
    if unknown:
        raise ConfigError(
            f"worker.members: the ensemble has no member {unknown[0]!r}; its members are: {choices(members)}"
            f"{nearest_hint(unknown[0], members)}"
        )
    hosted, split = hosted_members(settings), split_stages(settings, stages)
    if hosted is not None and PIPELINE in stages:
        raise ConfigError(
            f"worker.members: {PIPELINE} asks all members about all stages, and {', '.join(hosted)} are not all: leave "
            "worker.members out, or run the stages apart (el4ner worker all)"
        )
    asks_verifier = "validate" in stages and method.validation_kind != "off"
    if hosted is not None and asks_verifier and settings.verifier not in hosted:
        raise ConfigError(
            f"worker.members: validate asks the verifier {settings.verifier!r} alone, which is not among "
            f"{', '.join(hosted)}: run validate where it is hosted"
        )
    asks_one = members_of(settings, "extract") if "extract" in stages else ()
    if hosted is not None and len(asks_one) == 1 and asks_one[0] not in hosted:
        raise ConfigError(
            f"worker.members: extract reads sentences with {asks_one[0]!r} alone, which is not among "
            f"{', '.join(hosted)}: run extract where it is hosted, or choose another one by ensemble.proposer, or "
            'leave "boundaries" out of method.proposals'
        )
    if (split or COMBINE in stages) and method.mode is Mode.SCORED:
        if method.adaptive:
            raise ConfigError(
                "method.adaptive asks a member about what those before it left open: with members in different "
                "processes (worker.members) it has to be false"
            )
        if asks_models_for_pool_spans(settings) and shows_demonstrations(settings):
            raise ConfigError(
                'retrieval.pool_spans = "models": each process would find the sentences of the pool by the spans of '
                "its own members, and no calibration holds for all of them: with members in different processes "
                '(worker.members) and method.mode = "scored" it has to be "labelled"'
            )
        if method.encoder == "embedder" and method.evidence and "in_context" not in method.evidence:
            raise ConfigError(
                'worker.members: with method.encoder = "embedder" classify asks no member: leave worker.members out'
            )
    if COMBINE in stages and worker.members_deadline_seconds >= worker.stall_seconds:
        raise ConfigError(
            f"worker.members_deadline_seconds is {worker.members_deadline_seconds:g} and stall_seconds "
            f"{worker.stall_seconds:g}: a document that waits for a member would count as a stall; make it smaller"
        )


def part_of(stage: Stage[Any, Any], settings: StreamSettings) -> Stage[Any, Any]:
    """The stage as this process runs it: whole, or its members' part, which goes to ``member-answers``."""
    hosted = hosted_members(settings)
    if hosted is None or stage.name not in split_stages(settings, [stage.name]):
        return stage
    part = replace(stage, output=Topic.MEMBER_ANSWERS, members=hosted, ensemble=settings.ensemble.members)
    if stage.name != "classify":
        return part
    # Without the decision, which is made of all members' answers.
    return replace(part, encode=answers_to_json, call=lambda pipeline, candidates: pipeline.answer(candidates))


def group_of(stage: str, settings: StreamSettings) -> str:
    """The name of the stage's consumer group. Every set of members has its own, so that it sees every document. Whoever
    reads ``documents`` for the whole ensemble has the same one: each topology goes on where the other has stopped."""
    if stage == PIPELINE:
        return STAGES[0]
    hosted = hosted_members(settings)
    if hosted is None or stage not in split_stages(settings, [stage]):
        return stage
    return f"{stage}-{'+'.join(sorted(hosted))}"
