"""The commands that prove everything on a borrowed machine, with what each carries. Pure, of the standard library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu.loads import listed, loads_in
from gpu.plan import RUN_SECONDS

__all__ = ["LEASE_SECONDS", "MOST_CHARACTERS", "START_SECONDS", "Command", "commands", "in_words"]

MOST_CHARACTERS: Final = 2000
"""Of a command."""
LEASE_SECONDS: Final = 900
"""Of the machine, all commands together, and with its start."""
START_SECONDS: Final = 40
FIRST_SECONDS: Final = {True: 210, False: 270}
"""For the first load, with and without a prebuilt extension: without one it is compiled, and nothing can be tested."""
TAKE_SECONDS: Final = 10
SCRIPT: Final = "python3 bench/gpu/run.py"


@dataclass(frozen=True, slots=True)
class Command:
    """What is run on the machine, in the root of the repository's copy.

    Attributes:
        carry: folders that travel beside the repository's files.
        line: of the shell.
        seconds: it takes at most, with what begins and ends it.
        about: what comes of it.
    """

    carry: tuple[str, ...]
    line: str
    seconds: int
    about: str


def commands(loads: Path, root: Path, *, out: str = "build/gpu-bench") -> list[Command]:
    """For the loads that lie in ``loads`` (none: for a machine with everything).

    Args:
        loads: what pack.py filled, under ``root``.
        root: of the repository.
        out: where results go, as the shell there reads it.
    """
    folders = loads_in(loads)
    full = f"{SCRIPT} --minutes {RUN_SECONDS / 60:.2f} --out {out}"
    proof = "everything: tests, the whole method, prefill against the ceiling; table.md, results.json, log.txt"
    if not folders:
        return [Command((), full, RUN_SECONDS + TAKE_SECONDS, proof)]
    carried = [str(folder.resolve().relative_to(root.resolve())) for folder in folders]
    prebuilt = any(name.startswith("prebuilt/") for name in listed(folders[0]))
    named = []
    if len(folders) > 1:
        phases = "build-exllamav2,weights-large,tests" if prebuilt else "build-exllamav2,weights-large"
        seconds = FIRST_SECONDS[prebuilt]
        about = (
            "unpacks wheels, makes the large model, runs the tests on random weights: whether anything works at all"
            if prebuilt
            else "unpacks wheels, compiles the extension, makes the large model"
        )
        line = f"{SCRIPT} --only {phases} --minutes {seconds / 60:.2f} --out {out}/first"
        named.append(Command((carried[0],), line, seconds + TAKE_SECONDS, about))
        named += [
            Command((load,), f"{SCRIPT} --take", TAKE_SECONDS, "keeps a part of the weights") for load in carried[1:-1]
        ]
    named.append(Command((carried[-1],), full, RUN_SECONDS + TAKE_SECONDS, proof))
    return named


def in_words(named: list[Command]) -> str:
    """For people: what to carry, what to run, how long it takes."""
    lines = ["on one machine, one after the other without a pause (an idle machine may be taken back):"]
    for number, command in enumerate(named, start=1):
        carried = f"carry {', '.join(command.carry)}" if command.carry else "carry nothing"
        lines.append(f"{number}. {carried}; {command.seconds} s at most: {command.about}")
        lines.append(f"   {command.line}")
    total = START_SECONDS + sum(command.seconds for command in named)
    lines.append(f"together {total} s at most, with {START_SECONDS} s for the machine's start")
    return "\n".join(lines)
