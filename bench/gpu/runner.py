"""Phases as processes, one after the other or beside each other, each ended when its time is over.

A phase that fails, dies or hangs costs its own result and nobody else's. After each one, and while one runs, everything
that is known is written, so that whoever ends this process from outside has what there was.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gpu.plan import Phase, seconds_for
from gpu.record import read, write_json

__all__ = ["LOST", "Outcome", "Runner"]

LOST: Final = 70
"""Exit status of a phase whose GPU context is lost: whatever is asked of it afterwards fails, whoever asks."""
POLL_SECONDS: Final = 0.2
SHOWN_EVERY_SECONDS: Final = 10.0
GRACE_SECONDS: Final = 5.0
"""What a phase that is told to end has until it is killed."""

Outcome = dict[str, Any]
"""``state`` (running, done, failed, crashed, out of time, skipped), ``seconds``, ``why``, and what its record holds."""


@dataclass(slots=True)
class _Running:
    phase: Phase
    process: subprocess.Popen[bytes]
    began: float
    limit: float
    stood: float = 0.0
    """Seconds that it was made to stand still: these are not its own."""
    stopped_at: float | None = None
    without: list[str] = field(default_factory=list)


class Runner:
    """Runs phases within a time.

    Args:
        phases: in order.
        seconds: for all of them.
        work: where contexts and records of phases are kept.
        command: what starts a phase, from its context file and its record file.
        environment: variables of the phases.
        log: what they print.
        context: given to every phase, beside ``seconds``, ``without`` and ``results`` (of the phases before it).
        show: called with all outcomes, whenever something is new and every some seconds.
        clock: seconds, growing.
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        *,
        seconds: float,
        work: Path,
        command: Callable[[Phase, Path, Path], Sequence[str]],
        environment: Mapping[str, str],
        log: Path,
        context: Mapping[str, Any],
        show: Callable[[Mapping[str, Outcome]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._phases = list(phases)
        self._work = work
        self._command = command
        self._environment = dict(environment)
        self._log = log
        self._context = dict(context)
        self._show = show
        self._clock = clock
        self._end = clock() + seconds
        self._shown = clock()
        self._outcomes: dict[str, Outcome] = {}
        self._background: dict[str, _Running] = {}
        self._pending: list[Phase] = []
        """Of the background, waiting for what they need."""
        self._quiet = False

    def run(self) -> dict[str, Outcome]:
        """All phases. Whatever ends this, no process of a phase is left."""
        running: list[_Running] = []
        waiting = list(self._phases)
        try:
            while waiting:
                phase = waiting.pop(0)
                if phase.background:
                    self._pending.append(phase)
                    self._start_pending()
                elif not self._one(phase, waiting, running):
                    waiting.append(replace(phase, patience=math.inf))
            while self._background or self._pending:
                self._poll()
        finally:
            for one in [*running, *self._background.values()]:
                _end(one.process)
        self._show(self._outcomes)
        return self._outcomes

    def _one(self, phase: Phase, following: Sequence[Phase], running: list[_Running]) -> bool:
        """Run a phase of the foreground. False: what it needs is not ready, and others can go before it."""
        # What it waits for may take the time of nobody behind it, nor its own.
        reserve = phase.least + sum(one.least for one in following if not one.background)
        patience = self._clock() + phase.patience
        while self._unsettled({*phase.needs, *phase.after}) and self._clock() < min(self._end - reserve, patience):
            self._poll()
        if self._unsettled(phase.needs) and self._clock() < self._end - reserve and following:
            return False
        reason = self._reason_to_skip(phase)
        seconds = seconds_for(phase, self._end - self._clock(), following)
        if reason is None and not seconds:
            reason = "no time was left"
        if reason is not None:
            self._settle(phase, {"state": "skipped", "seconds": 0.0, "why": reason})
            return True
        one = self._start(phase, seconds, [])
        running.append(one)
        self._outcomes[phase.name] = {"state": "running", "seconds": 0.0}
        if phase.quiet:
            self._quiet = True
            self._stand_still(True)
        try:
            outcome = self._wait(one)
            guilty = outcome.get("doing")
            again = seconds_for(phase, self._end - self._clock(), following)
            if outcome["state"] == "crashed" and guilty and again:
                # A driver that took the process with it: the others get their turn without it.
                retry = self._start(phase, again, [str(guilty)])
                running.append(retry)
                second = self._wait(retry)
                second["problems"] = [
                    *outcome.get("problems", []),
                    {"what": guilty, "error": f"{outcome['why']}; measured again without it", "kind": "crash"},
                    *second.get("problems", []),
                ]
                _keep_rows(second, outcome)
                outcome = second
        finally:
            if phase.quiet:
                self._quiet = False
                self._stand_still(False)
        running.clear()
        self._settle(phase, outcome)
        return True

    def _unsettled(self, names: Iterable[str]) -> bool:
        """Whether one of them runs in the background, or will."""
        pending = {phase.name for phase in self._pending}
        return any(name in self._background or name in pending for name in names)

    def _start_pending(self) -> None:
        """Start the phases of the background that need not wait any more."""
        if self._quiet:
            return
        for phase in list(self._pending):
            if self._unsettled(phase.needs):
                continue
            self._pending.remove(phase)
            reason = self._reason_to_skip(phase)
            seconds = seconds_for(phase, self._end - self._clock(), ())
            if reason is None and not seconds:
                reason = "no time was left"
            if reason is not None:
                self._settle(phase, {"state": "skipped", "seconds": 0.0, "why": reason})
            else:
                self._background[phase.name] = self._start(phase, seconds, [])
                self._outcomes[phase.name] = {"state": "running", "seconds": 0.0}

    def _reason_to_skip(self, phase: Phase) -> str | None:
        for name in phase.needs:
            if self._unsettled([name]):
                return f"{name} was not ready in time"
            outcome = self._outcomes.get(name)
            if outcome is None or outcome["state"] != "done":
                said = "was not run" if outcome is None else outcome.get("why") or outcome["state"]
                return f"{name}: {said}".splitlines()[0]
        return None

    def _start(self, phase: Phase, seconds: float, without: list[str]) -> _Running:
        given = self._work / f"{phase.name}.context.json"
        found = self._work / f"{phase.name}.record.json"
        found.unlink(missing_ok=True)
        write_json(given, {**self._context, "seconds": seconds, "without": without, "results": self._outcomes})
        with self._log.open("ab") as log:
            log.write(f"\n=== {phase.name} ({seconds:.0f} s) ===\n".encode())
            log.flush()
            process = subprocess.Popen(
                [*self._command(phase, given, found)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,  # so that its compilers end with it
            )
        return _Running(phase, process, self._clock(), seconds, without=without)

    def _wait(self, one: _Running) -> Outcome:
        while True:
            outcome = self._state(one)
            if outcome is not None:
                return outcome
            self._poll()

    def _poll(self) -> None:
        time.sleep(POLL_SECONDS)
        for name, one in list(self._background.items()):
            outcome = self._state(one)
            if outcome is not None:
                del self._background[name]
                self._settle(one.phase, outcome)
        self._start_pending()
        if self._clock() - self._shown > SHOWN_EVERY_SECONDS:
            self._shown = self._clock()
            for name, outcome in self._outcomes.items():
                if outcome["state"] == "running":
                    outcome.update(read(self._work / f"{name}.record.json"))
            self._show(self._outcomes)

    def _state(self, one: _Running) -> Outcome | None:
        """What came of it; None while it runs and may."""
        code = one.process.poll()
        now = self._clock()
        worked = now - one.began - one.stood - (now - one.stopped_at if one.stopped_at is not None else 0.0)
        late = worked > one.limit or now > self._end
        if code is None and not late:
            return None
        if code is None:
            _end(one.process)
        found = read(self._work / f"{one.phase.name}.record.json")
        outcome: Outcome = {"seconds": worked, **found}
        if code is None:
            doing = f" at {found['doing']}" if found.get("doing") else ""
            outcome |= {"state": "out of time", "why": f"ended after {worked:.0f} s{doing}"}
        elif code == 0:
            outcome |= {"state": "done"}
        elif code == LOST:
            outcome |= {"state": "crashed", "why": "the GPU's context was lost"}
        elif code < 0:
            outcome |= {"state": "crashed", "why": f"the process died of {signal.Signals(-code).name}"}
        else:
            problems = found.get("problems") or [{"error": f"exit status {code}: see the log"}]
            # A process that said why it failed has failed; one that left without a word has crashed.
            state = "failed" if found.get("problems") else "crashed"
            outcome |= {"state": state, "why": problems[-1]["error"]}
        return outcome

    def _settle(self, phase: Phase, outcome: Outcome) -> None:
        self._outcomes[phase.name] = outcome
        self._show(self._outcomes)

    def _stand_still(self, still: bool) -> None:
        for one in self._background.values():
            if still and one.stopped_at is None:
                _stop(one.process)
                one.stopped_at = self._clock()
            elif not still and one.stopped_at is not None:
                _go_on(one.process)
                one.stood += self._clock() - one.stopped_at
                one.stopped_at = None


def _keep_rows(second: Outcome, first: Outcome) -> None:
    """What was measured before the crash counts where it was not measured again."""
    for table, rows in first.get("rows", {}).items():
        known = second.setdefault("rows", {}).setdefault(table, [])
        engines = {row.get("engine") for row in known}
        known.extend(row for row in rows if row.get("engine") not in engines)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals, others: Iterable[int] = ()) -> None:
    """To the process, its group, and ``others``."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    for pid in others:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Have the process stand still, and all that it started: converters and compilers are in sessions of their own."""
    _signal(process, signal.SIGSTOP)
    stopped: set[int] = set()
    while more := set(_descendants(process.pid)) - stopped:  # one that was not stopped yet may start others
        _signal(process, signal.SIGSTOP, more)
        stopped |= more


def _go_on(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGCONT, _descendants(process.pid))


def _descendants(pid: int) -> list[int]:
    """Of a process that runs: all that it started, and what these started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name, in brackets, may have spaces and brackets itself.
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    reached: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        reached += below
        waiting += below
    return reached


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and everything that it started."""
    others = _descendants(process.pid) if process.poll() is None else []
    if process.poll() is None:
        _go_on(process)
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal(process, signal.SIGKILL, others)
    process.wait()
