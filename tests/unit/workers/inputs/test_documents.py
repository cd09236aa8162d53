"""Documents from files: formats, ids, and a file that grows, is rotated or cut."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workers.inputs.documents
from workers.inputs import lines
from workers.inputs.documents import (
    BadRecord,
    Decoder,
    Fields,
    InputError,
    InputFormat,
    NewDocument,
    derived_id,
    format_of,
    read_documents,
)
from workers.inputs.encodings import known_encoding
from workers.inputs.lines import LineSplitter
from workers.messages import json_schemas


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
        json_schemas.validate("documents", orjson.loads(orjson.dumps(document.to_json())))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('"body": null', "the field 'body' has to be a string, not null"),
        ('"body": ["a"]', "the field 'body' has to be a string, not an array"),
        ('"body": "a", "ticket": 1.5', "'ticket' has to be a string of 1 to 1,024 characters, or a whole number"),
        ('"body": "a", "ticket": ""', "not ''"),
        ('"body": "a", "ticket": true', "not a boolean"),
        ('"body": "a", "ticket": 12345678901234567890123', "(of more than 64 bits: in quotes), not the number 1.23"),
        ('"body": "a", "ticket": "' + "x" * 1025 + '"', "not 1025 characters"),
        ('"body": "a", "pool": ""', "the field 'pool' has to be a name of 1 to 255 characters, not ''"),
        ('"body": "a", "pool": 5', "not the number 5"),
        ('"body": "a", "revision": "2"', "the field 'revision' has to be a whole number from 0 to 9007199254740991"),
        ('"body": "a", "revision": -1', "not the number -1"),
        ('"body": "a", "metadata": [1]', "the field 'metadata' has to be an object, not an array"),
        ('"body": "a"', None),
        ('"body": "a" "pool": 1', "is no JSON: unexpected character, expected ',' or '}', at character"),
        ('"body": "a', "at the line's end"),
    ],
)
def test_a_wrong_value_is_described_in_the_words_of_its_file(tmp_path: Path, fields: str, said: str | None) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{" + fields + ("\n" if said == "at the line's end" else "}\n"))
    bad: list[BadRecord] = []
    documents = read(path, InputFormat.JSONL, fields=Fields("body", "ticket"), bad=bad.append)
    assert (len(documents), len(bad)) == ((1, 0) if said is None else (0, 1))
    for record in bad:
        assert said is not None
        assert said in str(record)


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        ("id;text\n1;a\n", Fields(), "no column 'text', but a single one, 'id;text'; is it separated by ';'?"),
        ("id\ttext\n1\ta\n", Fields(), r"a single one, 'id\ttext'; is it separated by '\t'?"),
        (
            "id,text,\n1,a,\n",
            Fields(),
            "a.csv: column 3 has no name: take it out (it may be the numbers of rows, or a delimiter",
        ),
        ("Id,text\n1,a\n", Fields(id="Nr"), "there is no column 'Nr'; there are: Id, text"),
        ('id,text\n1,"a"b\n', Fields(), "a quote inside of a cell in quotes has to be written twice"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, content: str, fields: Fields, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises((InputError, BadRecord)) as raised:
        read(path, InputFormat.CSV, fields=fields)
    assert said in str(raised.value)


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


EXCEL = 'id;text\r\n1;"Hallo; ""Welt"""\r\n2;"zwei\r\nZeilen"\r\n'


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_is_no_part_of_the_text_and_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding in ("utf-8-sig", "utf-16", "utf-32") else "\ufeff"
    contents = {
        "a.csv": (mark + EXCEL, [("1", 'Hallo; "Welt"'), ("2", "zwei\r\nZeilen")]),
        "a.jsonl": (
            mark + '{"id": "1", "text": "ein Ċ"}\r\n{"id": "2", "text": "zwei"}',
            [("1", "ein Ċ"), ("2", "zwei")],
        ),
        "a.txt": (mark + "Zürich\r\n\r\n東京", [(derived_id("Zürich"), "Zürich"), (derived_id("東京"), "東京")]),
    }
    for name, (content, expected) in contents.items():
        path = tmp_path / name
        path.write_bytes(content.encode(encoding))
        documents = read(path, format_of(path), fields=Fields(delimiter=";"))
        assert [(document.id, document.text) for document in documents] == expected


def test_what_excel_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfsep=;\r\nid;text\r\n1;"a;b"\r\n')
    assert read(path, InputFormat.CSV) == [NewDocument("1", "a;b")]


def test_files_with_byte_order_marks_that_were_joined(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n' * 2)
    assert [document.text for document in read(path, InputFormat.JSONL)] == ["a", "a"]


def test_bytes_that_are_no_text_are_named_by_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin1.txt"
    path.write_bytes("gut\nStraße in München\n".encode("latin-1"))
    with pytest.raises(BadRecord, match=r"latin1\.txt:2: is not UTF-8: 0xDF at byte 4 of the line, byte 8 of the file"):
        read(path, InputFormat.TEXT)
    assert read(path, InputFormat.TEXT, encoding="latin-1")[1].text == "Straße in München"
    decoder = Decoder(replace=True)
    assert read(path, InputFormat.TEXT, decoder=decoder)[1].text == "Stra\ufffde in M\ufffdnchen"
    assert (decoder.replaced, decoder.lines, decoder.first) == (2, 1, f"{path}:2")


def test_a_replacement_character_of_the_files_own_is_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufffd".encode() + b" and \xff\n")
    decoder = Decoder(replace=True)
    assert read(path, InputFormat.TEXT, decoder=decoder)[0].text == "\ufffd and \ufffd"
    assert decoder.replaced == 1


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (gzip.compress(b"text", mtime=0), None, "is compressed by gzip"),
        (b"PK\x03\x04rest", None, "zip archive"),
        (b"%PDF-1.7\n", None, "is a PDF"),
        ("Zürich ist gut\n".encode("utf-16-le"), None, "looks like UTF-16-LE without .*--encoding utf-16-le"),
        ("Zürich ist gut\n".encode("utf-16-be"), None, "looks like UTF-16-BE without .*--encoding utf-16-be"),
        ("gut\n".encode("utf-16-le"), "utf-16", "does not begin with a byte order mark.*utf-16-le or utf-16-be"),
        ("gut\n".encode("utf-8-sig"), "latin-1", "begins with the byte order mark of UTF-8.*leave --encoding out"),
    ],
)
def test_what_is_no_text_or_another_encoding_is_refused_as_a_whole(
    tmp_path: Path, content: bytes, encoding: str | None, message: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    bad: list[BadRecord] = []
    with pytest.raises(InputError, match=message):
        read(path, InputFormat.TEXT, encoding=encoding, bad=bad.append)
    assert bad == []


@pytest.mark.parametrize("name", ["lattin-1", "hex", "rot13", "unicode_escape", "idna", "no such", "\0"])
def test_encodings_by_their_names(name: str) -> None:
    with pytest.raises(ValueError, match="there is no encoding") as refused:
        known_encoding(name)
    assert "utf-16" in str(refused.value)
    if name == "lattin-1":
        assert "nearest: 'latin-1'" in str(refused.value)
    assert (known_encoding("UTF8"), known_encoding("utf-8-sig"), known_encoding("cp1252")) == (
        "utf-8",
        "utf-8",
        "cp1252",
    )


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\ufeff"))),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030"]),
    st.booleans(),
    st.data(),
)
def test_lines_are_the_same_however_their_bytes_arrive(
    lines: list[str], encoding: str, ended: bool, data: st.DataObject
) -> None:
    text = "\n".join(["beginning", *lines]) + ("\n" if ended else "")
    raw = text.encode(encoding)
    splitter = LineSplitter("a", encoding if encoding in ("utf-16-be", "gb18030") else None)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    found = []
    for start, end in itertools.pairwise([0, *cuts, len(raw)]):
        found += splitter.feed(raw[start:end])
    found += splitter.finish()
    assert "".join(line.raw.decode(line.encoding) for line in found) == text
    assert [line.number for line in found] == list(range(1, len(found) + 1))
    assert all(raw[line.offset :].startswith(line.raw) for line in found)
    assert all(line.raw.decode(line.encoding).count("\n") <= 1 for line in found)


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(), st.text())))
def test_what_python_writes_as_csv_is_read_back(rows: list[tuple[str, str, str]]) -> None:
    rows = [tuple(cell.encode("utf-8", "replace").decode().replace("\r", "") for cell in row) for row in rows]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["text", "a", "b"])
    writer.writerows(rows)
    found = list(
        read_documents(
            None,
            format=InputFormat.CSV,
            fields=Fields(metadata=True),
            stdin=io.BytesIO(out.getvalue().encode()),
        )
    )
    assert [(one.text, *(one.metadata or {}).values()) for one in found] == rows


def test_unknown_fields_are_errors_that_name_the_nearest_or_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "t", "pol": "logs", "metadata": {"a": 1}}\n')
    with pytest.raises(BadRecord, match=r"a\.jsonl:1: there is no field 'pol'; nearest: 'pool'; .*--metadata"):
        read(path, InputFormat.JSONL)
    (document,) = read(path, InputFormat.JSONL, fields=Fields(metadata=True))
    assert document.metadata == {"a": 1, "pol": "logs"}
    path.write_text('{"text": "t", "a": 2, "metadata": {"a": 1}}\n')
    with pytest.raises(BadRecord, match="'a' is in its metadata too"):
        read(path, InputFormat.JSONL, fields=Fields(metadata=True))
    path = tmp_path / "a.csv"
    path.write_text(",Text,lang,pool\n0,Berlin,de,\n")
    with pytest.raises(InputError, match=r"there is no column 'text'; nearest: 'Text'; .*--text-field 'Text'"):
        read(path, InputFormat.CSV)
    with pytest.raises(InputError, match=r"a\.csv: column 1 has no name: take it out .*--metadata"):
        read(path, InputFormat.CSV, fields=Fields("Text"))
    (document,) = read(path, InputFormat.CSV, fields=Fields("Text", metadata=True), pool="news")
    assert (document.pool, document.metadata) == ("news", {"column 1": "0", "lang": "de"})
    path.write_text("id;text\n")
    with pytest.raises(InputError, match=r"separated by ';'\? --delimiter"):
        read(path, InputFormat.CSV)
    path.write_text("text,id,id\n")
    with pytest.raises(InputError, match="'id' is there twice"):
        read(path, InputFormat.CSV)


def test_the_same_ids_from_every_format(tmp_path: Path) -> None:
    contents = {
        "a.jsonl": '{"text": "t", "id": 7, "revision": 2}\n{"text": "u", "id": null, "pool": null}\n',
        "a.json": '{"text": "t", "id": "7", "revision": 2}\n{"text": "u"}',
        "a.csv": "id,text,revision\n7,t,2\n,u,\n",
        "a.tsv": "id\ttext\trevision\n7\tt\t2\n\tu\t\n",
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_text(content)
        assert read(path, format_of(path)) == [NewDocument("7", "t", revision=2), NewDocument(derived_id("u"), "u")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "t", "id": true}', "the field 'id' has to be a string"),
        ('{"text": "t", "id": 1.5}', "the field 'id' has to be a string"),
        ('{"text": "t", "id": 123456789012345678901234567890}', "the field 'id' has to be a string"),
        ('{"text": "t", "id": ""}', "the field 'id' has to be a string"),
        ('{"text": "t", "revision": -1}', "the field 'revision' has to be a whole number"),
        ('{"text": "t", "metadata": 1}', "the field 'metadata' has to be an object"),
        ('{"text": null}', "the field 'text' has to be a string, not null"),
        ('{"body": "t"}', "there is no field 'text'; there are: body: --text-field"),
        ("[", "jq -c"),
        ('[{"text": "t"}]', r"is an array, not a JSON object: .*jq -c '\.\[\]'"),
        ('"t"', "is a string, not a JSON object"),
        ('{"text": "\\ud800"}', "is no JSON"),
    ],
)
def test_a_bad_record_says_why_and_the_others_are_read(line: str, reason: str) -> None:
    bad: list[BadRecord] = []
    content = f'{{"text": "before"}}\n{line}\n{{"text": "after"}}\n'.encode()
    documents = read(None, InputFormat.JSONL, stdin=io.BytesIO(content), bad=bad.append)
    assert [document.text for document in documents] == ["before", "after"]
    (record,) = bad
    assert (record.line.number, record.line.offset, record.line.raw) == (2, 19, line.encode() + b"\n")
    assert re.search(reason, record.reason)


def test_a_bad_record_of_csv_ends_where_it_ends() -> None:
    content = b'id,text\n1,"two\n\xff lines"\n2,good\n3\n4,"also, good"\n5,a,b\nx"y,z"w\n6,"open\n7,eaten\n'
    bad: list[BadRecord] = []
    documents = read(None, InputFormat.CSV, stdin=io.BytesIO(content), bad=bad.append)
    assert [document.id for document in documents] == ["2", "4", 'x"y']
    assert [record.line.raw for record in bad] == [
        b'1,"two\n\xff lines"\n',
        b"3\n",
        b"5,a,b\n",
        b'6,"open\n7,eaten\n',
    ]
    assert [record.line.number for record in bad] == [2, 5, 7, 9]
    assert {record.prelude for record in bad} == {b"id,text\n"}
    assert "none closes it to the end of the file, line 10" in bad[-1].reason


def test_the_same_id_with_another_text_is_refused_since_the_stream_would_leave_it_out() -> None:
    content = b'{"id": "a", "text": "t"}\n{"id": "a", "text": "t"}\n{"id": "a", "text": "u"}\n'
    content += b'{"id": "a", "text": "u", "revision": 1}\n'
    bad: list[BadRecord] = []
    documents = read(None, InputFormat.JSONL, stdin=io.BytesIO(content), bad=bad.append)
    assert [(document.text, document.revision) for document in documents] == [("t", 0), ("t", 0), ("u", 1)]
    assert [record.line.number for record in bad] == [3]
    assert "is line 1's, with another text" in bad[0].reason


@pytest.mark.parametrize("distinct", [False, True])
def test_going_on_from_a_line_gives_the_same_ids(distinct: bool) -> None:
    content = b"same\n\nother\nsame\nsame\n"
    every = read(None, InputFormat.TEXT, stdin=io.BytesIO(content), distinct=distinct)
    rest = read(None, InputFormat.TEXT, stdin=io.BytesIO(content), distinct=distinct, from_line=4)
    assert rest == every[2:]
    assert read(None, InputFormat.TEXT, stdin=io.BytesIO(content), from_line=6) == []
    with pytest.raises(InputError, match="has 5 lines: there is no line 7"):
        read(None, InputFormat.TEXT, stdin=io.BytesIO(content), from_line=7)


def test_equal_texts_keep_ids_of_their_own_when_many_others_came_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.inputs.documents, "_REMEMBERED_TEXTS", 3)
    content = b"a\nb\nc\na\nd\na\nb\ne\nf\na\n"
    documents = read(None, InputFormat.TEXT, stdin=io.BytesIO(content), distinct=True)
    assert len({document.id for document in documents}) == len(documents)
    assert documents == read(None, InputFormat.TEXT, stdin=io.BytesIO(content), distinct=True)


def test_a_line_without_an_end_in_sight_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_MAX_LINE", 1 << 20)
    with pytest.raises(InputError, match="standard input:1: is longer than 1 MiB"):
        read(None, InputFormat.TEXT, stdin=io.BytesIO(b"x" * (2 << 20)))


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
