"""``python -m tests.support.hanging_end FOLDER CASE…``: worker processes whose end hangs, each in its own place.

A case is ``WHY-PLACE-HOW``, as in ``signal-drain-stubborn``. Each is a process that is forked off this one, so that
imports are paid once: ``python -m workers`` with a worker that needs no broker. What it logs is in ``FOLDER/CASE.log``;
this program writes a JSON object of exit statuses, null for a process that had to be killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from workers import run
from workers.__main__ import main
from workers.kafka import topic_admin
from workers.shutdown import ending, watchdog
from workers.telemetry.trace_spans import NoSpans
from workers.telemetry.web import HealthServer
from workers.topics import TopicError

PATIENCE_SECONDS: Final = 40.0
AT_ONCE: Final = 12
LATER_SECONDS: Final = 0.05
EVER: Final = 10_000.0


async def waits() -> None:
    """As a library that can be cancelled."""
    await asyncio.Event().wait()


async def stubborn() -> None:
    """As a library that swallows its cancellation."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def blocks() -> None:
    """As a library that stops the event loop."""
    time.sleep(EVER)  # that is the point


HOW: Final = {"waits": waits, "stubborn": stubborn, "blocks": blocks}


class Positions:
    """Of a worker without messages."""

    stuck_seconds = 0.0
    in_flight = 0

    def pause(self) -> None:
        """Nothing is read anyway."""


class App:
    """What :mod:`workers.run` asks of a stage's app. ``hang`` says what each place does: nothing unless it is there."""

    stage = "aggregate"
    started = True
    stopping = False
    lag = None

    def __init__(self, hang: dict[str, Callable[[], Coroutine[Any, Any, None]]], begin: Callable[[], None]) -> None:
        self.hang = hang
        self.begin = begin
        self.ready = asyncio.Event()
        self.positions = Positions()
        self.lags: dict[tuple[str, int], int] = {}
        self.consumer = self
        self.consumer_loop = asyncio.get_running_loop()

    async def at(self, place: str) -> None:
        if place in self.hang:
            await self.hang[place]()

    async def start(self) -> None:
        await self.at("start")
        self.ready.set()
        asyncio.get_running_loop().call_later(LATER_SECONDS, self.begin)

    async def prepared(self) -> None:
        """Nothing is taken over."""

    async def commit_all(self) -> None:
        await self.at("commit")

    async def stop(self) -> None:
        await self.at("stop")

    def leave(self) -> Future[None]:
        os.write(2, b"LEFT\n")
        left: Future[None] = Future()
        if "leave" not in self.hang:
            left.set_result(None)
        return left


class Worker:
    """Its worker."""

    batch_seconds = None
    documents = failures = 0
    stuck_seconds = 0.0

    def __init__(self, app: App) -> None:
        self.app = app

    async def drain(self) -> None:
        await self.app.at("drain")

    async def release(self) -> None:
        await self.app.at("release")


def child(case: str) -> int:
    """The worker process; its exit status is that of :func:`workers.__main__.main`."""
    why, place, how = case.split("-")
    stages = ["aggregate"]
    # As in production, on another scale; but where nothing is waited for in vain a busy machine has time enough.
    ends_by_itself = how == "waits" or place in ("none", "engine", "load")
    ending.MARGIN_SECONDS = 30.0 if ends_by_itself else 3.0  # type: ignore[misc]
    ending.CLOSE_SECONDS = run.CLOSE_SECONDS = ending._AGAIN_SECONDS = 0.3  # type: ignore[misc,attr-defined]
    if place not in ("native", "exit"):
        watchdog._NATIVE_SECONDS = 60.0  # type: ignore[misc]
    if place != "pipe":
        watchdog._LEAVE_SECONDS = watchdog._WRITE_SECONDS = 15.0  # type: ignore[misc]
        if place != "lock":
            watchdog._LOG_SECONDS = 15.0  # type: ignore[misc]
    os.environ |= {"EL4NER_WORKER__SHUTDOWN_SECONDS": "0.4", "EL4NER_WORKER__LOG_FORMAT": "json"}
    # The pools are taught nothing: there is no broker.
    os.environ |= {"EL4NER_REDIS__ENABLED": "false", "EL4NER_WORKER__WEB_PORT": "0"}
    os.environ["EL4NER_WORKER__FOLLOW_EXAMPLES"] = "false"
    topic_admin.check = lambda *_: []
    hang = {place: HOW[how]} if how in HOW else {}
    if why == "start" and place == "stop":
        hang["start"] = fails
    tasks: list[asyncio.Future[None]] = []

    def begin_with(fatal: Callable[[BaseException], None]) -> None:
        if place == "loop":
            # While it stands still the reason to end comes.
            threading.Timer(LATER_SECONDS, end_with, [fatal]).start()
            time.sleep(EVER)
        elif place == "native":
            threading.Timer(LATER_SECONDS, end_with, [fatal]).start()
            time.sleep(2 * LATER_SECONDS)
            ctypes.PyDLL(None).sleep(int(EVER))  # with the interpreter's lock
        if place == "task":
            tasks.append(asyncio.ensure_future(stubborn()))
        elif place == "executor":
            asyncio.get_running_loop().run_in_executor(None, time.sleep, EVER)
        end_with(fatal)

    def end_with(fatal: Callable[[BaseException], None]) -> None:
        if why == "crash":
            fatal(RuntimeError("a bug"))
        else:
            os.kill(os.getpid(), signal.SIGINT if why == "twice" else signal.SIGTERM)
        if why == "twice":
            threading.Timer(LATER_SECONDS, os.kill, [os.getpid(), signal.SIGINT]).start()

    def build(_stage: str, _settings: Any, _owner: Any, fatal: Callable[[BaseException], None], *_: Any) -> Worker:
        return Worker(App(hang, lambda: begin_with(fatal)))

    run._build = build  # type: ignore[assignment]
    if place == "spans":
        NoSpans.close = lambda *_: time.sleep(EVER)  # type: ignore[method-assign]
    elif place == "web":
        HealthServer.stop = lambda _: stubborn()  # type: ignore[method-assign]
    elif place in ("engine", "load"):
        stages = ["extract"]
        fake: Any = types.ModuleType("el4ner.loader")
        engine = types.SimpleNamespace(close=sleep_for_ever, mixes={}, pools={}, unread_pools=[])

        def load(*_: Any, **__: Any) -> Any:
            if place == "load":
                threading.Timer(LATER_SECONDS, end_with, [fail_and_hang]).start()
                time.sleep(EVER)
            return engine

        fake.load_pipeline = fake.load_members = load
        sys.modules["el4ner.loader"] = fake
    elif place == "thread":
        threading.Thread(target=time.sleep, args=[EVER], name="left-behind").start()
    elif place == "atexit":
        atexit.register(sleep_for_ever)
    elif place == "exit":
        # A native library's exit handler: it runs when there is no interpreter any more.
        libc = ctypes.CDLL(None)
        at_exit = libc.__getattr__("__cxa_atexit")
        at_exit(ctypes.cast(libc.pause, ctypes.c_void_p), None, None)
    elif place == "lock":
        atexit.register(hold_the_log)
    elif place == "pipe":
        atexit.register(fill_the_log)
    elif place == "check":
        topic_admin.check = fail_and_hang
    return main(stages)


def sleep_for_ever() -> None:
    """What an engine does that cannot be closed, or a library at the interpreter's exit."""
    time.sleep(EVER)


async def fails() -> None:
    """A worker that cannot start."""
    raise TopicError("no such group")


def fail_and_hang(*_: Any) -> None:
    """There is no broker, and the thread that looked for one left another one behind."""
    threading.Thread(target=time.sleep, args=[EVER], name="left-behind").start()
    raise TopicError("no broker")


def hold_the_log() -> None:
    """A thread that hangs has the lock of the log's handler."""
    logging.getLogger().handlers[0].acquire()
    time.sleep(EVER)


def fill_the_log() -> None:
    """Standard error is a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.set_inheritable(reader, True)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(65536))
    os.set_blocking(writer, True)
    time.sleep(EVER)


def start(case: str, folder: Path) -> int:
    """The process id of the case's worker; does not return in that process."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open(folder / f"{case}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    sys.exit(child(case))


def outcomes(cases: Sequence[str], folder: Path) -> dict[str, int | None]:
    """Exit statuses; None: it had to be killed."""
    statuses: dict[str, int | None] = {}
    waiting, running = list(cases), dict[str, tuple[int, float]]()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            case = waiting.pop(0)
            running[case] = start(case, folder), time.monotonic() + PATIENCE_SECONDS
        for case, (pid, until) in list(running.items()):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                statuses[case] = None if time.monotonic() > until else os.waitstatus_to_exitcode(status)
                del running[case]
        time.sleep(0.02)
    return statuses


if __name__ == "__main__":
    sys.stdout.write(json.dumps(outcomes(sys.argv[2:], Path(sys.argv[1]))))
