"""From the command line's options to checked settings."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from el4ner.types import Mode
from workers.cli.options import LogFormat, LogLevel
from workers.cli.standard_output import reserve_standard_output

if TYPE_CHECKING:
    from el4ner.config import Settings
    from workers.config import StreamSettings, WorkerSettings

__all__ = [
    "GlobalOptions",
    "configure_cli_logging",
    "method_settings",
    "overrides_of",
    "prepare_process",
    "stream_settings",
    "with_only_pool",
    "with_pools",
    "work_offline_if_local",
    "worker_logging",
]


S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """What stands before the command's name."""

    config: Path | None = None
    log_level: LogLevel | None = None
    log_format: LogFormat | None = None
    owns_process: bool = False
    """Whether the process is ``el4ner``'s, and not that of a program that calls a command."""


def prepare_process() -> None:
    """Have the model libraries keep their bars and hints to themselves; before they are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def configure_cli_logging(ctx: typer.Context) -> None:
    """Log records on standard error: from warnings on, for people, unless told otherwise. Libraries that print are sent
    there too, so that standard output has results and nothing else."""
    from workers.config import WorkerSettings
    from workers.telemetry.logs import configure_logging

    global_options: GlobalOptions = ctx.obj
    level, form = global_options.log_level or LogLevel.WARNING, global_options.log_format or LogFormat.CONSOLE
    reserve_standard_output()
    configure_logging(WorkerSettings(log_level=level.value, log_format=form.value))
    if level is not LogLevel.DEBUG:
        # Kafka's client logs every refused connection as an error; what comes of it is raised, and said once.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)


def worker_logging(ctx: typer.Context, settings: WorkerSettings) -> WorkerSettings:
    """The file's settings, with what the command line says about logging."""
    global_options: GlobalOptions = ctx.obj
    update = {
        "log_level": global_options.log_level and global_options.log_level.value,
        "log_format": global_options.log_format,
    }
    return settings.model_copy(update={key: str(value) for key, value in update.items() if value is not None})


def overrides_of(*, ensemble: str | None = None, mode: Mode | None = None) -> dict[str, Any]:
    """Options as a nested table.

    An ensemble comes with its members and models, not by its preset's name alone: or a file's own ``ensemble.members``
    would win over what was asked for here.
    """
    overrides: dict[str, Any] = {}
    if mode is not None:
        overrides["method"] = {"mode": mode.value}
    if ensemble is not None:
        preset = _preset(ensemble)
        overrides["ensemble"] = {"verifier": None, **preset.get("ensemble", {}), "preset": ensemble}
        overrides["models"] = preset.get("models", {})
        if not preset:  # no such preset: the reader of settings says so, and which there are
            del overrides["ensemble"]["verifier"], overrides["models"]
    return overrides


def method_settings(ctx: typer.Context, config: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The method's settings; ``config`` is the command's own option, which wins over the global one."""
    from el4ner.config import STREAM_SECTIONS, Settings, load_settings

    global_options: GlobalOptions = ctx.obj
    return load_settings(Settings, config or global_options.config, overrides=overrides, passed_over=STREAM_SECTIONS)


def stream_settings(
    ctx: typer.Context, config: Path | None, overrides: Mapping[str, Any] | None = None
) -> StreamSettings:
    """As :func:`method_settings`, with the stream's sections."""
    from workers.config import load_stream_settings

    global_options: GlobalOptions = ctx.obj
    return load_stream_settings(config or global_options.config, overrides=overrides)


def with_only_pool(settings: S, pool: str | None) -> S:
    """Settings that host one pool, which is the default one too: the named one, or the configured default.

    ``pool`` is a name from ``pools.paths``, a shipped name or a path. Every pool that is not loaded saves seconds.
    """
    name, source = _pool_source(settings, settings.pools.default if pool is None else pool)
    return _with_paths(settings, name, {name: source})


def with_pools(settings: S, pools: Sequence[str]) -> S:
    """Settings that host these pools, named as for :func:`with_only_pool`; without any, the configured ones.

    Raises:
        ConfigError: two different ones would have the same name.
    """
    from el4ner.errors import ConfigError

    paths: dict[str, str] = {}
    for name, source in (_pool_source(settings, pool) for pool in pools):
        if paths.setdefault(name, source) != source:
            raise ConfigError(f"{paths[name]} and {source} would both be called {name!r}: name them one at a time")
    if not paths:
        return settings
    return _with_paths(settings, next(iter(paths)), paths)


def work_offline_if_local(settings: Settings) -> None:
    """Keep the hub's client from asking the network about models that are on this machine anyway."""
    sources = [settings.models[name].source for name in settings.ensemble.members if name in settings.models]
    sources.append(settings.retrieval.embedder)
    if all(source.startswith(("packaged:", "quantized:", "/", ".", "~")) or source == "instant" for source in sources):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _with_paths(settings: S, default: str, paths: Mapping[str, str]) -> S:
    """Other pools, read as the configuration says."""
    pools = settings.pools.model_copy(update={"default": default, "paths": dict(paths)})
    return settings.model_copy(update={"pools": pools})


def _pool_source(settings: Settings, pool: str) -> tuple[str, str]:
    configured = settings.pools.paths
    if pool in configured:
        return pool, configured[pool]
    path = Path(pool)
    return (path.stem if path.is_file() else path.resolve().name), pool


def _preset(name: str) -> dict[str, Any]:
    file = resources.files("el4ner") / "presets" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
