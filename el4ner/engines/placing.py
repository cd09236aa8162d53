"""Which member goes onto which GPU: planned for all of them before the first is loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from el4ner.config import ModelSettings
from el4ner.engines.exllama.planning import gpus_found, member, plan
from el4ner.engines.exllama.weight_files import weight_bytes
from el4ner.models.prepare import prepare
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.models.shapes import read_config, shape_of

__all__ = ["place"]

log = logging.getLogger(__name__)


def place(
    models: Mapping[str, ModelSettings], *, cache_dir: Path, progress: Progress = NO_PROGRESS
) -> dict[str, ModelSettings]:
    """The same settings, with a GPU for every member that an ExLlama engine runs and that names none.

    Other engines' members are as they were. Where there is no GPU nothing is planned: loading says what is missing.

    Raises:
        ConfigError: the members do not fit the GPUs; by how much, and what would help.
        ModelError: weights that cannot be prepared, or a folder that cannot be read.
    """
    placed = dict(models)
    ours = [name for name, settings in models.items() if settings.engine in ("exllamav2", "exllamav3")]
    gpus = gpus_found() if ours else []
    if not gpus:
        return placed
    members = []
    for name in ours:
        folder = prepare(models[name].source, cache_dir, progress)
        shape = shape_of(read_config(folder), folder / "config.json")
        members.append(member(name, shape, weight_bytes(folder), models[name]))
    planned = plan(members, gpus)
    for name in ours:
        device = f"cuda:{planned.index_of(name)}"
        placed[name] = models[name].model_copy(update={"device": device})
        log.info("engine-placed", extra={"engine": name, "device": device})
    return placed
