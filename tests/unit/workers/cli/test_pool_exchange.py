"""``el4ner pool import`` and ``el4ner pool export``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from el4ner.pools import load_pool
from el4ner.pools.exchange import EXPORT_FORMATS, IMPORT_FORMATS
from workers.cli.app import app
from workers.cli.pool_exchange import PoolFormat

pytestmark = pytest.mark.usefixtures("undisturbed")

SPAN = {"start": 0, "end": 3, "label": "PER"}


def lines(path: Path, *records: object) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_the_commands_offer_what_can_be_read_and_written() -> None:
    assert set(PoolFormat) == set(IMPORT_FORMATS) == set(EXPORT_FORMATS)


@pytest.mark.parametrize("tool", EXPORT_FORMATS)
def test_a_pool_goes_out_and_comes_back(runner: CliRunner, tmp_path: Path, tool: str) -> None:
    output, back = str(tmp_path / "out.jsonl" if tool != "brat" else tmp_path / "out"), str(tmp_path / "back")
    result = runner.invoke(app, ["pool", "export", "news", "--to", tool, "--output", output])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "290 of the 290 sentences of pool news" in result.stderr
    command = ["pool", "import", output, "--from", tool, "--output", back, "--types-of", "news", "--pool", "news"]
    result = runner.invoke(app, [*command, "--no-split"])
    assert result.exit_code == 0, result.stderr
    assert "pool news, 290 sentences, 56 without entities" in result.stderr
    news, again = load_pool("news"), load_pool(back)
    assert (again.types, again.sentences, again.name) == (news.types, news.sentences, "news")
    assert again.fingerprint == news.fingerprint
    refused = runner.invoke(app, [*command, "--no-split"])
    assert refused.exit_code == 2
    assert "there is a pool already; --force writes over it" in refused.stderr
    assert runner.invoke(app, [*command, "--no-split", "--force"]).exit_code == 0


def test_a_pool_of_our_own_is_written_as_a_folder_with_its_types(runner: CliRunner, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    assert runner.invoke(app, ["pool", "export", "logs", "--to", "jsonl", "--output", str(output)]).exit_code == 0
    assert load_pool(output) == load_pool("logs")


def test_standard_output_has_the_file_and_nothing_else(runner: CliRunner) -> None:
    result = runner.invoke(app, ["pool", "export", "news", "--to", "prodigy"])
    assert [json.loads(line)["answer"] for line in result.stdout.splitlines()] == ["accept"] * 290
    tasks = runner.invoke(app, ["pool", "export", "news", "--to", "labelstudio", "--output", "-"])
    assert len(json.loads(tasks.stdout)) == 290
    refused = runner.invoke(app, ["pool", "export", "news", "--to", "brat"])
    assert refused.exit_code == 2
    assert "--output" in refused.stderr


def test_what_was_left_out_is_said_and_counted(runner: CliRunner, tmp_path: Path) -> None:
    file = lines(
        tmp_path / "a.jsonl",
        {"text": "Ann ran. It rained.", "spans": [SPAN], "answer": "accept"},
        {"text": "Bo ran.", "spans": [], "answer": "reject"},
        {"text": "Cy ran.", "spans": [{**SPAN, "end": 30}], "answer": "accept"},
    )
    command = ["pool", "import", file, "--from", "prodigy", "--output", str(tmp_path / "pool")]
    stopped = runner.invoke(app, command)
    assert stopped.exit_code == 2
    assert f"error: {file}:3: span 0–30 is not inside the text" in stopped.stderr
    assert not (tmp_path / "pool").exists()
    result = runner.invoke(app, [*command, "--on-error", "skip"])
    assert result.exit_code == 0
    assert f"warning: {file}:2: left out: rejected in Prodigy" in result.stderr
    assert "left out: 2, 1 of them wrong" in result.stderr
    assert "pool pool, 2 sentences, 1 without entities; PER 1" in result.stderr
    assert "describes PER by nothing but the name" in result.stderr
    assert [s.text for s in load_pool(tmp_path / "pool").sentences] == ["Ann ran.", "It rained."]


def test_a_file_without_entities_makes_no_pool(runner: CliRunner, tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"text": "Ann", "label": []})
    result = runner.invoke(app, ["pool", "import", file, "--from", "doccano", "--output", str(tmp_path / "pool")])
    assert result.exit_code == 2
    assert "none of the 1 sentences has a labelled span" in result.stderr
    assert not (tmp_path / "pool").exists()


def test_a_sentence_that_the_format_cannot_hold_stops_the_export(runner: CliRunner, tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 3, "type": "a person"}]
    file = lines(tmp_path / "a.jsonl", {"text": "Ann\nran", "spans": spans}, {"text": "It\nrains"})
    command = ["pool", "export", file, "--to", "conll"]
    stopped = runner.invoke(app, command)
    assert stopped.exit_code == 2
    assert f"error: {file}:1: type 'a person' has white space in its name" in stopped.stderr
    skipped = runner.invoke(app, [*command, "--on-error", "skip"])
    assert (skipped.exit_code, skipped.stdout) == (0, "It\tO\nrains\tO\n\n")
    assert f"warning: {file}:1: left out: type 'a person'" in skipped.stderr
    assert "1 sentences have line breaks" in skipped.stderr


def test_keys_that_say_nothing_about_entities_are_passed_over_if_asked_for(runner: CliRunner, tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"text": "Ann", "label": [[0, 3, "PER"]], "lang": "en", "url": "x"})
    command = ["pool", "import", file, "--from", "doccano", "--output", str(tmp_path / "pool")]
    assert "no key 'lang'" in runner.invoke(app, command).stderr
    assert runner.invoke(app, [*command, "--ignore", "lang", "--ignore", "url"]).exit_code == 0


def test_offsets_that_nothing_tells_are_asked_for(runner: CliRunner, tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"text": "\U0001f44d我在北京玩", "label": [[4, 6, "LOC"]]})
    command = ["pool", "import", file, "--from", "doccano", "--output", str(tmp_path / "pool")]
    assert "--offsets of pool import" in runner.invoke(app, command).stderr
    assert runner.invoke(app, [*command, "--offsets", "utf-16"]).exit_code == 0
    assert load_pool(tmp_path / "pool").sentences[0].spans[0][0].text == "北京"


def test_a_pool_is_not_written_into_standard_output(runner: CliRunner, tmp_path: Path) -> None:
    source = lines(tmp_path / "a.jsonl", {"text": "Ann ran", "spans": [SPAN], "answer": "accept"})
    result = runner.invoke(app, ["pool", "import", source, "--from", "prodigy", "--output", "-"])
    assert result.exit_code == 2
    assert "--output: a pool is a folder" in result.stderr
