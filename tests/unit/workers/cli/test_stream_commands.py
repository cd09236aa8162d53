"""The stream's commands, as far as they go without a broker."""

import json
import os
import signal
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from workers.cli import produce
from workers.cli.app import app
from workers.cli.demo import _read
from workers.cli.interrupts import StoppableIteration
from workers.cli.pacing import at_rate
from workers.cli.tail import show_tagged
from workers.inputs.documents import InputError, NewDocument

pytestmark = pytest.mark.usefixtures("undisturbed")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[NewDocument]:
    """What ``produce`` would send; the producer is replaced by a list."""
    import workers.produce

    documents: list[NewDocument] = []

    def collect(_settings: Any, given: Any, *, delivered: Any, **_: Any) -> workers.produce.Produced:
        for document in given:
            documents.append(document)
            delivered(document)
        return workers.produce.Produced(len(documents), 0.5)

    monkeypatch.setattr(workers.produce, "produce_documents", collect)
    return documents


def test_the_format_is_told_by_the_name(runner: CliRunner, tmp_path: Path, sent: list[NewDocument]) -> None:
    contents = {"a.csv": "text\nfrom csv\n", "a.jsonl": '{"text": "from jsonl", "id": "7"}\n', "a.log": "from a log\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        result = runner.invoke(app, ["produce", str(tmp_path / name), "--pool", "logs"])
        assert result.exit_code == 0, result.stderr
    assert [document.text for document in sent] == ["from csv", "from jsonl", "from a log"]
    assert sent[1].id == "7"
    assert {document.pool for document in sent} == {"logs"}
    assert result.stdout == ""
    assert "documents sent" in result.stderr


def test_csv_columns(runner: CliRunner, tmp_path: Path, sent: list[NewDocument]) -> None:
    file = tmp_path / "tickets.csv"
    file.write_text("ticket,body\n7,It broke\n")
    assert runner.invoke(app, ["produce", str(file), "--text-column", "body", "--id-column", "ticket"]).exit_code == 0
    assert [(document.id, document.text) for document in sent] == [("7", "It broke")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "body\nx\n", "there is no column 'text'; there are: body"),
        ("a.csv", "text,id\nx\n", "a.csv:2: expected 2 columns"),
        ("a.jsonl", '{"text": "fine"}\nnot json\n', "a.jsonl:2: "),
        ("a.jsonl", '{"text": 7}\n', "a.jsonl:1: "),
    ],
)
def test_broken_input_names_file_and_line(
    runner: CliRunner, tmp_path: Path, sent: list[NewDocument], name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    result = runner.invoke(app, ["produce", str(tmp_path / name)])
    assert result.exit_code == 1
    assert f"{len(sent)} documents were sent" in result.stderr
    assert "error: " in result.stderr
    assert said in result.stderr


BAD = '{"text": "one"}\n{"text": "two", "pol": "logs"}\n{"text": "three"}\nrubbish'


def test_a_bad_record_ends_it_or_is_left_out_or_is_kept(
    runner: CliRunner, tmp_path: Path, sent: list[NewDocument]
) -> None:
    file, letters = tmp_path / "a.jsonl", tmp_path / "bad.jsonl"
    file.write_text(BAD)
    stopped = runner.invoke(app, ["produce", str(file)])
    assert (stopped.exit_code, [document.text for document in sent]) == (1, ["one"])
    assert "1 documents were sent; to go on: --from-line 2" in stopped.stderr
    assert "a.jsonl:2: there is no field 'pol'; nearest: 'pool'" in stopped.stderr
    sent.clear()
    skipped = runner.invoke(app, ["produce", str(file), "--on-error", "skip", "--from-line", "2"])
    assert (skipped.exit_code, [document.text for document in sent]) == (1, ["three"])
    assert "2 records were left out" in skipped.stderr
    assert "a.jsonl:4: is no JSON" in skipped.stderr
    sent.clear()
    kept = runner.invoke(app, ["produce", "--on-error", "dead-letter", str(letters), str(file)])
    assert (kept.exit_code, [document.text for document in sent]) == (1, ["one", "three"])
    assert letters.read_text() == '{"text": "two", "pol": "logs"}\nrubbish\n'
    reasons = [json.loads(line) for line in (tmp_path / "bad.jsonl.reasons.jsonl").read_text().splitlines()]
    places = [(reason["file"], reason["line"], reason["byte"]) for reason in reasons]
    assert places == [
        (str(file), 2, 16),
        (str(file), 4, 65),
    ]
    # Mended, it can be read again.
    letters.write_text(letters.read_text().replace("pol", "pool").replace("rubbish", '{"text": "four"}'))
    assert runner.invoke(app, ["produce", str(letters)]).exit_code == 0
    assert [document.text for document in sent[2:]] == ["two", "four"]


def test_kept_records_are_byte_for_byte_and_have_what_comes_before_them(
    runner: CliRunner, tmp_path: Path, sent: list[NewDocument]
) -> None:
    file, letters = tmp_path / "a.csv", tmp_path / "bad.csv"
    file.write_bytes('id,text\r\n1,"two\r\nM\xfcnchen"\r\n2,Ulm\r\n'.encode("latin-1"))
    arguments = ["produce", str(file), "--on-error", "dead-letter", str(letters)]
    for _ in range(2):
        assert runner.invoke(app, arguments).exit_code == 1
    record = b'1,"two\r\nM\xfcnchen"\r\n'
    assert letters.read_bytes() == b"id,text\r\n" + 2 * record
    assert runner.invoke(app, ["produce", str(letters), "--encoding", "latin-1"]).exit_code == 0
    assert sent[-1].text == "two\r\nMünchen"
    other = tmp_path / "b.csv"
    other.write_bytes(b"text,id\n\xff,1\n")
    mixed = runner.invoke(app, ["produce", str(other), "--on-error", "dead-letter", str(letters)])
    assert mixed.exit_code == 1
    assert "records of another kind" in mixed.stderr
    excel = tmp_path / "e.csv"
    excel.write_bytes(b"sep=;\r\nid;text\r\n1;a\r\nx\r\n")
    for file, kept in ((excel, tmp_path / "e.bad"), (tmp_path / "e.bad", tmp_path / "e.bad2")):
        words = ["produce", str(file), "--input-format", "csv", "--on-error", "dead-letter", str(kept)]
        assert runner.invoke(app, words).exit_code == 1
        assert kept.read_bytes() == b"sep=;\r\nid;text\r\nx\r\n"
    wide = tmp_path / "w.jsonl"
    wide.write_bytes('{"text": "Ċ"}\n{"text": 1}'.encode("utf-16"))
    assert runner.invoke(app, ["produce", str(wide), "--on-error=dead-letter", str(tmp_path / "w.bad")]).exit_code == 1
    assert (tmp_path / "w.bad").read_bytes().decode("utf-16") == '{"text": 1}\n'


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--on-error", "dead-letter"], 2, "dead-letter needs a file behind it"),
        (["--on-error", "foo"], 2, "none of: stop, skip, dead-letter FILE"),
        (["--on-error", "dead-leter", "b.jsonl"], 2, "nearest: 'dead-letter'"),
        (["--on-error", "dead-letters", "b.jsonl"], 2, "nearest: 'dead-letter'"),
        (["--on-error", "dead-letter", "--rate", "5"], 2, "dead-letter needs a file behind it"),
        (["--on-error=skp"], 2, "nearest: 'skip'"),
        (["--follow", "--state", "a.jsonl"], 2, "is the file that is followed"),
        (["--on-error"], 2, "requires an argument"),
        (["--on-error", "dead-letter", "a.jsonl"], 1, "is the input"),
        (["--on-error", "dead-letter", "nowhere/b.jsonl"], 1, "in a folder that is there"),
        (["--encoding", "lattin-1"], 2, "nearest: 'latin-1'"),
        (["--delimiter", ";;"], 2, "one character"),
        (["--from-line", "9"], 1, "has 4 lines"),
    ],
)
def test_what_cannot_be_meant(
    runner: CliRunner,
    tmp_path: Path,
    sent: list[NewDocument],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "t"}\n' * 4)
    result = runner.invoke(app, ["produce", "a.jsonl", *words])
    assert result.exit_code == code
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert sent == [] or "--from-line" in words


def test_text_in_another_encoding_is_an_error_unless_it_is_named_or_replaced(
    runner: CliRunner, tmp_path: Path, sent: list[NewDocument]
) -> None:
    file = tmp_path / "latin1.txt"
    file.write_bytes("Zürich\n".encode("latin-1"))
    refused = runner.invoke(app, ["produce", str(file)])
    assert (refused.exit_code, sent) == (1, [])
    assert "latin1.txt:1: is not UTF-8: 0xFC at byte 1" in refused.stderr
    piped = runner.invoke(app, ["produce", "-"], input=file.read_bytes())
    assert (piped.exit_code, sent) == (1, [])
    assert runner.invoke(app, ["produce", str(file), "--encoding", "latin-1"]).exit_code == 0
    replaced = runner.invoke(app, ["produce", str(file), "--errors", "replace"])
    assert replaced.exit_code == 0
    assert "1 times bytes that are no text were read as U+FFFD, in 1 lines" in replaced.stderr
    assert [document.text for document in sent] == ["Zürich", "Z\ufffdrich"]


def test_a_signal_ends_the_waiting_and_nothing_else() -> None:
    done: list[int] = []

    def things() -> Iterator[int]:
        yield 1
        yield 2
        os.kill(os.getpid(), signal.SIGINT)  # while the third is waited for
        yield 3

    with StoppableIteration[int]() as interrupt_flag:
        done += interrupt_flag.until_stopped(things())
    assert (done, interrupt_flag.exit_status) == ([1, 2], 130)

    done = []
    with StoppableIteration[int]() as interrupt_flag:
        for number in interrupt_flag.until_stopped(iter(range(10))):
            if number == 4:
                os.kill(os.getpid(), signal.SIGTERM)  # while one is worked on: that is done
            done.append(number)
    assert (done, interrupt_flag.exit_status) == ([0, 1, 2, 3, 4], 143)


def test_a_signal_waits_for_what_is_written_down() -> None:
    kept: list[str] = []

    def things() -> Iterator[int]:
        with interrupt_flag.undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            kept.append("whole")
        yield 1

    with StoppableIteration[int]() as interrupt_flag:
        assert list(interrupt_flag.until_stopped(things())) == []
    assert kept == ["whole"]


def test_standard_input_cannot_be_followed(runner: CliRunner, sent: list[NewDocument]) -> None:
    result = runner.invoke(app, ["produce", "-", "--follow"], input="x\n")
    assert result.exit_code == 1
    assert "can be followed" in result.stderr
    assert sent == []


def test_a_followed_file_is_gone_on_with_where_ctrl_c_ended_it(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import workers.produce

    sent: list[NewDocument] = []

    def collect(_settings: Any, given: Any, *, delivered: Any, **_: Any) -> workers.produce.Produced:
        before = len(sent)
        for document in given:
            sent.append(document)
            delivered(document)
            if len(sent) in (2, 4):
                os.kill(os.getpid(), signal.SIGINT)
        return workers.produce.Produced(len(sent) - before, 0.5)

    monkeypatch.setattr(workers.produce, "produce_documents", collect)
    file, state = tmp_path / "a.log", tmp_path / "state"
    file.write_text("same\nsame\nsame\nlast\n")
    for number in (2, 4):
        result = runner.invoke(
            app, ["produce", str(file), "--follow", "--distinct", "--state", str(state), "--pool", "logs"]
        )
        assert result.exit_code == 130
        assert len(sent) == number
        assert "2 documents sent" in result.stderr
    assert [document.text for document in sent] == ["same", "same", "same", "last"]
    assert len({document.id for document in sent}) == 4
    for words in (["--state", "s"], ["--state", "s", "--follow", "--from-line", "2"]):
        assert runner.invoke(app, ["produce", str(file), *words]).exit_code == 2


def test_a_rate_is_kept_and_not_made_up_for() -> None:
    now = 0.0
    times = []

    def clock() -> float:
        return now

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    documents = [NewDocument(str(number), "x") for number in range(6)]
    paced = at_rate(documents, 2.0, monotonic=clock, sleep=sleep)
    for number, _ in enumerate(paced):
        times.append(now)
        if number == 2:
            now += 3
    assert times == [0, 0.5, 1, 4, 4.5, 5]


def test_counting_lines_for_the_bar(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    file.write_text("a\n\nb\n")
    assert produce._count(file, "text", follow=False) == 2
    assert produce._count(file, "csv", follow=False) is None
    assert produce._count(None, "text", follow=False) is None


def show(value: dict[str, Any]) -> str:
    out = StringIO()
    show_tagged(value, Console(file=out, soft_wrap=True, markup=False, highlight=False))
    return out.getvalue()


def test_tagged_documents_as_lines() -> None:
    entity = {"start": 0, "end": 3, "text": "Ada", "type": "person"}
    whole = {"id": "d1", "text": "Ada slept.", "status": "complete", "entities": [entity], "missing": [], "error": None}
    assert show(whole) == "d1 [Ada|person] slept.\n"
    partial = {**whole, "status": "partial", "missing": ["validate"]}
    assert show(partial) == "d1 (partial, no answer from validate) [Ada|person] slept.\n"
    error = {"stage": "document", "code": "json", "message": "not JSON"}
    failed = {"id": "d2", "text": None, "status": "failed", "entities": [], "missing": ["document"], "error": error}
    assert show(failed) == "d2 (failed: document: json: not JSON) \n"


def test_the_demos_documents(tmp_path: Path) -> None:
    shipped = _read(None, None)
    assert len(shipped) >= 60
    assert {document.pool for document in shipped} == {"news", "logs"}
    assert len(_read(None, 6)) == 6
    twice = tmp_path / "twice.jsonl"
    twice.write_text('{"id": "a", "text": "x"}\n' * 2)
    with pytest.raises(InputError, match="'a' is there twice"):
        _read(twice, None)
    twice.write_text("")
    with pytest.raises(InputError, match="no documents"):
        _read(twice, None)


def test_a_missing_file_of_documents_is_wrong_usage(runner: CliRunner) -> None:
    assert runner.invoke(app, ["demo", "--documents", "nowhere.jsonl"]).exit_code == 2
