"""Nothing that comes from elsewhere commands the terminal: file names, texts, log records, what was typed."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from typer.testing import CliRunner

from el4ner.errors import PoolError
from el4ner.pools import load_pool
from workers.cli.app import app
from workers.cli.output import complain, results, table, tell, told
from workers.cli.standard_output import results_file
from workers.config import WorkerSettings
from workers.printable import escaped, legible
from workers.telemetry.logs import configure_logging

pytestmark = pytest.mark.usefixtures("undisturbed")

NASTY = "a\x1b[31m\x1b]0;title\x07\r\x9b2J\u202eb\udcff\ud800"
NAME = NASTY.replace("\r", "").replace("\ud800", "")
"""A file may be called that; and the command `tag` takes it for a name."""
COMMANDING = set("\x1b\x07\r\x9b\u202e\udcff\ud800\x00\u2066")


def test_what_a_terminal_obeys_is_shown_as_an_escape() -> None:
    assert escaped(NASTY) == "a\\x1b[31m\\x1b]0;title\\x07\\r\\x9b2J\\u202eb\\xff\\ud800"
    assert escaped("a\nb\tc") == "a\nb\tc"
    assert escaped("a\nb\tc", lines=False) == "a\\nb\\tc"


SCRIPTS = (
    "Zoë 漢\u3000字 a\u00a0b",
    "می\u200cخواهم न\u094d\u200dष",
    "\U0001f468\u200d\U0001f692 \U0001f3f4\U000e0067",
    "\ue000 \u0378",
)


@pytest.mark.parametrize("text", SCRIPTS)
def test_what_a_script_or_an_emoji_needs_is_left_as_it_is(text: str) -> None:
    assert escaped(text) == legible(text) == text


@given(st.text(st.characters(codec=None), max_size=30))
def test_any_text_is_made_harmless(text: str) -> None:
    assert len(legible(text)) == len(text)
    for shown in (legible(text), escaped(text, lines=False)):
        assert not COMMANDING & set(shown)
        shown.encode()
    assert escaped(escaped(text)) == escaped(text)


@pytest.mark.parametrize(
    "command",
    [
        ["tag", f"{NAME}.txt"],
        ["tag", "text", "--pool", NAME],
        ["tag", "text", "--ensemble", NASTY],
        ["tag", "text", "--config", NAME],
        ["tag", "text", f"--{NASTY}"],
        ["tag", "text", NASTY],
        ["tag", "text", "--format", NASTY],
        ["produce", f"{NAME}.txt"],
        ["pool", "check", NAME],
        ["eval", NAME],
        ["eval", "x", "--json", f"/{NAME}/x"],
        ["topics", "acls", "--principal", NASTY],
        ["models", "prepare", f"packaged:{NASTY}"],
        ["schemas", NAME],
        ["worker", NASTY],
        [NASTY],
        ["pool", NASTY],
    ],
    ids=lambda command: " ".join(command[:2]).encode("ascii", "replace").decode()[:20],
)
def test_no_command_writes_what_was_typed_as_it_is(runner: CliRunner, command: list[str]) -> None:
    result = runner.invoke(app, command)
    assert result.exit_code != 0
    assert not COMMANDING & set(result.output)
    assert "31m" in result.output.replace("\n", "")


def test_a_pool_with_such_a_name_is_named_by_it(runner: CliRunner, tmp_path: Path) -> None:
    name = "a\x1b[2J\udcff.jsonl"
    (tmp_path / name).write_text('{"text": 7}\n')
    result = runner.invoke(app, ["pool", "check", str(tmp_path / name)])
    assert "a\\x1b[2J\\xff.jsonl:1: needs an object" in result.stderr.replace("\n", "")
    (tmp_path / name).write_text('{"text": "Ann", "label": [[0, 3, "PER"]]}\n')
    result = runner.invoke(app, ["pool", "check", str(tmp_path / name)])
    assert result.stdout.startswith("a\\x1b[2J\\xff (")
    assert "\x1b" not in result.output


class Terminal(io.StringIO):
    """What somebody sees."""

    def isatty(self) -> bool:
        return True


def attach(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return terminal


def test_on_a_terminal_every_way_to_print_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attach(monkeypatch)
    rows = table("name")
    rows.add_row(NASTY)
    results().print(rows)
    results().print(f"x {NASTY}")
    results().print(Text(NASTY))
    told().print(NASTY)
    tell(NASTY)
    complain(str(PoolError(NASTY)))
    output = terminal.getvalue()
    assert "\x1b[31m" not in output.replace("\x1b[1;31m", "")
    assert "\x1b]0;" not in output
    assert not {"\x07", "\x9b", "\u202e"} & set(output)
    assert output.count("\\x1b[31m") == 6
    assert "\x1b[1;31merror: " in output


def test_on_a_terminal_json_has_escapes_that_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = attach(monkeypatch)
    value = {"text": "\x9b2J\u202e\x7f\u200bZoë\u200d"}
    results_file().write(json.dumps(value, ensure_ascii=False) + "\n")
    line = terminal.getvalue()
    assert line.strip() == '{"text": "\\u009b2J\\u202e\\u007f\\u200bZoë\u200d"}'
    assert json.loads(line) == value


def test_in_a_pipe_what_is_for_people_is_harmless_and_what_is_for_programs_is_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    results().print("a\u202eb")
    results_file().write("a\x9bb\n")
    assert out.getvalue() == "a\\u202eb\na\x9bb\n"


def test_log_records_for_people_are_harmless(undisturbed: None) -> None:
    out = io.StringIO()
    configure_logging(WorkerSettings(log_format="console"), stream=out)
    try:
        load_pool(NAME)
    except PoolError:
        logging.getLogger("workers.x").exception("read %s", NASTY, extra={"document_id": NASTY, "topic": "a\nb"})
    assert not COMMANDING & set(out.getvalue())
    assert out.getvalue().count("\\x1b[31m") == 3
    assert "\nb" not in out.getvalue()
