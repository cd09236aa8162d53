"""Documents from files: formats, ids, and a file that grows, is rotated or cut."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from workers import schemas
from workers.inputs import Decoder, Fields, InputError, InputFormat, NewDocument, derived_id, format_of, read_documents


def read(path: Path | None, format: InputFormat, **options: Any) -> list[NewDocument]:  # noqa: A002
    return list(read_documents(path, format=format, **options))


def test_text_lines_are_documents_and_empty_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes("one Zürich\r\n\n  \n\xff two".encode("latin-1").replace(b"Z\xfc", "Zü".encode()))
    decoder = Decoder(replace=True)
    texts = [document.text for document in read(path, InputFormat.TEXT, decoder=decoder)]
    assert texts == ["one Zürich", "\ufffd two"]
    assert (decoder.replaced, decoder.lines, decoder.first) == (1, 1, f"{path}:4")
    assert [document.text for document in read(None, InputFormat.TEXT, stdin=io.BytesIO(b"x\ny"))] == ["x", "y"]


def test_ids_come_from_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("same\nsame\nother\n")
    same, again, other = read(path, InputFormat.TEXT)
    assert same.id == again.id == derived_id("same") != other.id
    assert read(path, InputFormat.TEXT, pool="logs")[0].id != same.id
    distinct = [document.id for document in read(path, InputFormat.TEXT, distinct=True)]
    assert len(set(distinct)) == 3
    assert distinct == [document.id for document in read(path, InputFormat.TEXT, distinct=True)]


def test_json_lines_give_what_the_schema_has(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "t", "id": "own", "pool": "logs", "revision": 2, "metadata": {"a": 1}}\n\n{"text": "u"}\n'
    )
    first, second = read(path, InputFormat.JSONL, pool="news")
    assert first == NewDocument("own", "t", "logs", 2, {"a": 1})
    assert second == NewDocument(derived_id("u", "news"), "u", "news")
    for document in (first, second):
        schemas.validate("documents", orjson.loads(orjson.dumps(document.to_json())))


def test_csv_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffid,body,lang\n7,"two\nlines, here",en\n,plain,de\n')
    first, second = read(path, InputFormat.CSV, fields=Fields("body", metadata=True))
    assert first == NewDocument("7", "two\nlines, here", metadata={"lang": "en"})
    assert (second.id, second.text) == (derived_id("plain"), "plain")


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.jsonl", b'{"text": "t"}\nrubbish\n', {}, r"a\.jsonl:2: "),
        ("a.jsonl", b'{"id": "x"}\n', {}, r"a\.jsonl:1: .*text"),
        ("a.jsonl", b'{"text": "\xff"}\n', {}, r"a\.jsonl:1: "),
        ("a.csv", b"a,b\n1,2\n", {"fields": Fields("c")}, r"a\.csv: there is no column 'c'; there are: a, b"),
        ("a.csv", b"text,id\n1\n", {}, r"a\.csv:2: expected 2 columns"),
        ("a.csv", b"text,id\n1,2,3\n", {}, r"a\.csv:2: expected 2 columns"),
        ("a.csv", b'text\n"open\n', {}, r"a\.csv:2: "),
        ("a.csv", b"text\n\xff\n", {}, r"a\.csv:2: is not UTF-8"),
        ("a.csv", b"", {}, r"a\.csv: there is no column"),
    ],
)
def test_errors_name_file_and_line(
    tmp_path: Path, name: str, content: bytes, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(path, format_of(path), **options)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for options in ({}, {"follow": True}):
        with pytest.raises(InputError, match="nowhere"):
            read(tmp_path / "nowhere", InputFormat.TEXT, **options)
    with pytest.raises(InputError, match="followed"):
        read(tmp_path / "a.csv", InputFormat.CSV, follow=True)
    with pytest.raises(InputError, match="standard input"):
        read(None, InputFormat.TEXT, follow=True)


def follow(path: Path, *steps: Callable[[], Any]) -> list[str]:
    """Follow a file; whenever the reader has nothing to read, the next step happens; after the last it stops."""
    left = list(steps)

    def sleep(_: float) -> None:
        left.pop(0)()

    documents = read_documents(path, format=InputFormat.TEXT, follow=True, stop=lambda: not left, sleep=sleep)
    return [document.text for document in documents]


def test_a_growing_file_is_followed_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("one\ntw")

    def append(text: str) -> Callable[[], Any]:
        def do() -> None:
            with path.open("a") as file:
                file.write(text)

        return do

    assert follow(path, append("o\nthr"), append("ee\n")) == ["one", "two", "three"]


def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(tmp_path: Path) -> None:
    path, old = tmp_path / "a.log", tmp_path / "a.log.1"
    path.write_text("one\n")

    def move() -> None:
        path.rename(old)
        with old.open("a") as file:
            file.write("two\nthree without end")

    def create() -> None:
        path.write_text("four\n")

    assert follow(path, move, create, lambda: None) == ["one", "two", "three without end", "four"]


def test_a_cut_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("a long first line\n")
    assert follow(path, lambda: path.write_text("new\n"), lambda: None) == ["a long first line", "new"]
