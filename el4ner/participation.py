"""Which of the ensemble's members take part in which stage, and what prompts show, by configuration alone: known before
a model is loaded, and the same in every process.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

from el4ner.config import SHOW_STATES, MethodSettings, Settings
from el4ner.types import Mode

__all__ = [
    "SPLITTABLE",
    "STAGES",
    "StageName",
    "asks_models_for_pool_spans",
    "asks_models_for_query_spans",
    "engines_for",
    "goes_by_mean",
    "is_split",
    "members_of",
    "needs_embedder",
    "shows_demonstrations",
    "speaks_in_context",
]

StageName = Literal["extract", "classify", "validate"]
STAGES: Final[tuple[StageName, ...]] = ("extract", "classify", "validate")
SPLITTABLE: Final[tuple[StageName, ...]] = ("extract", "classify")
"""Where members can answer in processes of their own; validate asks one member alone."""


def goes_by_mean(method: MethodSettings, *, shows_states: bool) -> bool:
    """Whether scored mode goes by the mean of the members' answers in context, since there is no evidence to weigh, or
    nothing to weigh it by. ``shows_states``: whether some member does."""
    if not _by_states(method):
        return not method.evidence or method.weights == "even"
    return method.encoder == "members" and not shows_states and "in_context" not in method.evidence


def speaks_in_context(method: MethodSettings, *, shows_states: bool) -> bool:
    """Whether a member's answers behind demonstrations are among the evidence: they are asked for, or there is nothing
    that speaks for it by states. ``shows_states``: whether this member does."""
    spoken_for = method.encoder == "embedder" or shows_states
    return "in_context" in method.evidence or not (_by_states(method) and spoken_for)


def shows_demonstrations(settings: Settings) -> bool:
    """Whether any prompt of any stage shows demonstrations. Where none does, nothing is retrieved."""
    method = settings.method
    if method.mode is Mode.PAPER or "models" in method.proposals or method.validation_kind != "off":
        return True
    show_states = [settings.models[name].engine in SHOW_STATES for name in settings.ensemble.members]
    by_mean = goes_by_mean(method, shows_states=any(show_states))
    return by_mean or any(speaks_in_context(method, shows_states=shows_states) for shows_states in show_states)


def needs_embedder(settings: Settings) -> bool:
    """Whether anything is compared by ``retrieval.embedder``."""
    retrieves = settings.retrieval.kind in ("span", "sentence") and shows_demonstrations(settings)
    return retrieves or settings.method.encoder == "embedder"


def _by_states(method: MethodSettings) -> bool:
    return any(kind != "in_context" for kind in method.evidence)


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
    asks_for_retrieval = asks_models_for_query_spans(settings) or asks_models_for_pool_spans(settings)
    if asks_for_retrieval and shows_demonstrations(settings):
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
