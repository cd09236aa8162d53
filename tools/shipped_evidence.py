"""Prepares the evidence of the shipped pools: what ``el4ner/evidence/shipped`` holds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

from el4ner.config import Settings, load_settings
from el4ner.engines.base import StateEngine
from el4ner.evidence.prepared import SHIPPED, PreparedEvidence
from el4ner.loader import load_pipeline
from el4ner.models.files import write_atomically
from el4ner.models.progress import Progress

__all__ = ["ENSEMBLES", "INDEX", "prepare_evidence", "prepared_settings", "recorded_members"]

INDEX: Final = "members.json"
"""Whose states they are: members' fingerprints, by which a test without models knows whether all is there."""
ENSEMBLES: Final = ("default", "gemma3")
"""The presets that find everything prepared."""


def prepared_settings(ensemble: str) -> Settings:
    """As somebody has them who has configured nothing but the ensemble, read in float32: nearest to every number
    type."""
    settings = load_settings(Settings, environ={}, overrides={"ensemble": {"preset": ensemble}})
    models = {name: model.model_copy(update={"dtype": "float32"}) for name, model in settings.models.items()}
    return settings.model_copy(update={"models": models})


def recorded_members(folder: Path = SHIPPED.folder) -> Mapping[str, str]:
    """By the member's name the ``states_fingerprint`` that the files are for."""
    members: Mapping[str, str] = orjson.loads((folder / INDEX).read_bytes())["members"]
    return members


def prepare_evidence(target: Path, *, cache_dir: Path, progress: Progress) -> int:
    """Make the folder ``target`` anew, and return its bytes. What ``cache_dir`` has of the pools is not read again."""
    members: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        made = PreparedEvidence(Path(scratch) / "made", fill=True)
        for ensemble in ENSEMBLES:
            settings = prepared_settings(ensemble)
            with load_pipeline(settings, cache_dir=cache_dir, progress=progress, prepared=made) as pipeline:
                for name, engine in pipeline.engines.items():
                    assert isinstance(engine, StateEngine), name
                    members[name] = engine.states_fingerprint
        content = orjson.dumps({"members": members}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        write_atomically(made.folder / INDEX, content + b"\n")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made.folder, target)
    return sum(file.stat().st_size for file in target.iterdir())
