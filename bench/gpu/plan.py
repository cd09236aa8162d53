"""Which phases there are, and how long each may take of the time that is left. Pure, and of the standard library alone:
the process that runs the phases starts before anything is installed."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["GOAL_PHASES", "PHASES", "RUN_SECONDS", "Phase", "chosen", "seconds_for"]


RUN_SECONDS: Final = 500
"""A run of so many seconds has everything that the goals need, with the extension prebuilt: GOAL_PHASES."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A process of its own.

    Attributes:
        name: its file of results is named so.
        about: one line for people.
        most: seconds after which it is ended, though time may be left (see :func:`seconds_for`).
        least: seconds under which it is not worth starting; so much is kept for it while phases before it run. 0: it
            gets what the others leave.
        needs: phases without whose success it makes no sense.
        after: phases that it waits for, whatever comes of them.
        patience: seconds that it waits for phases in the background. Then it goes on without those that it comes
            ``after``; while one is missing that it ``needs``, it is put behind all others.
        background: runs beside the ones that follow, and delays none of them: it starts when what it needs is done.
        quiet: nothing else works while it measures: what runs in the background stands still.
        optional: it is left out unless it is asked for.
    """

    name: str
    about: str
    most: float
    least: float
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    patience: float = math.inf
    background: bool = False
    quiet: bool = False
    optional: bool = False


PHASES: Final = (
    Phase("environment", "what the machine has; wheels unpacked", most=60, least=25),
    Phase(
        "build-exllamav2",
        "ExLlamaV2's extension: prebuilt, or compiled",
        most=300,
        least=0,
        needs=("environment",),
        background=True,
    ),
    Phase(
        "build-exllamav3",
        "compile ExLlamaV3's extension",
        most=560,
        least=0,
        needs=("environment",),
        background=True,
        optional=True,
    ),
    Phase("weights", "the packaged small model", most=35, least=15, needs=("environment",)),
    Phase(
        "weights-large",
        "a model of 7B's shape with random weights, at 16 and at 4 bits",
        most=180,
        least=0,
        needs=("weights",),
        background=True,
    ),
    Phase(
        "quantise",
        "the small model at 4 bits (EXL2)",
        most=240,
        least=0,
        needs=("weights", "build-exllamav2"),
        background=True,
    ),
    Phase("tests", "pytest -m gpu, all but EXL2", most=100, least=45, needs=("weights",), after=("build-exllamav2",)),
    Phase(
        "tests-exl2",
        "pytest -m gpu, what needs the small model in EXL2",
        most=60,
        least=20,
        needs=("quantise",),
        patience=150,
    ),
    Phase(
        "method-small",
        "sentences a second of the whole method, the packaged model",
        most=80,
        least=40,
        needs=("weights",),
        after=("build-exllamav2", "quantise"),
        patience=20,
        quiet=True,
    ),
    Phase(
        "method-large",
        "sentences a second of the whole method, the model that fills the card",
        most=85,
        least=50,
        needs=("weights-large",),
        after=("build-exllamav2",),
        quiet=True,
    ),
    Phase("ceilings", "matrix products and memory bandwidth", most=20, least=10, needs=("environment",), quiet=True),
    Phase(
        "speed-large",
        "prefill and decode, the model that fills the card",
        most=60,
        least=40,
        needs=("weights-large",),
        after=("build-exllamav2",),
        quiet=True,
    ),
    Phase(
        "speed-small",
        "prefill, decode and shared prompts, the packaged model",
        most=75,
        least=0,
        needs=("weights",),
        after=("build-exllamav2", "quantise"),
        patience=0,
        quiet=True,
    ),
    Phase(
        "speed-exllamav3",
        "the same through ExLlamaV3",
        most=75,
        least=0,
        needs=("weights", "weights-large", "build-exllamav3"),
        quiet=True,
        optional=True,
    ),
)
GOAL_PHASES: Final = (
    "environment",
    "weights",
    "tests",
    "tests-exl2",
    "method-small",
    "method-large",
    "ceilings",
    "speed-large",
)
"""Without what runs beside them: their limits fit RUN_SECONDS."""


def chosen(
    names: Sequence[str] | None, *, cpu: bool, options: Collection[str] = (), phases: Sequence[Phase] = PHASES
) -> list[Phase]:
    """The phases that run: those that are named and what they need, or all but the optional ones; without a GPU nothing
    is compiled, quantised or tested. ``options``: words that bring the optional phases with such a word in their name.

    Raises:
        ValueError: there is no such phase.
    """
    by_name = {phase.name: phase for phase in phases}
    unknown = [name for name in names or () if name not in by_name]
    if unknown:
        raise ValueError(f"there is no phase {unknown[0]!r}; there are: {', '.join(by_name)}")
    if names is None:
        asked = {phase.name for phase in phases if any(word in phase.name for word in options)}
        wanted = {phase.name for phase in phases if not phase.optional} | asked
    else:
        wanted = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in wanted:
                wanted.add(name)
                waiting.extend(by_name[name].needs)
    if cpu:
        wanted -= {phase.name for phase in phases if _needs_gpu(phase)}
    return [phase for phase in phases if phase.name in wanted]


def _needs_gpu(phase: Phase) -> bool:
    return phase.name.startswith("build-") or phase.name in ("quantise", "tests", "tests-exl2", "speed-exllamav3")


def seconds_for(phase: Phase, left: float, following: Sequence[Phase]) -> float:
    """Seconds that ``phase`` may take when ``left`` are left: no more than its own, and so that each foreground phase
    behind it can still be started, but never less than its least while there is so much: where time is short, those at
    the end give way. 0: it is left out. What runs in the background takes nobody's time.

    A phase that does not measure ends when it is done. It may take up to twice its own, of what those behind it would
    leave with all of theirs: much depends on it.
    """
    if phase.background:
        return min(phase.most, max(left, 0.0))
    behind = [other for other in following if not other.background]
    most = phase.most
    if not phase.quiet:
        spare = left - sum(other.most for other in behind if other.least)
        most = max(most, min(2 * most, spare))
    kept = sum(other.least for other in behind)
    seconds = min(most, max(left - kept, phase.least))
    return seconds if 0 < seconds <= left else 0.0
