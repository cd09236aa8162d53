"""Worker processes and who keeps them running: a process that ends is started again at once, as a platform does it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.reaper import ROOT, Reaper

__all__ = ["Fleet", "Place"]

_LOOK_EVERY_S: Final = 0.05
_STOP_SECONDS: Final = 45.0


@dataclass
class Place:
    """Where a worker runs: of the processes that run there one after another, the last one is :attr:`process`."""

    name: str
    stages: tuple[str, ...]
    environ: Mapping[str, str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    exits: list[int] = field(default_factory=list)
    wanted: bool = True
    started_at: float = 0.0

    @property
    def log(self) -> Path:
        """What the last process says."""
        return self.folder / f"{self.name}.{self.starts}.log"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether the last process has its partitions."""
        return self.alive and self.log.exists() and b'"event":"ready"' in self.log.read_bytes().replace(b" ", b"")


class Fleet:
    """The workers of one scenario. Safe to use while its own thread restarts what ends."""

    def __init__(self, config: Path, folder: Path, reaper: Reaper) -> None:
        self.places: list[Place] = []
        self._config = config
        self._folder = folder
        self._reaper = reaper
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="chaos-fleet", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Place]:
        return iter([place for place in self.places if place.wanted])

    def of(self, stage: str) -> list[Place]:
        """The places that run a stage."""
        return [place for place in self if stage in place.stages]

    def add(self, *stages: str, environ: Mapping[str, str] | None = None) -> Place:
        """One more worker."""
        with self._lock:
            name = f"{'-'.join(stages)}-{len(self.places) + 1}"
            place = Place(name, stages, dict(environ or {}), self._folder)
            self.places.append(place)
            self._start(place)
        return place

    def kill(self, place: Place) -> None:
        """``kill -9``; it is started again."""
        with self._lock:
            if place.alive and place.process is not None:
                place.process.kill()

    def replace(self, place: Place, *, environ: Mapping[str, str], seconds: float = _STOP_SECONDS) -> None:
        """Stop the worker in order and start it again, with another environment."""
        self._end(place, seconds)
        with self._lock:
            place.environ = dict(environ)
            self._start(place)
            place.wanted = True

    def remove(self, place: Place, *, seconds: float = _STOP_SECONDS) -> int:
        """Stop the worker in order (SIGTERM); the exit status."""
        return self._end(place, seconds)

    def pause(self, place: Place) -> None:
        """``kill -STOP``: it holds its connections and does nothing, like a machine that is swapped out."""
        with self._lock:
            if place.process is not None:
                place.process.send_signal(signal.SIGSTOP)

    def resume(self, place: Place) -> None:
        """``kill -CONT``."""
        with self._lock:
            if place.alive and place.process is not None:
                place.process.send_signal(signal.SIGCONT)

    def close(self) -> dict[str, int]:
        """Stop every worker in order, all at once; exit statuses by place. One that does not end is killed."""
        self._stop.set()
        self._thread.join(timeout=10)
        places = [place for place in self.places if place.alive]
        for place in places:
            place.wanted = False
            with contextlib.suppress(ProcessLookupError):
                if place.process is not None:
                    place.process.send_signal(signal.SIGCONT)
                    place.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + _STOP_SECONDS
        return {place.name: _wait(place, end - time.monotonic()) for place in places}

    def _end(self, place: Place, seconds: float) -> int:
        with self._lock:
            place.wanted = False
            if place.process is not None and place.alive:
                place.process.send_signal(signal.SIGTERM)
        status = _wait(place, seconds)
        place.exits.append(status)
        return status

    def _tend(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            with self._lock:
                for place in self.places:
                    if not place.wanted or place.alive or place.process is None:
                        continue
                    # At once, but for one that ends as soon as it has begun: platforms wait a little then.
                    if time.monotonic() - place.started_at > 1.0:
                        place.exits.append(place.process.returncode)
                        self._start(place)

    def _start(self, place: Place) -> None:
        place.starts += 1
        place.started_at = time.monotonic()
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"} and not name.startswith(("EL4NER_", "CHAOS_"))
        }
        with place.log.open("wb") as out:
            place.process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker", *place.stages, "--config", str(self._config)],
                cwd=ROOT,
                env={**inherited, "OMP_NUM_THREADS": "1", **place.environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C at the terminal is for the suite, which then stops its workers in order.
                start_new_session=True,
            )
        self._reaper.watch_child(place.process, str(self._config))


def _wait(place: Place, seconds: float) -> int:
    if place.process is None:
        return 0
    try:
        return place.process.wait(timeout=max(0.1, seconds))
    except subprocess.TimeoutExpired:
        place.process.kill()
        return place.process.wait(timeout=10)
