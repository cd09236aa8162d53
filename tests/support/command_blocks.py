"""The command blocks of a page of documentation, each with the comment before it that says who runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CommandBlock", "command_blocks", "commands_of", "shown_after", "unnamed_blocks"]

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^ *```$", re.M | re.S
)
_COMMANDS = ("bash", "console", "sh", "shell")


@dataclass(frozen=True)
class CommandBlock:
    """A block, where it is, and its marker; None: it has none."""

    page: Path
    line: int
    kind: str
    body: str
    marker: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def command_blocks(page: Path) -> list[CommandBlock]:
    """In the order of the page."""
    return [block for block in _blocks(page) if block.kind in _COMMANDS]


def unnamed_blocks(page: Path) -> list[CommandBlock]:
    """Those that say no language."""
    return [block for block in _blocks(page) if not block.kind]


def shown_after(page: Path) -> list[tuple[CommandBlock, str | None]]:
    """Each block of commands, and what the page says that it shows: the next block, if that is of text."""
    blocks = _blocks(page)
    return [
        (block, after.body if after is not None and after.kind == "text" else None)
        for block, after in zip(blocks, [*blocks[1:], None], strict=True)
        if block.kind in _COMMANDS
    ]


def commands_of(block: CommandBlock) -> str:
    """What is typed: without prompts, and without what is shown below them."""
    if block.kind != "console":
        return block.body
    lines, goes_on = [], False
    for line in block.body.splitlines():
        if line.startswith("$ ") or goes_on:
            lines.append(line.removeprefix("$ "))
            goes_on = line.endswith("\\")
    return "\n".join(lines)


def _blocks(page: Path) -> list[CommandBlock]:
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in _BLOCK.finditer(text):
        indent = match["indent"]
        body = "\n".join(line.removeprefix(indent) for line in match["body"].splitlines())
        line = text.count("\n", 0, match.start("kind")) + 1
        blocks.append(CommandBlock(page, line, match["kind"], body, match["mark"]))
    return blocks
