"""How something slow tells how far it is."""

from __future__ import annotations

from typing import Protocol

__all__ = ["NO_PROGRESS", "Progress"]


class Progress(Protocol):
    """One thing after another: ``start``, any number of ``advance``, ``done``; then perhaps the next ``start``."""

    def start(self, label: str, total: int) -> None:
        """Something begins that takes ``total`` steps (of any size; 0 where it is not known)."""

    def advance(self, steps: int) -> None:
        """``steps`` more are done."""

    def done(self) -> None:
        """What was started has ended."""


class _NoProgress:
    def start(self, label: str, total: int) -> None:
        pass

    def advance(self, steps: int) -> None:
        pass

    def done(self) -> None:
        pass


NO_PROGRESS: Progress = _NoProgress()
"""Tells nobody."""
