"""What the suite plays and for how long: seeds, how slow the machine is, when no further scenario is begun."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

__all__ = ["MINUTES", "MOST_SLOWNESS", "Budget", "machine_slowness", "seeds", "slowness_of"]

FIXED_SEEDS: Final = (1, 2)
MINUTES: Final = 60.0
"""For one seed on the reference machine, where it takes some 40 minutes with nothing else to do."""

AT_ONCE: Final = 4
"""Processes, as many as a scenario has stages."""
WORK: Final = "total = 0\nfor number in range(25_000_000):\n    total += number % 7\n"
REFERENCE_SECONDS: Final = 5.0
"""What they take for that work on two AVX2 cores with nothing else to do: 2.5 s of a core each."""
MOST_SLOWNESS: Final = 6.0
"""A machine that is slower than this cannot play the suite: sessions time out while nobody does anything wrong."""


def seeds(chosen: Sequence[int] | None, today: date) -> tuple[int, ...]:
    """Those that were chosen; otherwise two that are always the same, and one of the day, so that every day plays
    something that was never played and can be played again."""
    return tuple(chosen) if chosen else (*FIXED_SEEDS, int(today.strftime("%Y%m%d")))


def slowness_of(seconds: float) -> float:
    """From what the work took to the factor of all time limits: never below 1."""
    return min(MOST_SLOWNESS, max(1.0, seconds / REFERENCE_SECONDS))


def machine_slowness() -> float:
    """Measured now, by a fixed piece of work: it does not change with what is tested."""
    begun = time.monotonic()
    processes = [subprocess.Popen([sys.executable, "-S", "-c", WORK]) for _ in range(AT_ONCE)]
    for process in processes:
        process.wait()
    return slowness_of(time.monotonic() - begun)


@dataclass(frozen=True)
class Budget:
    """The suite's time. When it is over no further scenario is begun; the one that is played has its own time limit, so
    that a scenario has either all of its time or none.

    ``seconds``: on the reference machine; ``slowness``: asked for when it matters.
    """

    seconds: float
    slowness: Callable[[], float]
    begun: float
    monotonic: Callable[[], float] = time.monotonic

    def spent(self) -> str | None:
        """Why no further scenario is begun; None: one may be."""
        passed = self.monotonic() - self.begun
        if passed < self.seconds:
            return None
        limit = self.seconds * self.slowness() if self.seconds else 0.0
        return f"not run: the suite's {limit / 60:g} minutes are over" if passed >= limit else None
