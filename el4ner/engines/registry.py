"""From a member's settings to its loaded engine."""

from __future__ import annotations

from pathlib import Path

from el4ner.config import ModelSettings
from el4ner.engines.base import Engine
from el4ner.errors import ConfigError
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = ["load_engine"]


def load_engine(name: str, settings: ModelSettings, *, cache_dir: Path, progress: Progress | None = None) -> Engine:
    """Prepare the weights if they are not, and load them. Imports what that kind of engine needs, no more.

    Raises:
        ConfigError: there is no such engine.
        ModelError: the weights are missing, damaged or not supported.
    """
    if settings.engine == "instant":
        from el4ner.engines.instant import InstantEngine

        return InstantEngine(name)
    if settings.engine == "transformers":
        from el4ner.engines.transformers_engine import TransformersEngine
        from el4ner.models.prepare import prepare

        path = prepare(settings.source, cache_dir, progress or NO_PROGRESS)
        return TransformersEngine.load(
            name,
            path,
            dtype=settings.dtype,
            threads=settings.threads,
            max_batch_tokens=settings.max_batch_tokens,
            prefix_cache_bytes=settings.prefix_cache_mb << 20,
            cache_dir=cache_dir,
        )
    raise ConfigError(f"models.{name}.engine: there is no engine {settings.engine!r}")
