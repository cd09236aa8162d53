"""What is said where no broker answers: by every command that needs one, in the same words."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.cli.app import app
from workers.config import load_stream_settings
from workers.kafka.broker import no_broker_message

pytestmark = pytest.mark.usefixtures("undisturbed")

NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    "arguments",
    [
        ["worker", "all"],
        ["worker", "aggregate"],
        ["topics", "create"],
        ["topics", "describe"],
        ["produce", "documents.txt"],
        ["tail"],
        ["tail", "--from", "earliest"],
        ["dlq", "list"],
        ["dlq", "show", "0-0"],
        ["dlq", "replay", "--all"],
        ["dlq", "replay", "0-0", "--yes"],
    ],
    ids=" ".join,
)
def test_without_a_broker_every_command_names_the_setting_and_how_to_start_one(
    arguments: list[str], runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", NOWHERE)
    (tmp_path / "documents.txt").write_text("Ada Lovelace\n")
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1, result.output
    for words in (
        f"no Kafka broker answers at {NOWHERE}: that is kafka.bootstrap_servers, from the variable "
        "KAFKA_BOOTSTRAP_SERVERS",
        'eval "$(el4ner local up)"',
    ):
        assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("environ", "file", "said"),
    [
        ({}, "", "localhost:9092: that is kafka.bootstrap_servers, by default"),
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "a:1, b:2"},
            "",
            "a:1,b:2: that is kafka.bootstrap_servers, from the variable KAFKA",
        ),
        (
            {"EL4NER_KAFKA__BOOTSTRAP_SERVERS": "a:1", "KAFKA_BOOTSTRAP_SERVERS": "b:1"},
            "",
            "a:1: that is kafka.bootstrap_servers, from the variable EL4NER_KAFKA__BOOTSTRAP_SERVERS",
        ),
        ({}, 'bootstrap_servers = "c:3"', "c:3: that is kafka.bootstrap_servers, from the configuration"),
    ],
)
def test_it_says_where_the_address_came_from(environ: dict[str, str], file: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "el4ner.toml"
    path.write_text(f"[kafka]\n{file}\n")
    settings = load_stream_settings(path, environ=environ)
    assert f"no Kafka broker answers at {said}" in no_broker_message(settings.kafka, environ=environ)
