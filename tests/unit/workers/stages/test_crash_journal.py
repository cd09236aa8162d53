"""What a process leaves behind when it dies at work, and who finds it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from workers.messages.envelope import Record
from workers.stages.crash_journal import CrashJournal
from workers.topics import Topic


def record(offset: int, *, partition: int = 0) -> Record:
    return Record(Topic.DOCUMENTS, "p.documents", partition, offset, 0, None, b"{}")


def started(folder: Path, stage: str = "extract") -> CrashJournal:
    """A process that looks for what others left."""
    made = CrashJournal(folder, stage)
    made.take_over()
    return made


def die(made: CrashJournal) -> None:
    """What the system does when a process is gone: its locks go, its files stay."""
    assert made._file is not None
    os.close(made._file)
    made._file = None


def deaths(made: CrashJournal, offsets: range) -> list[int]:
    return [made.deaths(record(offset)) for offset in offsets]


def test_who_comes_next_knows_what_a_dead_process_worked_on(tmp_path: Path) -> None:
    dead = started(tmp_path)
    dead.begin([record(0)])
    dead.end()
    dead.begin([record(1), record(2)])
    die(dead)
    after = started(tmp_path)
    assert deaths(after, range(4)) == [0, 1, 1, 0]
    assert after.deaths(record(1, partition=1)) == 0


def test_a_note_is_taken_over_once(tmp_path: Path) -> None:
    dead = started(tmp_path)
    dead.begin([record(1)])
    die(dead)
    first, second = started(tmp_path), started(tmp_path)
    first.take_over()
    assert (first.deaths(record(1)), second.deaths(record(1))) == (1, 0)


def test_a_note_that_somebody_takes_over_at_the_same_moment_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = started(tmp_path)
    dead.begin([record(1)])
    die(dead)
    here, there = CrashJournal(tmp_path, "extract"), CrashJournal(tmp_path, "extract")
    lock = fcntl.flock

    def late(file: int, operation: int) -> None:
        if os.fstat(file).st_size:
            monkeypatch.setattr(fcntl, "flock", lock)
            there.take_over()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    here.take_over()
    assert (here.deaths(record(1)), there.deaths(record(1))) == (0, 1)


def test_deaths_add_up_until_the_message_is_answered(tmp_path: Path) -> None:
    for number in range(3):
        process = started(tmp_path)
        assert process.deaths(record(1)) == number
        process.begin([record(1), record(number + 10)])
        die(process)
    last = started(tmp_path)
    assert last.deaths(record(1)) == 3
    last.settled(record(1))
    assert last.deaths(record(1)) == 0


def test_what_is_known_outlives_deaths_over_other_messages(tmp_path: Path) -> None:
    """Two poison documents: the second one's deaths must not make the first one forgotten."""
    first = started(tmp_path)
    first.begin([record(1)])
    die(first)
    second = started(tmp_path)
    second.settled(record(1), given_up=True)
    second.begin([record(2)])
    die(second)
    third = started(tmp_path)
    assert deaths(third, range(4)) == [0, 1, 1, 0]
    third.settled(record(2))
    die(third)
    assert deaths(started(tmp_path), range(4)) == [0, 1, 0, 0]


def test_who_is_not_at_work_leaves_nothing(tmp_path: Path) -> None:
    idle, orderly = started(tmp_path), started(tmp_path)
    for process in (idle, orderly):
        process.begin([record(1)])
        process.end()
    die(idle)
    orderly.close()
    after = started(tmp_path)
    assert after.deaths(record(1)) == 0
    after.close()
    assert list((tmp_path / "at-work").iterdir()) == []


@pytest.mark.parametrize("blamed", [[], [1]])
def test_what_a_process_ends_of_is_known_though_it_ends_in_order(tmp_path: Path, blamed: list[int]) -> None:
    """And so is what it knew of others, whether or not it is known which message it was."""
    dead = started(tmp_path)
    dead.begin([record(2)])
    die(dead)
    ending = started(tmp_path)
    ending.blame([record(offset) for offset in blamed])
    ending.close()
    die(ending)
    assert deaths(started(tmp_path), range(1, 3)) == [len(blamed), 1]


def test_stages_keep_apart(tmp_path: Path) -> None:
    dead = started(tmp_path, "extract")
    dead.begin([record(1)])
    die(dead)
    assert started(tmp_path, "classify").deaths(record(1)) == 0
    assert started(tmp_path, "extract").deaths(record(1)) == 1


CHILD = """
import sys
from pathlib import Path
from workers.stages.crash_journal import CrashJournal
from tests.unit.workers.stages.test_crash_journal import record
made = CrashJournal(Path(sys.argv[1]), "extract")
made.begin([record(1)])
print("at work", flush=True)
sys.stdin.read()
"""


def test_a_process_that_lives_keeps_its_note_and_one_that_was_killed_does_not(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        watchdog = threading.Timer(60, child.kill)
        watchdog.start()
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "at work\n"
            here = started(tmp_path)
            assert here.deaths(record(1)) == 0
            child.kill()
            child.wait(timeout=30)
            here.take_over()
            assert here.deaths(record(1)) == 1
        finally:
            watchdog.cancel()
            child.kill()


@pytest.mark.parametrize("note", [b"[[", b'[["t", 0]]', b'{"t": 1}', b"5", b"\xff"])
def test_a_damaged_note_is_told_and_removed(tmp_path: Path, note: bytes, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "at-work"
    folder.mkdir()
    path = folder / "extract-dead.json"
    path.write_bytes(note)
    started(tmp_path)
    assert not path.exists()
    (logged,) = caplog.records
    assert "damaged" in logged.getMessage()
    assert logged.__dict__["path"] == str(path)


def test_where_no_file_can_be_written_work_goes_on_without_notes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a-file"
    file.touch()
    made = started(file)
    made.begin([record(1)])
    made.end()
    made.settled(record(1))
    assert made.deaths(record(1)) == 0
    made.close()
    (logged,) = caplog.records
    assert "no notes are kept" in logged.getMessage()


def test_a_disk_that_fills_up_ends_the_notes_not_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = started(tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        made.begin([record(1)])
    made.begin([record(1)])
    made.end()
    (logged,) = caplog.records
    assert "No space left" in logged.getMessage()


def test_what_is_at_the_engine_and_what_is_answered_are_noted_beside_each_other(tmp_path: Path) -> None:
    dead = started(tmp_path)
    dead.begin([record(1)])
    with dead.answering([record(2), record(1)]):
        pass
    with pytest.raises(ZeroDivisionError), dead.answering([record(3)]):
        _ = 1 // 0
    # Other batches go on until the process has ended.
    with dead.answering([record(4)]):
        pass
    die(dead)
    after = started(tmp_path)
    assert deaths(after, range(5)) == [0, 1, 0, 1, 0]


def test_answers_that_end_a_process_are_blamed_and_those_on_their_way_are_not(tmp_path: Path) -> None:
    dead = started(tmp_path)
    with dead.answering([record(1), record(2)]):
        pass
    # On their way to the broker: it may be away for hours, whoever ends the process meanwhile.
    dead.blame([record(2)])
    dead.begin([record(3)])
    dead.end()
    die(dead)
    assert deaths(started(tmp_path), range(4)) == [0, 0, 1, 0]
