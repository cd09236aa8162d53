"""What ``/livez``, ``/readyz`` and ``/healthz`` answer: from progress, not from being alive.

What Faust's users report most is a consumer that hangs in a process that answers (#175, #523, #596, #629). So a worker
lives while its partitions with messages get on and no engine is past its deadline; a platform that restarts a worker
that does not live heals it, since nothing unfinished is committed. A worker that has given up (it has crashed, or has
not stopped in time) does not live, whatever it still waits for. It is ready when it has partitions and models, which a
rolling upgrade waits for; losing them for a rebalance is no reason to restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from workers.telemetry.metrics import Metrics

__all__ = ["Health", "StageHealth", "observe_stages"]

Report = Callable[[], "Sequence[StageHealth]"]
Problems = Callable[["StageHealth"], list[str]]


@dataclass(frozen=True, slots=True)
class StageHealth:
    """How a stage of this process is at this moment.

    Attributes:
        stage: its name.
        ready: it has its partitions, and its models are loaded.
        stopping: it drains, and takes no new messages.
        stuck_seconds: for how long a partition that has messages has not got on, where it should have. A join that
            waits for the answers of other stages is not stuck.
        batch_seconds: age of the batch that is at the engine; None: none is.
        in_flight: messages that were taken and are not finished.
        lag: messages in its partitions that are not finished; None: not known yet.
        documents: messages answered since the start.
        failures: of those, the ones that were given up.
    """

    stage: str
    ready: bool
    stopping: bool = False
    stuck_seconds: float = 0.0
    batch_seconds: float | None = None
    in_flight: int = 0
    lag: int | None = None
    documents: int = 0
    failures: int = 0


class Health:
    """What is wrong with the stages, in words.

    Args:
        report: gives the stages as they are now. None of them: the process has only begun to start.
        stall_seconds: ``worker.stall_seconds``.
        batch_deadline_seconds: ``worker.batch_deadline_seconds``; None: an engine may take as long as it likes.
        given_up: why the whole process is not worth keeping; None: it is.
    """

    def __init__(
        self,
        report: Report,
        *,
        stall_seconds: float,
        batch_deadline_seconds: float | None = None,
        given_up: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._report = report
        self._stall = stall_seconds
        self._deadline = batch_deadline_seconds
        self._given_up = given_up

    def live(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether the process is worth keeping, and the details as JSON data."""
        return self._judge(self._hangs, starting=True)

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether every stage works on messages, and the details as JSON data."""
        return self._judge(self._waits, starting=False)

    def well(self) -> tuple[bool, Mapping[str, Any]]:
        """Both."""
        return self._judge(lambda stage: self._hangs(stage) + self._waits(stage), starting=False)

    def _judge(self, problems_of: Problems, *, starting: bool) -> tuple[bool, Mapping[str, Any]]:
        """``starting``: whether it is well when there are no stages yet."""
        stages = {}
        report = self._report()
        well = bool(report) or starting
        for stage in report:
            problems = problems_of(stage)
            well = well and not problems
            details = asdict(stage)
            del details["stage"]
            stages[stage.stage] = {**details, "stalled": self._stalls(stage), "problems": problems}
        if (reason := self._given_up()) is not None:
            return False, {"status": "unwell", "problems": [reason], "stages": stages}
        return well, {"status": "ok" if well else "unwell", "stages": stages}

    def _stalls(self, stage: StageHealth) -> bool:
        # A stage that drains ends by itself, within worker.shutdown_seconds.
        return stage.stuck_seconds > self._stall and not stage.stopping

    def _hangs(self, stage: StageHealth) -> list[str]:
        problems = []
        if self._stalls(stage):
            problems.append(
                f"a partition has had messages for {stage.stuck_seconds:.0f} s and has not got on"
                f" (worker.stall_seconds is {self._stall:g})"
            )
        if self._deadline is not None and stage.batch_seconds is not None and stage.batch_seconds > self._deadline:
            problems.append(
                f"a batch has been at the engine for {stage.batch_seconds:.0f} s"
                f" (worker.batch_deadline_seconds is {self._deadline:g})"
            )
        return problems

    def _waits(self, stage: StageHealth) -> list[str]:
        if stage.stopping:
            return ["it is stopping: what was begun is finished, nothing new is taken"]
        return [] if stage.ready else ["it has no partitions yet, or its models are still being loaded"]


def observe_stages(metrics: Metrics, report: Report) -> None:
    """Have the gauges of the stages read from ``report`` too: what probes see and what graphs show is the same."""

    def gauge(value: Callable[[StageHealth], float]) -> Callable[[], Mapping[tuple[str, ...], float]]:
        return lambda: {(stage.stage,): value(stage) for stage in report()}

    metrics.observe("el4ner_stage_ready", gauge(lambda stage: stage.ready and not stage.stopping))
    metrics.observe("el4ner_stage_stuck_seconds", gauge(lambda stage: stage.stuck_seconds))
    metrics.observe("el4ner_messages_in_flight", gauge(lambda stage: stage.in_flight))
    metrics.observe("el4ner_batch_age_seconds", gauge(lambda stage: stage.batch_seconds or 0.0))
