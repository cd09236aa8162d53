"""The stream's commands, as far as they go without a broker."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.unit.test_cli import runner, undisturbed
from workers.cli import produce
from workers.cli.app import app
from workers.cli.demo import _read
from workers.cli.tail import show_tagged
from workers.inputs import InputError, NewDocument
from workers.pacing import at_rate

__all__ = ["runner", "undisturbed"]


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


def test_standard_input_cannot_be_followed(runner: CliRunner, sent: list[NewDocument]) -> None:
    result = runner.invoke(app, ["produce", "-", "--follow"], input="x\n")
    assert result.exit_code == 1
    assert "can be followed" in result.stderr
    assert sent == []


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
