"""What a process of the stream can run, by name: the stages of the method, and what joins their answers."""

from __future__ import annotations

from typing import Final

from el4ner.participation import STAGES

__all__ = ["AGGREGATE", "COMBINE", "PIPELINE_ROLES", "ROLES"]

AGGREGATE: Final = "aggregate"
"""Joins the stages' answers to tagged documents."""
COMBINE: Final = "combine"
"""Makes a stage's answer of what members in different processes said."""
PIPELINE_ROLES: Final = (*STAGES, AGGREGATE)
"""What ``all`` runs."""
ROLES: Final = (*PIPELINE_ROLES, COMBINE)
"""All; the last one is only for ensembles whose members are in different processes."""
