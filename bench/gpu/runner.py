"""Phases as processes, one after the other or beside each other, each ended when its time is over.

A phase that fails, dies or hangs costs its own result and nobody else's. After each one, and while one runs, everything
that is known is written, so that whoever ends this process from outside has what there was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

    def run(self) -> dict[str, Outcome]:
        """All phases. Whatever ends this, no process of a phase is left."""
        running: list[_Running] = []
        try:
            for index, phase in enumerate(self._phases):
                self._one(phase, self._phases[index + 1 :], running)
            while self._background:
                self._poll()
        finally:
            for one in [*running, *self._background.values()]:
                _end(one.process)
        self._show(self._outcomes)
        return self._outcomes

    def _one(self, phase: Phase, following: Sequence[Phase], running: list[_Running]) -> None:
        # What it waits for may take the time of nobody behind it, nor its own.
        reserve = phase.least + sum(one.least for one in following if not one.background)
        while set(self._background) & {*phase.needs, *phase.after} and self._clock() < self._end - reserve:
            self._poll()
        reason = self._reason_to_skip(phase)
        seconds = seconds_for(phase, self._end - self._clock(), following)
        if reason is None and not seconds:
            reason = "no time was left"
        if reason is not None:
            self._settle(phase, {"state": "skipped", "seconds": 0.0, "why": reason})
            return
        if phase.background:
            self._background[phase.name] = self._start(phase, seconds, [])
            self._outcomes[phase.name] = {"state": "running", "seconds": 0.0}
            return
        one = self._start(phase, seconds, [])
        running.append(one)
        self._outcomes[phase.name] = {"state": "running", "seconds": 0.0}
        if phase.quiet:
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
                self._stand_still(False)
        running.clear()
        self._settle(phase, outcome)

    def _reason_to_skip(self, phase: Phase) -> str | None:
        for name in phase.needs:
            if name in self._background:
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
                _signal(one.process, signal.SIGSTOP)
                one.stopped_at = self._clock()
            elif not still and one.stopped_at is not None:
                _signal(one.process, signal.SIGCONT)
                one.stood += self._clock() - one.stopped_at
                one.stopped_at = None


def _keep_rows(second: Outcome, first: Outcome) -> None:
    """What was measured before the crash counts where it was not measured again."""
    for table, rows in first.get("rows", {}).items():
        known = second.setdefault("rows", {}).setdefault(table, [])
        engines = {row.get("engine") for row in known}
        known.extend(row for row in rows if row.get("engine") not in engines)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and everything that it started."""
    if process.poll() is None:
        _signal(process, signal.SIGCONT)
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()
