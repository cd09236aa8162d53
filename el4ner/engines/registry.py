"""From a member's settings to its loaded engine."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import assert_never

from el4ner.config import ModelSettings
from el4ner.engines.base import Engine
from el4ner.engines.torch.lean_transformers import collection_paused, import_transformers
from el4ner.engines.torch.waiting import import_torch
from el4ner.extras import METHOD_EXTRAS, extras_explained
from el4ner.models.catalogue import PREFIX
from el4ner.models.prepare import prepare
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = ["import_engine", "load_engine"]


def import_engine(settings: ModelSettings) -> None:
    """Import what that kind of engine needs, no more: seconds, the first time, and more where nothing is compiled yet.

    Raises:
        ImportError: it is not installed.
    """
    if settings.engine == "transformers":
        with collection_paused():
            import_torch()
            import_transformers()
            import_module("el4ner.engines.torch.transformers_engine")
    elif settings.engine in {"exllamav2", "exllamav3"}:
        import_torch()


def load_engine(name: str, settings: ModelSettings, *, cache_dir: Path, progress: Progress | None = None) -> Engine:
    """Prepare the weights if they are not, and load them. Imports what that kind of engine needs, no more.

    Raises:
        ModelError: the weights are missing, damaged or not supported, or the engine cannot run here.
        ConfigError: settings that do not go together.
        NotInstalledError: the extra that brings this kind of engine is not installed.
    """
    packaged = settings.source.startswith(PREFIX)
    with extras_explained(f"models.{name}", dict.fromkeys(METHOD_EXTRAS, "embedded") if packaged else METHOD_EXTRAS):
        return _loaded(name, settings, cache_dir, progress or NO_PROGRESS)


def _loaded(name: str, settings: ModelSettings, cache_dir: Path, progress: Progress) -> Engine:
    import_engine(settings)
    match settings.engine:
        case "instant":
            from el4ner.engines.instant import InstantEngine

            return InstantEngine(name)
        case "transformers":
            from el4ner.engines.torch.transformers_engine import TransformersEngine

            return TransformersEngine.load(
                name,
                prepare(settings.source, cache_dir, progress),
                dtype=settings.dtype,
                device=settings.device,
                threads=settings.threads,
                max_batch_tokens=settings.max_batch_tokens,
                prefix_cache_bytes=settings.prefix_cache_mb << 20,
                cache_dir=cache_dir,
            )
        case "exllamav2" | "exllamav3":
            from el4ner.engines.exllama.loading import load

            path = prepare(settings.source, cache_dir, progress)
            return load(name, path, settings, library=settings.engine, cache_dir=cache_dir)
        case "server":
            from el4ner.engines.served.served_engine import ServedEngine

            return ServedEngine.load(name, settings, cache_dir=cache_dir)
        case _:
            assert_never(settings.engine)
