"""A worker that has decided to end is gone within a bound, whatever it waits for; and says where it stood."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.hanging_end import App, Worker, waits
from tests.support.paths import ROOT
from workers import run
from workers.config import load_stream_settings
from workers.kafka import topic_admin
from workers.run import WorkerCrashedError, serve_workers
from workers.shutdown.ending import MARGIN_SECONDS, Ending
from workers.shutdown.stack_report import task_positions, thread_positions
from workers.shutdown.stopping import stop_workers
from workers.shutdown.watchdog import Watchdog
from workers.telemetry.web import HealthServer

BY_ITSELF: Final = {
    # what it waits for can be cancelled, or has a bound of its own: (exit status)
    "signal-none-none": 0,
    "crash-none-none": 1,
    **{f"signal-{place}-waits": 0 for place in ("drain", "commit", "release", "stop", "leave")},
    **{f"crash-{place}-waits": 1 for place in ("release", "stop", "leave")},
    "signal-engine-x": 0,
    "crash-engine-x": 1,
    # models that take their time, and nobody needs them any more
    "signal-load-x": 0,
}
ENDED: Final = {
    # what was begun is not known to be finished: 1
    **{f"signal-{place}-stubborn": 1 for place in ("drain", "commit", "release", "stop")},
    **{f"signal-{place}-blocks": 1 for place in ("drain", "commit", "release", "stop")},
    **{f"crash-{place}-{how}": 1 for place in ("release", "stop") for how in ("stubborn", "blocks")},
    "signal-loop-x": 1,
    "crash-loop-x": 1,
    # it is finished and committed: 0
    **{f"signal-{place}-x": 0 for place in ("task", "spans", "web", "executor", "thread", "atexit", "lock", "pipe")},
    **{f"crash-{place}-x": 1 for place in ("task", "spans", "web", "executor", "thread", "atexit", "lock", "pipe")},
    # the command's own: it cannot start; Ctrl-C for the second time
    "start-check-x": 2,
    "start-stop-stubborn": 2,
    "start-stop-blocks": 2,
    "twice-drain-stubborn": 130,
    "twice-drain-blocks": 130,
}
WITHOUT_PYTHON: Final = {"signal-native-x": 1, "crash-native-x": 1, "signal-exit-x": -14, "crash-exit-x": -14}
PLACES: Final = {
    "drain": "hanging_end.py",
    "commit": "commit_all",
    "release": "release",
    "stop": "stop",
    "loop": "begin_with",
    "task": "stubborn",
    "spans": "<lambda>",
    "web": "stubborn",
    "executor": "_worker",
    "thread": "left-behind",
    "atexit": "sleep_for_ever",
    "lock": "hold_the_log",
    "check": "left-behind",
}
"""What the line says of the place where it hung."""


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int | None], Path]:
    """How every process ended, and the folder of what they logged."""
    folder = tmp_path_factory.mktemp("ends")
    # Those that take longest first.
    cases = [*WITHOUT_PYTHON, *ENDED, *BY_ITSELF]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.hanging_end", str(folder), *cases],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=400,
    )
    return json.loads(done.stdout), folder


def lines(folder: Path, case: str) -> list[dict[str, Any]]:
    """The records among what a process wrote."""
    written = (folder / f"{case}.log").read_text(errors="replace").splitlines()
    return [json.loads(line) for line in written if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "status"), BY_ITSELF.items())
def test_a_worker_ends_by_itself_where_what_it_waits_for_can_be_given_up(
    ends: tuple[dict[str, int | None], Path], case: str, status: int
) -> None:
    statuses, folder = ends
    assert statuses[case] == status, (folder / f"{case}.log").read_text()
    assert not [line for line in lines(folder, case) if line.get("code") == "ended-by-watchdog"]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "status"), ENDED.items())
def test_whatever_hangs_at_the_end_the_process_is_gone_and_says_where_it_stood(
    ends: tuple[dict[str, int | None], Path], case: str, status: int
) -> None:
    statuses, folder = ends
    assert statuses[case] == status, (folder / f"{case}.log").read_text()
    place = case.split("-")[1]
    if place == "pipe":
        return  # nobody reads what it says
    (line,) = [line for line in lines(folder, case) if line.get("code") == "ended-by-watchdog"]
    assert line["level"] == "critical"
    assert line["exit_status"] == status
    assert any(PLACES[place] in position for position in [*line["threads"], *line["tasks"]])


@pytest.mark.slow
@pytest.mark.parametrize(("case", "status"), WITHOUT_PYTHON.items())
def test_a_process_ends_also_where_no_python_can_run_any_more(
    ends: tuple[dict[str, int | None], Path], case: str, status: int
) -> None:
    statuses, folder = ends
    assert statuses[case] == status
    if "native" in case:
        assert "hanging_end.py" in (folder / f"{case}.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [case for case in (*BY_ITSELF, *ENDED) if case.startswith(("crash", "start-stop")) and "pipe" not in case]
)
def test_who_crashes_leaves_its_group_before_anything_else(ends: tuple[dict[str, int | None], Path], case: str) -> None:
    written = (ends[1] / f"{case}.log").read_text(errors="replace")
    assert "LEFT" in written
    assert written.index("LEFT") < min(
        (written.find(later) for later in ("aggregate stopped", "ended-by-watchdog") if later in written),
        default=len(written),
    )


@pytest.mark.slow
def test_who_is_ended_has_left_its_group(ends: tuple[dict[str, int | None], Path]) -> None:
    for case in ENDED:
        if case != "start-check-x" and "pipe" not in case:
            assert "LEFT" in (ends[1] / f"{case}.log").read_text(), case


# --- the parts ---


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Dog:
    """What a watchdog was told."""

    def __init__(self) -> None:
        self.armed: list[tuple[float, int, str]] = []
        self.status: int | None = None
        self.before_end: Callable[[], Any] | None = None
        self.loops: list[asyncio.AbstractEventLoop] = []

    def arm(self, seconds: float, *, status: int, reason: str) -> None:
        self.armed.append((seconds, status, reason))
        self.status = status

    def settle(self, status: int) -> None:
        self.status = status


def left() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done


def test_a_signal_gives_the_time_to_finish_and_to_close() -> None:
    dog: Any = Dog()
    ending = Ending(30, watchdog=dog, monotonic=Clock())
    ending.signal(15)
    ending.signal(15)  # a supervisor that repeats itself
    assert dog.armed == [(30 + MARGIN_SECONDS, 1, "SIGTERM")]
    ending.finished()
    assert dog.status == 0


def test_ctrl_c_twice_waits_no_longer_and_sigterm_with_ctrl_c_is_not_twice() -> None:
    dog: Any = Dog()
    ending = Ending(30, watchdog=dog, monotonic=Clock())
    ending.signal(15)
    ending.signal(2)
    assert len(dog.armed) == 1
    ending.signal(2)
    assert dog.armed[-1] == (3.0, 130, "a second SIGINT")
    ending.finished()
    assert dog.status == 130


def test_a_crash_has_less_time_than_a_drain_and_its_own_status() -> None:
    dog: Any = Dog()
    ending = Ending(30, watchdog=dog, status_of=lambda _: 7, monotonic=Clock())
    ending.signal(15)
    ending.crash(RuntimeError("a bug"))
    ending.crash(RuntimeError("another one"))
    assert dog.armed[1:] == [(ending.close_seconds + MARGIN_SECONDS, 7, "RuntimeError: a bug")]
    ending.finished()
    assert dog.status == 7


def test_who_joins_its_group_after_the_crash_leaves_it_too() -> None:
    ending, leavers = Ending(30), []
    ending.crash(RuntimeError("early"))

    def leave() -> Future[None]:
        leavers.append("left")
        return left()

    ending.members([leave, leave])
    assert leavers == ["left", "left"]


def test_probes_hear_of_a_crash_at_once_and_of_a_stop_when_its_time_is_over() -> None:
    clock = Clock()
    ending = Ending(30, monotonic=clock)
    assert ending.problem() is None
    ending.stop()
    clock.now += 30
    assert ending.problem() is None
    clock.now += 5
    assert ending.problem() == "it was to stop 35 s ago and has not (worker.shutdown_seconds is 30)"
    ending.crash(ValueError("no"))
    assert ending.problem() == "it has given up, and ends: ValueError: no"


def test_a_watchdog_that_is_disarmed_ends_nothing() -> None:
    statuses: list[int] = []
    resorts: list[float | None] = []
    dog = Watchdog(end=statuses.append, last_resorts=resorts.append)
    dog.arm(1000, status=1, reason="a test")
    dog.arm(2000, status=2, reason="later counts for nothing but the status")
    dog.disarm()
    assert statuses == []
    assert resorts == [1003.0, None]


def test_a_group_that_cannot_be_left_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        ended.set()

    dog = Watchdog(end=end, last_resorts=lambda _: None)
    dog.before_end = lambda: [Future()]
    dog.arm(0.0, status=3, reason="a test")
    assert ended.wait(30)
    assert statuses == [3]
    (record,) = [record for record in caplog.records if getattr(record, "code", None) == "ended-by-watchdog"]
    assert record.__dict__["exit_status"] == 3


async def test_positions_are_bounded_and_name_the_innermost_call_first() -> None:
    many = [asyncio.ensure_future(waits(), loop=asyncio.get_running_loop()) for _ in range(60)]
    await asyncio.sleep(0)
    told = task_positions([asyncio.get_running_loop()])
    assert len(told) == 41
    assert told[-1] == "… and 21 more"
    assert any(": asyncio/locks.py" in one and one.endswith("waits") for one in told)
    assert all(len(one) <= 500 for one in [*told, *thread_positions()])
    for task in many:
        task.cancel()


# --- workers inside somebody else's process ---


@pytest.fixture
async def app(monkeypatch: pytest.MonkeyPatch) -> App:
    """That of the worker which ``serve_workers`` runs; ``fatal`` is what crashes it."""
    app = App({}, lambda: None)

    def build(_stage: str, _settings: Any, _owner: Any, fatal: Callable[[BaseException], None], *_: Any) -> Worker:
        app.fatal = fatal  # type: ignore[attr-defined]
        return Worker(app)

    monkeypatch.setattr(run, "_build", build)
    monkeypatch.setattr(topic_admin, "check", lambda *_: [])
    return app


async def livez(port: int) -> tuple[int, dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("how", ["crash", "stop"])
async def test_livez_fails_from_the_moment_that_a_worker_gives_up_though_its_end_hangs(
    app: App, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    ports: list[int] = []
    start = HealthServer.start

    async def started(self: HealthServer) -> None:
        await start(self)
        ports.append(self.port)

    monkeypatch.setattr(HealthServer, "start", started)
    clock, end, asked = Clock(), asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        asked.set()
        await end.wait()

    app.hang = {"stop": hangs, "drain": hangs}
    settings = load_stream_settings(environ={"EL4NER_WORKER__WEB_PORT": "0"})
    ready, stop, ending = asyncio.Event(), asyncio.Event(), Ending(30, monotonic=clock)
    serving = asyncio.ensure_future(serve_workers(settings, ["aggregate"], stop=stop, ready=ready.set, ending=ending))
    await ready.wait()
    assert (await livez(ports[0]))[0] == 200
    if how == "crash":
        # From another thread, and before the loop has had its turn.
        await asyncio.to_thread(app.fatal, RuntimeError("a bug"))  # type: ignore[attr-defined]
        status, details = await livez(ports[0])
        assert (status, details["problems"]) == (
            503,
            ["it has given up, and ends: RuntimeError: a bug"],
        )
        end.set()
        with pytest.raises(WorkerCrashedError, match="a bug"):
            await serving
        return
    stop.set()
    await asked.wait()
    assert (await livez(ports[0]))[0] == 200
    clock.now += 31
    status, details = await livez(ports[0])
    assert status == 503
    assert "was to stop" in details["problems"][0]
    end.set()
    await serving


async def test_a_drain_is_given_up_when_a_worker_crashes_meanwhile(app: App) -> None:
    """What the others finish they could not commit: all of them have left their groups."""
    app.hang = {"drain": waits}
    ending = Ending(10_000)
    crashed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    ending.stop()
    stopping = asyncio.ensure_future(stop_workers([Worker(app)], ending, crashed))
    await asyncio.sleep(0)
    ending.crash(RuntimeError("a bug"))
    crashed.set_result(RuntimeError("a bug"))
    await asyncio.wait_for(stopping, 60)


async def test_nothing_of_an_embedding_process_is_ended(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os._exit", lambda status: pytest.fail(f"ended with {status}"))
    ready, stop = asyncio.Event(), asyncio.Event()
    app.hang = {"stop": waits}
    settings = load_stream_settings(environ={"EL4NER_WORKER__SHUTDOWN_SECONDS": "0.01"})
    serving = asyncio.ensure_future(serve_workers(settings, ["aggregate"], stop=stop, ready=ready.set))
    await ready.wait()
    stop.set()
    await serving
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]
