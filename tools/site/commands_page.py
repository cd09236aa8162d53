"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

import typer

from tools.site.markdown import table
from workers.cli.app import app

__all__ = ["commands_page"]

_HEAD: Final = """# All commands

Every command with its options, as `--help` shows them: made from the code of this release.

"""


def commands_page() -> str:
    """The page."""
    return _HEAD + "\n".join(
        _command(name, command) for name, command in _commands("el4ner", typer.main.get_command(app))
    )


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and those below it. Hidden ones are nobody's to use."""
    if command.hidden:
        return
    yield name, command
    for inner, below in getattr(command, "commands", {}).items():
        yield from _commands(f"{name} {inner}", below)


def _command(name: str, command: Any) -> str:
    parameters = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [_argument(parameter) for parameter in parameters if parameter.param_type_name == "argument"]
    rows = [
        (
            ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
            if parameter.param_type_name == "option"
            else f"`{_argument(parameter)}`",
            (getattr(parameter, "help", None) or "").strip(),
            _default(parameter),
        )
        for parameter in parameters
        if parameter.name != "help"
    ]
    usage = " ".join(
        [name, *(["[OPTIONS]"] if rows else []), *(["COMMAND"] if hasattr(command, "commands") else []), *arguments]
    )
    help_text = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    parts = [
        f"## {name}",
        help_text,
        f"```text\n{usage}\n```",
        table(("option", "what it does", "default"), rows),
        _examples(command),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or isinstance(value, bool) or value in ((), []) or callable(value) or value is ...:
        return ""
    value = value.value if isinstance(value, Enum) else value
    return f"`{value}`" if isinstance(value, str | int | float) else ""


def _examples(command: Any) -> str:
    lines = [line for line in (command.epilog or "").split("\n\n") if line.startswith(("el4ner", "EL4NER", "curl"))]
    return "```text\n" + "\n".join(lines) + "\n```" if lines else ""
