"""What may happen to a worker's process, and to the machine under it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.run import STAGES, Check, Run, documents

__all__ = ["both_topologies", "clock_jump", "disk_full", "kill_workers", "paused_consumer", "paused_owner", "scale"]

KILLS = 20
DOCUMENTS = 20_000
SESSION_SECONDS = 6.0
HOURS = 3600.0


def kill_workers(run: Run) -> Check | None:
    """kill -9 of each kind of worker at random moments, 20 times over 20,000 documents."""
    run.deploy()
    run.load(documents(run.random, DOCUMENTS), per_second=90)
    run.wait_tagged(200)
    victims = [*run.roles] * (KILLS // len(run.roles))
    run.random.shuffle(victims)
    # Two in short order, so that the second one hits the first one's recovery; then until results come again.
    for pair in zip(victims[::2], victims[1::2], strict=True):
        for stage in pair:
            run.pause(run.random.uniform(0.0, 3.0))
            (place,) = run.fleet.of(stage)
            run.wait(lambda place=place: place.alive, f"{place.name} to run")  # type: ignore[misc]
            run.fault()
            run.fleet.kill(place)
        run.pause(1.0)
        run.wait_more(100)
    if len(run.watch.seen) == DOCUMENTS:
        raise AssertionError("every document was out before the last kill: the load is too small for this machine")
    return None


def scale(run: Run) -> Check | None:
    """Workers added and removed under load."""
    run.deploy()
    run.load(documents(run.random, 6_000), per_second=130)
    run.wait_tagged(200)
    statuses = []
    for _ in range(10):
        run.pause(run.random.uniform(0.5, 4.0))
        # One that is still starting ends as Python does; whoever is ready ends in order.
        spare = [
            place
            for stage in run.roles
            if len(own := [one for one in run.fleet.of(stage) if one.ready]) > 1
            for place in own
        ]
        run.fault()
        if spare and (len(spare) > 4 or run.random.random() < 0.5):
            place = run.random.choice(spare)
            statuses.append((place.name, run.fleet.remove(place)))
        else:
            run.fleet.add(run.random.choice(run.roles))

    def check(_: object) -> None:
        failed = [(name, status) for name, status in statuses if status != 0]
        assert not failed, f"workers that were told to stop did not end with status 0: {failed}"

    return check


def paused_owner(run: Run) -> Check | None:
    """One of two workers of all stages is paused past the session timeout, three times."""
    run.deploy(pipeline=2)
    run.load(documents(run.random, 7_000), per_second=120)
    run.wait_tagged(200)
    _pause_past_the_session(run, ("pipeline",) * 3)
    return None


def both_topologies(run: Run) -> Check | None:
    """A worker of all stages beside workers of the stages: they fence each other off until it is stopped."""
    run.deploy()
    run.load(documents(run.random, 4_000), per_second=60)
    run.wait_tagged(200)
    run.fault()
    place = run.fleet.add("pipeline")
    run.pause(25.0 + run.random.uniform(0.0, 5.0))
    run.wait_more(100)
    run.fault()
    run.fleet.remove(place)
    return None


def paused_consumer(run: Run) -> Check | None:
    """An aggregator, a stage worker and an aggregator again are paused past the session timeout; each has a standby."""
    stage = run.random.choice(["extract", "classify", "validate"])
    run.deploy(**{"extract": 1, "classify": 1, "validate": 1, stage: 2, "aggregate": 2})
    run.load(documents(run.random, 7_000), per_second=120)
    run.wait_tagged(200)
    _pause_past_the_session(run, ("aggregate", stage, "aggregate"))
    return None


def clock_jump(run: Run) -> Check | None:
    """The wall clock of the aggregator, and of the stage workers, jumps by hours: forward, back, and where it was."""
    clocks = {"aggregate": run.folder / "clock-of-the-aggregator", "stages": run.folder / "clock-of-the-stages"}
    for clock in clocks.values():
        clock.write_text("0")
    for stage in STAGES:
        clock = clocks.get(stage, clocks["stages"])
        run.fleet.add(stage, environ={"CHAOS_CLOCK": str(clock)})
    run.wait_ready()
    run.load(documents(run.random, 5_000), per_second=100)
    run.wait_tagged(200)
    jumps = [(clock, hours) for clock in clocks.values() for hours in (3, -3)]
    run.random.shuffle(jumps)
    for clock, hours in jumps:
        run.fault()
        _set(clock, hours * HOURS)
        run.pause(run.random.uniform(2.0, 5.0))
        # What a killed worker makes its stage repeat must not be news to a join that thinks hours have passed.
        run.fault()
        run.fleet.kill(run.random.choice(run.fleet.of(run.random.choice(["extract", "classify", "validate"]))))
        run.pause(1.0)
        run.wait_more(100)
        _set(clock, 0.0)
        run.pause(1.0)
    # Documents that were open when the clock jumped past their deadline are given up on in time, and marked so.
    run.statuses = ("complete", "partial")
    return None


def _pause_past_the_session(run: Run, kinds: Sequence[str]) -> None:
    """One worker of each kind, one after the other."""
    for kind in kinds:
        run.pause(run.random.uniform(0.5, 3.0))
        place = run.random.choice(run.fleet.of(kind))
        run.fault()
        run.fleet.pause(place)
        run.pause(SESSION_SECONDS + run.random.uniform(5.0, 9.0))
        run.fleet.resume(place)
        run.pause(2.0)


def _set(clock: Path, seconds: float) -> None:
    new = clock.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(clock)


def disk_full(run: Run) -> Check | None:
    """The file system of ``worker.data_dir`` fills up while workers run, and is full when they start again."""
    folder = run.folder / "small-disk"
    folder.mkdir()
    mounted = _mount(folder)
    if mounted:
        run.world.reaper.watch_mount(folder)
        run.keep(_unmounted(folder))
    environ = {"EL4NER_WORKER__DATA_DIR": str(folder / "data")}
    for stage in run.roles:
        run.fleet.add(stage, environ=environ)
    run.wait_ready()
    run.load(documents(run.random, 4_000), per_second=110)
    run.wait_tagged(300)
    if mounted:
        _fill(folder)
    else:
        for place in run.fleet:
            # No small file system can be made here: from its next start on, the process can write no file at all.
            place.environ = {**environ, "CHAOS_FULL": "1"}
    run.pause(3.0)
    for stage in run.roles:
        run.fault()
        run.fleet.kill(run.fleet.of(stage)[0])
        run.pause(run.random.uniform(1.0, 4.0))
    # Nothing in that folder is needed to go on, so a worker has to start without it.
    if not run.comes(lambda: all(place.ready for place in run.fleet), seconds=30.0):
        run.complain(f"not ready on a full disk: {[place.name for place in run.fleet if not place.ready]}")
    run.pause(3.0)
    if mounted:
        for file in folder.glob("filling-*"):
            file.unlink()
    return None


def _mount(folder: Path) -> bool:
    """Whether a file system of 64 KiB and a few files could be mounted there."""
    options = ["-t", "tmpfs", "-o", "size=64k,nr_inodes=48", "tmpfs"]
    try:
        return subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextlib.contextmanager
def _unmounted(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filling-bytes").open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 512)
    with contextlib.suppress(OSError):
        for number in range(1_000):
            os.close(os.open(folder / f"filling-{number}", os.O_CREAT | os.O_WRONLY))
