"""``el4ner pool check`` and what it finds."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from el4ner.config import PoolsSettings
from el4ner.pools import Pool, PoolSentence, load_pools
from el4ner.pools.check import check_pool
from el4ner.types import Span
from workers.cli.app import app

pytestmark = pytest.mark.usefixtures("undisturbed")


def sentence(text: str, *spans: tuple[str, str], line: int = 1) -> PoolSentence:
    found = tuple((Span(text.index(s), text.index(s) + len(s), s), label) for s, label in spans)
    return PoolSentence(text, tuple(sorted(found)), f"pool.jsonl:{line}")


def pool(*sentences: PoolSentence) -> Pool:
    return Pool("p", {"person": "a human being", "place": "a place"}, sentences)


def test_counts() -> None:
    report = check_pool(pool(sentence("Ada in Rome.", ("Ada", "person"), ("Rome", "place")), sentence("It rained.")))
    assert (report.sentences, report.entity_free, report.mentions) == (2, 1, {"person": 1, "place": 1})
    assert report.findings == ()


@pytest.mark.parametrize(
    ("sentences", "severity", "where", "said"),
    [
        ([sentence("See Ada now", ("Ada ", "person"))], "error", "pool.jsonl:1", "white space"),
        ([sentence("See Ada, now", ("Ada,", "person"))], "warning", "pool.jsonl:1", "punctuation"),
        ([sentence("See Ada) now", ("Ada)", "person"))], "warning", "pool.jsonl:1", "punctuation"),
        ([sentence("Same."), sentence("Same.", line=2)], "warning", "pool.jsonl:2", "same sentence as at pool.jsonl:1"),
        ([sentence("Ada."), sentence("Ada.", ("Ada", "person"), line=2)], "error", "pool.jsonl:2", "otherwise"),
        (
            [sentence("Sydney slept.", ("Sydney", "person")), sentence("To Sydney.", ("Sydney", "place"), line=2)],
            "warning",
            "pool.jsonl:1",
            "different types: person 1×, place 1×",
        ),
    ],
)
def test_findings_name_the_place(sentences: list[PoolSentence], severity: str, where: str, said: str) -> None:
    extra = [sentence("Ada in Rome, again.", ("Ada", "person"), ("Rome", "place"), line=8), sentence("No.", line=9)]
    (finding,) = check_pool(pool(*sentences, *extra)).findings
    assert (finding.severity, finding.where) == (severity, where)
    assert said in finding.message


@pytest.mark.parametrize("surface", ["Inc.", "/etc/passwd", "(500) Days", "Yahoo", "f(x)", "-bash"])
def test_punctuation_that_belongs_to_a_name_is_left_alone(surface: str) -> None:
    report = check_pool(
        pool(sentence(f"See {surface} at Rome", (surface, "person"), ("Rome", "place")), sentence("No."))
    )
    assert report.findings == ()


def test_a_type_without_mentions_and_a_pool_without_entity_free_sentences() -> None:
    messages = [finding.message for finding in check_pool(pool(sentence("Ada.", ("Ada", "person")))).findings]
    assert any("type 'place' has no mention" in message for message in messages)
    assert any("free of entities" in message for message in messages)


def test_shipped_pools_have_no_errors(runner: CliRunner) -> None:
    result = runner.invoke(app, ["pool", "check", "news", "logs"])
    assert result.exit_code == 0
    assert "error" not in result.stderr
    assert "290 sentences" in result.stdout or "sentences" in result.stdout


def test_json_for_programs(runner: CliRunner) -> None:
    report = json.loads(runner.invoke(app, ["pool", "check", "news", "--format", "json"]).stdout)
    assert {"name", "fingerprint", "sentences", "entity_free", "mentions", "findings", "errors"} <= report.keys()


def test_broken_pools_name_file_and_line_and_the_others_are_checked(runner: CliRunner, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine", "spans": [{"start": 0, "end": 4, "type": "x"}]}\n{"text": 7}\n')
    result = runner.invoke(app, ["pool", "check", str(broken), "news"])
    assert result.exit_code == 1
    assert f"error: {broken}:2: " in result.stderr
    assert result.stdout.startswith("news (")


def test_an_index_needs_retrieval_that_has_one(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "el4ner.toml"
    file.write_text('[retrieval]\nkind = "random"\n')
    result = runner.invoke(app, ["pool", "index", "--config", str(file)])
    assert result.exit_code == 2
    assert "retrieval.kind" in result.stderr


def test_wrong_sentences_are_left_out_with_a_count_if_asked_for(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "tweets.conll"
    file.write_text("Ann\tB-person\nran\tO\n\n\u00a0\tO\nBo\tB-person\n", encoding="utf-8")
    stopped = runner.invoke(app, ["pool", "check", str(file)])
    assert stopped.exit_code == 1
    assert f"error: {file}:4: the token has nothing to see: it is U+00A0" in stopped.stderr
    skipped = runner.invoke(app, ["pool", "check", str(file), "--on-error", "skip"])
    assert skipped.exit_code == 0
    assert "left out: 1 sentences, 1 of them wrong" in skipped.stdout
    assert f"warning: {file}:4: left out: the token has nothing to see" in skipped.stderr
    configured = runner.invoke(
        app, ["pool", "check", str(file), "--format", "json"], env={"EL4NER_POOLS__ON_ERROR": "skip"}
    )
    assert [out["where"] for out in json.loads(configured.stdout)["left_out"]] == [f"{file}:4"]


def test_a_pool_that_stages_load_says_what_was_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "tweets.conll"
    file.write_text("Ann\tB-person\n\n\u00a0\tO\n", encoding="utf-8")
    settings = PoolsSettings(default="tweets", paths={"tweets": str(file)}, on_error="skip")
    assert len(load_pools(settings)["tweets"].sentences) == 1
    assert f"pool tweets: 1 sentences were left out, the first at {file}:3" in caplog.text
