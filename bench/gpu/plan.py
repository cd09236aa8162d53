"""Which phases there are, and how long each may take of the time that is left. Pure, and of the standard library alone:
the process that runs the phases starts before anything is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["PHASES", "Phase", "chosen", "seconds_for"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A process of its own.

    Attributes:
        name: its file of results is named so.
        about: one line for people.
        most: seconds after which it is ended, though time may be left.
        least: seconds under which it is not worth starting; so much is kept for it while phases before it run. 0: it
            gets what the others leave.
        needs: phases without whose success it makes no sense.
        after: phases that it waits for, whatever comes of them.
        background: runs beside the ones that follow.
        quiet: nothing else works while it measures: what runs in the background stands still.
    """

    name: str
    about: str
    most: float
    least: float
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    background: bool = False
    quiet: bool = False


PHASES: Final = (
    Phase("environment", "what the machine has; wheels unpacked", most=60, least=5),
    Phase(
        "build-exllamav2", "compile ExLlamaV2's extension", most=300, least=0, needs=("environment",), background=True
    ),
    Phase(
        "build-exllamav3", "compile ExLlamaV3's extension", most=560, least=0, needs=("environment",), background=True
    ),
    Phase("weights", "packaged weights, and models with random ones", most=120, least=15, needs=("environment",)),
    Phase("ceilings", "matrix products and memory bandwidth", most=45, least=10, needs=("environment",), quiet=True),
    Phase(
        "quantise",
        "the small model at 4 bits (EXL2)",
        most=150,
        least=0,
        needs=("weights", "build-exllamav2"),
    ),
    Phase("tests", "pytest -m gpu", most=120, least=45, needs=("weights",), after=("build-exllamav2", "quantise")),
    Phase(
        "speed-large",
        "prefill and decode, the model that fills the card",
        most=120,
        least=50,
        needs=("weights",),
        after=("build-exllamav2", "ceilings"),
        quiet=True,
    ),
    Phase(
        "speed-small",
        "prefill, decode and shared prompts, the packaged model",
        most=75,
        least=25,
        needs=("weights",),
        after=("build-exllamav2", "quantise", "ceilings"),
        quiet=True,
    ),
    Phase(
        "method-small",
        "sentences a second of the whole method, the packaged model",
        most=120,
        least=60,
        needs=("weights",),
        after=("build-exllamav2", "quantise"),
        quiet=True,
    ),
    Phase(
        "method-large",
        "sentences a second of the whole method, the model that fills the card",
        most=90,
        least=45,
        needs=("weights",),
        after=("build-exllamav2",),
        quiet=True,
    ),
    Phase(
        "speed-exllamav3",
        "the same through ExLlamaV3",
        most=75,
        least=20,
        needs=("weights", "build-exllamav3"),
        quiet=True,
    ),
)


def chosen(names: Sequence[str] | None, *, cpu: bool, phases: Sequence[Phase] = PHASES) -> list[Phase]:
    """The phases that run: those that are named and what they need, or all; without a GPU nothing is compiled,
    quantised or tested.

    Raises:
        ValueError: there is no such phase.
    """
    by_name = {phase.name: phase for phase in phases}
    unknown = [name for name in names or () if name not in by_name]
    if unknown:
        raise ValueError(f"there is no phase {unknown[0]!r}; there are: {', '.join(by_name)}")
    if names is None:
        wanted = set(by_name)
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
    return phase.name.startswith("build-") or phase.name in ("quantise", "tests", "speed-exllamav3")


def seconds_for(phase: Phase, left: float, following: Sequence[Phase]) -> float:
    """Seconds that ``phase`` may take when ``left`` are left: no more than its own, and so that each foreground phase
    behind it can still be started, but never less than its least while there is so much: where time is short, those at
    the end give way. 0: it is left out. What runs in the background takes nobody's time."""
    if phase.background:
        return min(phase.most, max(left, 0.0))
    kept = sum(one.least for one in following if not one.background)
    given = min(phase.most, max(left - kept, phase.least))
    return given if 0 < given <= left else 0.0
