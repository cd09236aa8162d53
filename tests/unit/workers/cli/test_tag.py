"""``el4ner tag`` and how it shows entities."""

import json
import threading
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from el4ner.errors import DocumentError
from workers.cli.app import app
from workers.cli.entity_marks import EntityMark, colour_of, marked, plainly_marked
from workers.cli.inputs import as_they_come, documents_of
from workers.inputs.file_formats import InputFormat
from workers.printable import legible

pytestmark = pytest.mark.usefixtures("undisturbed")

TEXT = "Ada Lovelace met Charles Babbage in London."
INSTANT = ["--ensemble", "instant"]
KEYS = {"start", "end", "text", "type", "confidence", "proposed_by", "votes", "verdict"}


def test_json_is_one_object_a_document_with_everything_known(runner: CliRunner) -> None:
    result = runner.invoke(app, ["tag", TEXT, "--format", "json", *INSTANT])
    assert result.exit_code == 0
    (document,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"id", "text", "entities", "pool"} <= document.keys()
    assert document["text"] == TEXT
    assert document["pool"] == "news"
    assert document["entities"]
    for entity in document["entities"]:
        assert entity.keys() == KEYS
        assert TEXT[entity["start"] : entity["end"]] == entity["text"]


def test_a_file_is_one_document_or_one_a_line(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "two.txt"
    file.write_text(f"{TEXT}\n\nIn Paris it rained.\n")
    whole = runner.invoke(app, ["tag", str(file), "--format", "json", *INSTANT])
    assert [json.loads(line)["text"] for line in whole.stdout.splitlines()] == [file.read_text()]
    lines = runner.invoke(app, ["tag", str(file), "--lines", "--format", "json", *INSTANT])
    found = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [document["id"] for document in found] == ["two.txt:1", "two.txt:3"]
    assert [document["text"] for document in found] == [TEXT, "In Paris it rained."]


def test_records_are_documents(runner: CliRunner, tmp_path: Path) -> None:
    """As ``produce`` reads them."""
    contents = {
        "x.jsonl": '\ufeff{"id": "a-1", "text": "Ada in Paris", "pool": "news"}\n{"text": "Bob"}\n',
        "x.csv": '\ufeffid,text\r\na-1,Ada in Paris\r\n,"Bob"\r\n',
        "x.tsv": "id\ttext\na-1\tAda in Paris\n\tBob\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content.encode())
        documents = list(documents_of(str(tmp_path / name), lines=False, unreadable=lambda _: None))
        number = 2 if name == "x.jsonl" else 3
        assert [(one.id, one.text) for one in documents] == [("a-1", "Ada in Paris"), (f"{name}:{number}", "Bob")]
    piped = documents_of(
        "-", lines=False, unreadable=lambda _: None, format=InputFormat.JSONL, stdin=BytesIO(b'{"text": "Eve"}')
    )
    assert [(one.id, one.text) for one in piped] == [("stdin:1", "Eve")]
    source = documents_of(str(tmp_path / "x.csv"), lines=False, unreadable=lambda _: None, format=InputFormat.TEXT)
    assert [one.text for one in source] == [contents["x.csv"].removeprefix("\ufeff")]


def test_ids_and_metadata_come_out_and_bad_records_are_reported(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"id": "a-1", "text": "Ada", "lang": "en"}\n{"text": 1}\n{"text": "Bob"}\n')
    result = runner.invoke(app, ["tag", str(file), "--metadata", "--format", "json", *INSTANT])
    assert result.exit_code == 1
    first, second = [json.loads(line) for line in result.stdout.splitlines()]
    assert (first["id"], first["text"], first["metadata"]) == ("a-1", "Ada", {"lang": "en"})
    assert second["id"] == "x.jsonl:3"
    assert "metadata" not in second
    assert "error: x.jsonl:2: the field 'text' has to be a string, not the number 1\n" in result.stderr


def test_a_document_of_another_pool_is_told_how_to_name_it(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"text": "Ada", "pool": "news"}\n{"text": "root", "pool": "logs"}\n')
    result = runner.invoke(app, ["tag", str(file), "--format", "json", *INSTANT])
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 1)
    assert "x.jsonl:2: no pool 'logs' is hosted here" in result.stderr
    assert "(tag reads one pool at a time: --pool logs)" in result.stderr


def test_bytes_that_are_no_text(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "latin1.txt"
    file.write_bytes("gut\nZürich\n".encode("latin-1"))
    refused = runner.invoke(app, ["tag", str(file), *INSTANT])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "latin1.txt: is not UTF-8: 0xFC in line 2, byte 5 of the file" in refused.stderr
    named = documents_of(str(file), lines=False, unreadable=lambda _: None, encoding="latin-1")
    assert [one.text for one in named] == ["gut\nZürich\n"]
    wide = tmp_path / "wide.txt"
    wide.write_bytes("gut\nZürich\n".encode("utf-16"))
    assert [one.text for one in documents_of(str(wide), lines=False, unreadable=lambda _: None)] == ["gut\nZürich\n"]


@pytest.mark.parametrize("arguments", [["tag", "-"], ["tag"]])
def test_standard_input(runner: CliRunner, arguments: list[str]) -> None:
    result = runner.invoke(app, [*arguments, "--format", "json", *INSTANT], input=TEXT)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["text"] == TEXT


def test_without_a_terminal_entities_are_in_brackets(runner: CliRunner) -> None:
    result = runner.invoke(app, ["tag", TEXT, *INSTANT])
    assert "\x1b" not in result.stdout
    assert result.stdout.count("[") == result.stdout.count("|") == result.stdout.count("]") > 0


@pytest.mark.parametrize("pool", ["logs", "path"])
def test_a_pool_by_name_or_by_path(runner: CliRunner, tmp_path: Path, pool: str) -> None:
    if pool == "path":
        file = tmp_path / "ships.jsonl"
        file.write_text(
            '{"text": "The Titanic sank.", "spans": [{"start": 4, "end": 11, "type": "ship"}]}\n'
            '{"text": "Nothing sailed.", "spans": []}\n'
        )
        pool = str(file)
    result = runner.invoke(app, ["tag", TEXT, "--pool", pool, "--format", "json", *INSTANT])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["pool"] == ("logs" if pool == "logs" else "ships")


def test_a_bad_document_is_reported_and_the_others_go_on(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "el4ner.toml"
    file.write_text("[method]\nmax_document_chars = 50\n")
    lines = TEXT.encode() + b"\n" + b"x" * 51 + b"\n\xff\xfe\n" + TEXT.encode() + b"\n"
    arguments = ["tag", "--lines", "--format", "json", "--config", str(file), *INSTANT]
    result = runner.invoke(app, arguments, input=lines)
    assert result.exit_code == 1
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["stdin:1", "stdin:4"]
    errors = result.stderr.splitlines()
    assert len(errors) == 2
    assert any(line.startswith("error: stdin:2: the text has 51 characters") for line in errors)
    assert any(line.startswith("error: stdin:3: is not UTF-8") for line in errors)


@pytest.mark.slow
def test_an_ensemble_that_is_asked_for_wins_over_the_files_members(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "el4ner.toml"
    file.write_text(
        '[ensemble]\nmembers = ["mine"]\nverifier = "mine"\n[models.mine]\nsource = "./nowhere"\n'
        '[retrieval]\nkind = "none"\n'
    )
    assert runner.invoke(app, ["tag", TEXT, "--config", str(file)]).exit_code == 2
    assert runner.invoke(app, ["tag", TEXT, "--config", str(file), *INSTANT]).exit_code == 0


def _documents(argument: str | None, stdin: bytes = b"", *, lines: bool = False) -> list[str]:
    def fail(error: DocumentError) -> None:
        raise error

    return [d.text for d in documents_of(argument, lines=lines, unreadable=fail, stdin=BytesIO(stdin))]


def test_what_an_argument_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes").write_text("from a file")
    assert _documents("notes") == ["from a file"]
    assert _documents("notes and more") == ["notes and more"]
    assert _documents("Reuters/AP") == ["Reuters/AP"]
    assert _documents("x" * 10_000) == ["x" * 10_000]
    assert _documents("a\0b") == ["a\0b"]
    assert _documents(None, b"\xef\xbb\xbfwith a mark") == ["with a mark"]
    assert _documents("-", b"one\r\n\r\ntwo", lines=True) == ["one", "two"]
    for argument in ("missing.txt", f"{tmp_path}/"):
        with pytest.raises(typer.BadParameter):
            _documents(argument)


def test_what_is_there_is_not_held_back_for_a_full_batch() -> None:
    more = threading.Event()

    def slow() -> Iterator[int]:
        yield from (1, 2)
        assert more.wait(timeout=30)
        yield from (3, 4, 5, 6)

    batches = as_they_come(slow(), 3)
    assert next(batches) == [1, 2]
    more.set()
    assert [number for batch in batches for number in batch] == [3, 4, 5, 6]


def test_what_reading_raises_comes_after_what_was_read() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError

    batches = as_they_come(broken(), 8)
    assert next(batches) == [1]
    with pytest.raises(ValueError):  # noqa: PT011  # ours, without a message
        next(batches)


def test_marks_stand_where_the_entities_are() -> None:
    text = "Bank of London in London"
    marks = [EntityMark(0, 14, "org"), EntityMark(8, 14, "place"), EntityMark(18, 24, "place")]
    assert plainly_marked(text, marks) == "[Bank of [London|place]|org] in [London|place]"
    assert plainly_marked("ab", [EntityMark(0, 1, "x"), EntityMark(1, 2, "y")]) == "[a|x][b|y]"
    assert plainly_marked("", []) == ""


def test_a_terminal_gets_colours_and_the_same_text() -> None:
    console = Console(file=StringIO(), force_terminal=True, color_system="256", no_color=False)
    shown = marked("Ada in London", [EntityMark(0, 3, "person"), EntityMark(7, 13, "location")], console)
    assert shown.plain == "Ada person  in London location "
    assert {str(span.style).split()[-1] for span in shown.spans} == {colour_of("person"), colour_of("location")}
    plain = Console(file=StringIO(), force_terminal=True, no_color=True)
    assert marked("Ada", [EntityMark(0, 3, "person")], plain).plain == "[Ada|person]"


def test_a_type_always_has_the_same_colour() -> None:
    assert colour_of("starship") == colour_of("Starship")
    assert len({colour_of(label) for label in ("person", "organization", "location", "product", "event", "date")}) == 6


def test_text_cannot_command_the_terminal() -> None:
    assert legible("a\x1b[31mb\x07\u202e") == "a\ufffd[31mb\ufffd\ufffd"
    assert legible("ä\u00a0漢\t\n🙂") == "ä\u00a0漢\t\n🙂"
