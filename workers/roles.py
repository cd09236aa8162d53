"""What a process of the stream can run, by name: the stages of the method, what joins their answers, or all in one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from el4ner.participation import STAGES, StageName

__all__ = ["AGGREGATE", "COMBINE", "ENTITIES", "PIPELINE", "REDACT", "ROLES", "STAGED_ROLES", "stages_of"]

AGGREGATE: Final = "aggregate"
"""Joins the stages' answers to tagged documents."""
COMBINE: Final = "combine"
"""Makes a stage's answer of what members in different processes said."""
PIPELINE: Final = "pipeline"
"""All stages and the join in one hop: documents in, tagged documents out."""
REDACT: Final = "redact"
"""Tagged documents in, redacted ones out."""
ENTITIES: Final = "entities"
"""Tagged documents in, the entities of all of them out."""
STAGED_ROLES: Final = (*STAGES, AGGREGATE)
"""What ``all`` runs."""
ROLES: Final = (*STAGED_ROLES, COMBINE, PIPELINE, REDACT, ENTITIES)
"""All. Behind the staged ones: for ensembles whose members are in different processes, for those in one, and for who
reads the results."""


def stages_of(roles: Collection[str]) -> tuple[StageName, ...]:
    """The method's stages that a process with these roles asks the pipeline for."""
    return STAGES if PIPELINE in roles else tuple(stage for stage in STAGES if stage in roles)
