"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from el4ner.types import Mode

__all__ = [
    "ConfigOption",
    "EnsembleOption",
    "LogFormat",
    "LogLevel",
    "ModeOption",
    "OutputFormat",
    "PoolErrors",
    "PoolErrorsOption",
    "PoolOption",
    "examples",
    "json_file",
    "refuse_unwritable",
]


class LogLevel(StrEnum):
    """See ``worker.log_level``."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """See ``worker.log_format``."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class OutputFormat(StrEnum):
    """For people, or for programs (JSON Lines)."""

    TEXT = "text"
    JSON = "json"


class PoolErrors(StrEnum):
    """See ``pools.on_error``."""

    STOP = "stop"
    SKIP = "skip"


ConfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Configuration file (TOML). (default: the variable EL4NER_CONFIG, else none)"),
]
EnsembleOption = Annotated[
    str | None, typer.Option(metavar="PRESET", help="Ensemble that ships with el4ner: default, gemma3, gpu-24gb, …")
]
ModeOption = Annotated[
    Mode | None, typer.Option(help="paper: as published; scored: by log-probability. (default: the file's, or scored)")
]
PoolOption = Annotated[
    str | None,
    typer.Option(metavar="NAME|PATH", help="Demonstration pool: a shipped or configured name, a folder or a file."),
]


PoolErrorsOption = Annotated[
    PoolErrors | None,
    typer.Option(
        "--on-error",
        help="What a wrong labelled sentence does: stop, or skip: leave it out. (default: the file's, or stop)",
    ),
]


def json_file(json: str | None) -> Path | None:
    """The file that ``--json`` names; None without the option, and where ``-`` asks for standard output."""
    return None if json in (None, "-") else Path(str(json))


def refuse_unwritable(option: str, file: Path | None) -> None:
    """Say so before the work, not after it."""
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise typer.BadParameter(f"{file}: cannot be written", param_hint=option)


def examples(*lines: str) -> str:
    """The epilog of a command's help."""
    return "\n\n".join(["Examples:", *lines])
