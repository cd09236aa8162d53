"""The file by which whoever starts a service learns its port."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_port"]


def write_port(file: Path, port: int) -> None:
    """All at once: who waits for the file reads the whole number."""
    partial = file.with_name(f"{file.name}.part")
    partial.write_text(f"{port}\n", encoding="utf-8")
    partial.replace(file)
