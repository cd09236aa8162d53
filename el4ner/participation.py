"""Which of the ensemble's members take part in which stage, by configuration alone: known before a model is loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

from el4ner.config import Settings
from el4ner.types import Mode

__all__ = [
    "SPLITTABLE",
    "STAGES",
    "StageName",
    "asks_models_for_pool_spans",
    "asks_models_for_query_spans",
    "engines_for",
    "is_split",
    "members_of",
]

StageName = Literal["extract", "classify", "validate"]
STAGES: Final[tuple[StageName, ...]] = ("extract", "classify", "validate")
SPLITTABLE: Final[tuple[StageName, ...]] = ("extract", "classify")
"""Where members can answer in processes of their own; validate asks one member alone."""


def asks_models_for_query_spans(settings: Settings) -> bool:
    """Whether the members propose the spans that demonstrations are retrieved by."""
    retrieval = settings.retrieval
    if retrieval.kind != "span":
        return False
    if retrieval.query_spans == "auto":
        return settings.method.mode is Mode.PAPER
    return retrieval.query_spans == "models"


def asks_models_for_pool_spans(settings: Settings) -> bool:
    """Whether the members propose the spans that the pool's sentences are found by."""
    return settings.retrieval.kind == "span" and settings.retrieval.pool_spans == "models"


def members_of(settings: Settings, stage: StageName) -> tuple[str, ...]:
    """The members whose engines the stage needs, in the ensemble's order."""
    method, members = settings.method, settings.ensemble.members
    if stage == "validate":
        return () if method.validation_kind == "off" else (settings.verifier,)
    if stage == "classify" or method.mode is Mode.PAPER or "models" in method.proposals:
        return members
    if asks_models_for_query_spans(settings) or asks_models_for_pool_spans(settings):
        return members
    return () if settings.proposer is None else (settings.proposer,)


def engines_for(settings: Settings, stages: Collection[StageName], members: Collection[str] | None) -> tuple[str, ...]:
    """The members to load for these stages, of ``members`` (None: of all), in the ensemble's order."""
    needed = {name for stage in stages for name in members_of(settings, stage)}
    return tuple(name for name in settings.ensemble.members if name in needed and (members is None or name in members))


def is_split(settings: Settings, stage: StageName, members: Collection[str]) -> bool:
    """Whether a process with these members alone can only say its part of the stage's answer. What one member alone is
    asked for has no parts."""
    needed = members_of(settings, stage)
    return stage in SPLITTABLE and len(needed) > 1 and not set(needed) <= set(members)
