"""``el4ner redact``: texts without their names."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from el4ner.errors import DocumentError
from el4ner.redaction.key_ring import KeyRing
from el4ner.redaction.redaction_settings import RedactionSettings
from el4ner.redaction.redactor import Detection, Redactor
from workers.cli.app import app

pytestmark = pytest.mark.usefixtures("undisturbed")

TEXT = "Ada Lovelace met Charles Babbage in London. Write to ada.lovelace@example.org!"
INSTANT = ["--ensemble", "instant"]
KEY = f"2026-11:{'5e' * 32}"


def test_a_text_comes_out_without_its_names(runner: CliRunner) -> None:
    result = runner.invoke(app, ["redact", "--mask", TEXT, *INSTANT])
    assert result.exit_code == 0
    assert not re.search("ada|lovelace", result.stdout, re.IGNORECASE)
    assert result.stdout.endswith("@example.org!\n")
    named = runner.invoke(app, ["redact", "text", "--mask", TEXT, *INSTANT])
    assert named.stdout == result.stdout


def test_without_a_key_pseudonyms_are_of_one_run(runner: CliRunner) -> None:
    first, second = (runner.invoke(app, ["redact", TEXT, *INSTANT]) for _ in range(2))
    assert re.match(r"\[\w+:[0-9a-f]{16}\] ", first.stdout)
    assert first.stdout != second.stdout
    assert "this run's own" in first.stderr


def test_a_key_makes_the_same_pseudonyms_again(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EL4NER_REDACTION__KEYS", KEY)
    first, second = (runner.invoke(app, ["redact", TEXT, "--format", "json", *INSTANT]) for _ in range(2))
    assert first.stdout == second.stdout
    document = json.loads(first.stdout)
    assert document["key"] == "2026-11"
    for replacement in document["replacements"]:
        shown = document["text"][replacement["start"] : replacement["end"]]
        assert shown.startswith(f"[{replacement['type']}:")
        assert 0 <= replacement["original_start"] < replacement["original_end"] <= len(TEXT)


def test_a_rule_for_a_type_that_no_pool_has_is_told(runner: CliRunner, tmp_path: Path) -> None:
    config = tmp_path / "el4ner.toml"
    config.write_text('[redaction]\naction = "keep"\ntypes = { preson = "mask" }\n')
    result = runner.invoke(app, ["redact", TEXT, "--config", str(config), *INSTANT])
    assert (result.exit_code, result.stdout) == (0, TEXT + "\n")
    assert "redaction.types.preson: no pool" in result.stderr


def test_files_and_records_as_tag_reads_them(runner: CliRunner, tmp_path: Path) -> None:
    config = tmp_path / "el4ner.toml"
    config.write_text('[redaction]\naction = "mask"\nmetadata = ["source"]\n')
    file = tmp_path / "some.jsonl"
    records = [{"id": "a", "text": "Ada Lovelace", "metadata": {"source": "web", "author": "Ada"}}, {"text": "- !"}]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    result = runner.invoke(app, ["redact", str(file), "--format", "json", "--config", str(config), *INSTANT])
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["id"], first["metadata"], second["text"]) == ("a", {"source": "web"}, "- !")
    assert "Ada" not in json.dumps(first)


def test_a_document_that_cannot_be_redacted_is_not_written(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    redact = Redactor.redact

    def fails_once(self: Redactor, text: str, *args: object, **named: object) -> object:
        if text.startswith("Ada"):
            raise DocumentError("it cannot be done", code="redaction")
        return redact(self, text, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Redactor, "redact", fails_once)
    file = tmp_path / "two.txt"
    file.write_text("Ada Lovelace\n- !\n")
    result = runner.invoke(app, ["redact", "--mask", "--lines", str(file), *INSTANT])
    assert (result.exit_code, result.stdout) == (1, "- !\n")
    assert "two.txt:1: it cannot be done" in result.stderr


def test_a_document_that_cannot_be_tagged_is_not_written(runner: CliRunner, tmp_path: Path) -> None:
    config = tmp_path / "el4ner.toml"
    config.write_text("[method]\nmax_document_chars = 10\n")
    result = runner.invoke(app, ["redact", "--mask", "Ada Lovelace " * 3, "--config", str(config), *INSTANT])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Ada" not in result.stderr


def test_a_new_key_is_one_that_can_be_used(runner: CliRunner) -> None:
    result = runner.invoke(app, ["redact", "keygen", "--id", "blue"])
    assert list(KeyRing.parse(result.stdout, "test")) == ["blue"]
    assert runner.invoke(app, ["redact", "keygen"]).stdout != result.stdout
    wrong = runner.invoke(app, ["redact", "keygen", "--id", "no spaces"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")


def test_a_wrong_key_is_not_shown(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EL4NER_REDACTION__KEYS", "2026-11:c0ffee")
    result = runner.invoke(app, ["redact", TEXT, *INSTANT])
    assert result.exit_code == 2
    assert "redaction.keys: key 1: expected ID:KEY" in result.stderr
    assert "c0ffee" not in result.output


def test_made_up_names_look_like_names_and_are_told_from_real_ones_by_the_replacements(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faker")
    monkeypatch.setenv("EL4NER_REDACTION__KEYS", KEY)
    asked = ["redact", "--surrogates", TEXT, "--format", "json", *INSTANT]
    first, second = (runner.invoke(app, asked) for _ in range(2))
    assert (first.exit_code, first.stdout) == (0, second.stdout)
    document = json.loads(first.stdout)
    assert not re.search("ada|lovelace", document["text"], re.IGNORECASE)
    made_up = [each for each in document["replacements"] if each["action"] == "surrogate"]
    assert made_up
    assert all("[" not in document["text"][each["start"] : each["end"]] for each in made_up)
    both = runner.invoke(app, ["redact", "--mask", "--surrogates", TEXT, *INSTANT])
    assert (both.exit_code, both.stdout) == (2, "")


def test_the_pseudonym_of_a_name_is_that_of_the_documents(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EL4NER_REDACTION__KEYS", f"{KEY},old:{'0f' * 32}")
    found = [Detection(0, 12, "person"), Detection(17, 25, "person")]
    keys = KeyRing.parse(f"{KEY},old:{'0f' * 32}", "test")
    text = Redactor(RedactionSettings(), keys).redact("ADA LOVELACE met Lovelace.", found).text
    asked = ["redact", "pseudonym", "Ada Lovelace", "--type", "person"]
    told = runner.invoke(app, asked).stdout.strip()
    assert text == f"{told} met {told}."
    older = runner.invoke(app, [*asked, "--key", "old"])
    assert older.exit_code == 0
    assert older.stdout.strip() not in (told, "")
    unknown = runner.invoke(app, [*asked, "--key", "odl"])
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "nearest: 'old'" in unknown.stderr
    pytest.importorskip("faker")
    surrogate = runner.invoke(app, [*asked, "--surrogate"]).stdout.strip()
    assert re.fullmatch(r"[A-Z]\w+ [A-Z]\w+", surrogate)


def test_a_pseudonym_takes_a_key(runner: CliRunner) -> None:
    result = runner.invoke(app, ["redact", "pseudonym", "Ada Lovelace", "--type", "person"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "need a key" in result.stderr
