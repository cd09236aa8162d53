"""A followed file: whatever is done to it, each complete line comes once, and no piece of one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.examples import examples
from workers.inputs.encodings import InputError
from workers.inputs.follow_state import FollowState
from workers.inputs.following import FollowedFile
from workers.inputs.lines import RawLine


def texts(followed: FollowedFile) -> list[str]:
    """Everything that is there now."""
    found = []
    while lines := followed.poll():
        found += [line.raw.decode().rstrip("\n") for line in lines]
    return found


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def rewrite(path: Path, text: str) -> None:
    """In place: the inode stays."""
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(text.encode())


def test_cut_and_rewritten_longer_within_one_look(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("first one\nsecond one\n")
    notices: list[str] = []
    with FollowedFile(path, notice=notices.append) as followed:
        assert texts(followed) == ["first one", "second one"]
        rewrite(path, "another first line, longer\nanother second line\na third\n")
        assert texts(followed) == ["another first line, longer", "another second line", "a third"]
        assert len(notices) == 1
        assert "read from its beginning" in notices[0]


def test_the_same_beginning_does_not_hide_that_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    header = "# the same long header\n" * 400
    path.write_text(header + "one\n")
    with FollowedFile(path) as followed:
        assert texts(followed)[-1] == "one"
        rewrite(path, header + "two\nthree\n")
        assert texts(followed)[-2:] == ["two", "three"]


def test_lines_that_come_after_the_rotation_are_read(tmp_path: Path) -> None:
    path, old = tmp_path / "a.log", tmp_path / "a.log.1"
    path.write_text("one\n")
    now = 0.0
    with FollowedFile(path, monotonic=lambda: now) as followed:
        assert texts(followed) == ["one"]
        path.rename(old)
        path.write_text("new one\n")
        assert texts(followed) == ["new one"]
        for second in range(10):
            now += 30
            append(old, f"late {second}\n")
            append(path, f"new {second}\n")
            assert sorted(texts(followed)) == [f"late {second}", f"new {second}"]
        # Nobody writes there any more: the file is let go.
        now += 61
        assert texts(followed) == []
        assert str(old) not in {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}


def test_the_new_file_waits_for_the_end_of_the_old_ones_last_line_but_not_for_long(tmp_path: Path) -> None:
    path, old = tmp_path / "a.log", tmp_path / "a.log.1"
    path.write_text("one\nbeg")
    now = 0.0
    with FollowedFile(path, monotonic=lambda: now) as followed:
        assert texts(followed) == ["one"]
        path.rename(old)
        path.write_text("new\n")
        assert texts(followed) == []
        append(old, "un\n")
        assert texts(followed) == ["begun", "new"]
        append(old, "never ended")
        path.rename(tmp_path / "a.log.2")
        path.write_text("newer\n")
        assert texts(followed) == []
        now += 6
        assert texts(followed) == ["newer"]
        now += 61
        assert texts(followed) == ["never ended"]


def test_a_symbolic_link_that_is_switched(tmp_path: Path) -> None:
    first, second, link = tmp_path / "1.log", tmp_path / "2.log", tmp_path / "now.log"
    first.write_text("one\n")
    second.write_text("two\n")
    link.symlink_to(first)
    with FollowedFile(link) as followed:
        assert texts(followed) == ["one"]
        link.unlink()
        link.symlink_to(second)
        append(first, "late\n")
        assert texts(followed) == ["late", "two"]
        # And back again: what was read of it is not read twice.
        link.unlink()
        link.symlink_to(first)
        append(first, "again\n")
        append(second, "last\n")
        assert sorted(texts(followed)) == ["again", "last"]


def test_deleted_and_created_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("one\n")
    with FollowedFile(path) as followed:
        assert texts(followed) == ["one"]
        path.unlink()
        assert texts(followed) == []
        path.mkdir()
        assert texts(followed) == []
        path.rmdir()
        path.write_text("one\n")
        assert texts(followed) == ["one"]


def test_a_program_that_goes_on_writing_where_it_was_leaves_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with path.open("wb", buffering=0) as writer:
        writer.write(b"one\n" * 5000)
        with FollowedFile(path) as followed:
            assert len(texts(followed)) == 5000
            os.truncate(path, 0)
            writer.write(b"two\n")
            assert texts(followed) == ["two"]
            writer.write(b"three\n")
            assert texts(followed) == ["three"]


def test_a_character_that_is_half_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"Z\xc3")
    with FollowedFile(path) as followed:
        assert texts(followed) == []
        append(path, b"\xbcrich\nnext")
        assert texts(followed) == ["Zürich"]


def test_utf_16_and_its_mark_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"\xff")
    with FollowedFile(path) as followed:
        assert followed.poll() == []
        data = "\ufeffĊa\nb\n".encode("utf-16-le")[1:]  # Ċ has a byte that is a line feed elsewhere
        for index in range(0, len(data), 3):
            append(path, data[index : index + 3])
            if index < 6:
                assert followed.poll() == []
        (first, second) = followed.poll()
        assert [line.raw.decode(line.encoding) for line in (first, second)] == ["Ċa\n", "b\n"]
        assert (first.offset, second.offset, second.number) == (2, 8, 2)


def test_ids_of_places_are_the_same_after_a_restart_and_others_in_another_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("start\nsame\n")
    origins = []
    for _ in range(2):
        with FollowedFile(path) as followed:
            origins.append({line.origin for line in followed.poll()})
    assert origins[0] == origins[1]
    with FollowedFile(path) as followed:
        before = followed.poll()[0].origin
        rewrite(path, "")
        assert followed.poll() == []
        rewrite(path, "start\n")
        assert followed.poll()[0].origin != before


def test_what_cannot_be_followed(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="no such file to follow"):
            FollowedFile(path)
    path = tmp_path / "a.log.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00rest")
    with FollowedFile(path) as followed, pytest.raises(InputError, match="compressed by gzip"):
        followed.poll()


def send(followed: FollowedFile, state: FollowState, count: int | None = None) -> list[RawLine]:
    """Read what is there; the first ``count`` lines are confirmed."""
    lines: list[RawLine] = []
    while more := followed.poll():
        lines += more
    for line in lines[:count]:
        state.sent(line)
    state.save()
    return lines


def test_a_restart_goes_on_behind_what_was_sent(tmp_path: Path) -> None:
    path, kept = tmp_path / "a.log", tmp_path / "state"
    path.write_text("one\ntwo\nthree\nfo")
    with FollowedFile(path, state=(state := FollowState(kept))) as followed:
        before = send(followed, state, 2)
        assert len(before) == 3
    append(path, "ur\n")
    with FollowedFile(path, state=(state := FollowState(kept))) as followed:
        after = send(followed, state)
        assert [line.raw for line in after] == [b"three\n", b"four\n"]
        # The same line in every respect: with --distinct its id depends on it.
        assert after[0] == before[2]
    with FollowedFile(path, state=FollowState(kept)) as followed:
        assert texts(followed) == []
        append(path, "five\n")
        assert texts(followed) == ["five"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_restart_after_a_rotation_reads_the_rest_of_the_old_file_first(tmp_path: Path, linked: bool) -> None:
    path, kept = tmp_path / "logs" / "a.log", tmp_path / "state"
    path.parent.mkdir()
    path.write_text("one\n")
    name = path
    if linked:
        name = tmp_path / "link.log"
        name.symlink_to(path)
    with FollowedFile(name, state=(state := FollowState(kept))) as followed:
        send(followed, state)
    append(path, "two\n")
    path.rename(path.with_name("a.log.1"))
    path.write_text("new\n")
    for _ in range(2):
        with FollowedFile(name, state=(state := FollowState(kept))) as followed:
            assert texts(followed) == ["two", "new"]
            append(path.with_name("a.log.1"), "late\n")
            assert texts(followed) == ["late"]
            shutil.copy(path.with_name("a.log.1"), tmp_path / "copy")
        with path.with_name("a.log.1").open("r+b") as file:
            file.truncate(len("one\ntwo\n"))


@pytest.mark.parametrize("how", ["cut", "gone", "shorter"])
def test_a_restart_when_the_file_is_no_longer_the_one_that_was_read(tmp_path: Path, how: str) -> None:
    path, kept = tmp_path / "a.log", tmp_path / "state"
    path.write_text("start\ntwo\n")
    with FollowedFile(path, state=(state := FollowState(kept))) as followed:
        origin = send(followed, state)[0].origin
    if how == "gone":
        path.rename(tmp_path / "other")
        path.write_text("start\nnew two, longer\n")
        (tmp_path / "other").unlink()
    else:
        rewrite(path, "start\n" if how == "shorter" else "start\nnew two, longer\n")
    notices: list[str] = []
    with FollowedFile(path, state=(state := FollowState(kept)), notice=notices.append) as followed:
        lines = send(followed, state)
    assert lines[0].raw == b"start\n"
    # Another file, whatever its first line is and whatever inode it got.
    assert lines[0].origin != origin
    assert len(notices) == 1
    assert "read to byte 10 is gone, or was cut" in notices[0]
    with FollowedFile(path, state=FollowState(kept)) as followed:
        assert texts(followed) == []


POINT = {
    "origin": "1-a-0", "inode": 1, "position": 2, "line": 2, "encoding": "utf-8",
    "head_bytes": 2, "head_sha256": "x", "last_bytes": 2, "last_sha256": "x",
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        "rubbish",
        "[]",
        "{}",
        '{"points": [{"origin": "a"}]}',
        '{"points": [1]}',
        '{"points": null}',
        *(
            json.dumps({"points": [{**POINT, key: value}]})
            for key, value in {"origin": 1, "inode": "1", "position": -2, "line": None, "last_bytes": 3}.items()
        ),
    ],
)
def test_a_file_that_is_no_state_is_not_written_over(tmp_path: Path, content: str) -> None:
    kept = tmp_path / "state"
    kept.write_text(content)
    with pytest.raises(InputError, match="does not hold the state of a followed file"):
        FollowState(kept)
    with pytest.raises(InputError, match="in a folder that is there"):
        FollowState(tmp_path / "nowhere" / "state")


def test_a_state_as_it_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(json.dumps({"points": [POINT]}))
    assert [point.origin for point in FollowState(tmp_path / "state").points] == ["1-a-0"]


class Log(RuleBasedStateMachine):
    """A log that is written, rotated, cut and rewritten, and looked at in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="el4ner-following-"))
        self.path = self.folder / "a.log"
        self.number = 0
        self.rotations = 0
        self.sent: list[str] = []
        self.expected: set[str] = set()
        self.unseen: list[str] = []
        """Lines of the current file since the last look: lost if it is cut now."""
        self.begun = ""
        self.old: Path | None = None
        self.old_begun = ""
        self.looked = False

    @initialize(content=st.booleans())
    def begin(self, content: bool) -> None:
        self.path.write_text("")
        if content:
            self.write(2, True)
        self.followed = FollowedFile(self.path)

    def line(self) -> str:
        self.number += 1
        return f"line {self.number} {'x' * (self.number % 7)}"

    @rule(lines=st.integers(1, 4), ended=st.booleans())
    def write(self, lines: int, ended: bool) -> None:
        new = [self.line() for _ in range(lines)]
        text = "\n".join(new) + "\n"
        complete = [self.begun + new[0], *new[1:]]
        if not ended:
            text = text[:-1]
            self.begun = complete.pop()
        else:
            self.begun = ""
        append(self.path, text)
        self.unseen += complete
        self.expected.update(complete)

    @rule()
    def look(self) -> None:
        self.sent += texts(self.followed)
        self.unseen = []
        self.looked = True

    @precondition(lambda self: self.looked)
    @rule(create=st.booleans())
    def rotate(self, create: bool) -> None:
        self.rotations += 1
        self.old, self.old_begun, self.begun = self.folder / f"a.log.{self.rotations}", self.begun, ""
        if self.old_begun:
            # Comes when it ends, or when the reading does.
            self.expected.add(self.old_begun)
        self.path.rename(self.old)
        if not create:
            self.look()
        self.path.write_text("")
        self.looked = False
        self.unseen = []

    @precondition(lambda self: self.old is not None)
    @rule()
    def write_late(self) -> None:
        assert self.old is not None
        new = self.line()
        self.expected.discard(self.old_begun)
        self.expected.add(self.old_begun + new)
        self.old_begun = ""
        append(self.old, new + "\n")

    @rule(lines=st.integers(0, 6))
    def cut(self, lines: int) -> None:
        """Its content is somewhere else now (`copytruncate`), or was thrown away."""
        self.expected.difference_update(self.unseen)
        self.unseen, self.begun = [], ""
        new = [self.line() for _ in range(lines)]
        rewrite(self.path, "".join(f"{one}\n" for one in new))
        self.unseen += new
        self.expected.update(new)

    @invariant()
    def nothing_twice_and_no_fragments(self) -> None:
        assert len(set(self.sent)) == len(self.sent)
        assert set(self.sent) <= self.expected

    def teardown(self) -> None:
        try:
            self.look()
            self.sent += [line.raw.decode().rstrip("\n") for line in self.followed.finish()]
            assert sorted(self.sent) == sorted(self.expected)
        finally:
            self.followed.__exit__(None, None, None)
            shutil.rmtree(self.folder)


TestLog: Any = Log.TestCase
TestLog.settings = settings(max_examples=examples(50), stateful_step_count=25, deadline=None)
