"""``el4ner pool import --to-topic`` and ``export --taught``, with a real topic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from el4ner.pools import Pool, load_pool
from tests.integration.stream_harness import Stream, wait_until
from workers.cli.app import app
from workers.topics import Topic

pytestmark = pytest.mark.integration

THUMB = "\U0001f44d"


def run(stream: Stream, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["pool", *arguments, "--config", str(stream.config)])


def exported(stream: Stream, folder: Path) -> Pool:
    result = run(stream, "export", "news", "--to", "jsonl", "--taught", "--output", str(folder))
    assert result.exit_code == 0, result.stderr
    return load_pool(folder)


def test_what_is_imported_to_the_topic_is_in_what_is_exported(stream: Stream, tmp_path: Path) -> None:
    stream.create_topics()
    assert exported(stream, tmp_path / "before") == load_pool("news")
    known = load_pool("news").sentences[0]
    records = [
        {"text": f"{THUMB} Zoë met Bo. It rained.", "label": [[3, 6, "person"], [11, 13, "person"]]},
        {"text": known.text, "label": []},
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    teach = ["import", str(file), "--from", "doccano", "--to-topic", "--pool", "news", "--teacher", "Ada"]
    result = run(stream, *teach)
    assert (result.exit_code, stream.ends(Topic.POOL_EXAMPLES)) == (0, 3), result.stderr
    assert "pool news was taught 3 sentences" in result.stderr
    after = exported(stream, tmp_path / "after")
    by_text = {sentence.text: [span.text for span, _ in sentence.spans] for sentence in after.sentences}
    assert by_text[f"{THUMB} Zoë met Bo."] == ["Zoë", "Bo"]
    assert (by_text["It rained."], by_text[known.text]) == ([], [])
    assert len(after.sentences) == len(load_pool("news").sentences) + 2
    # The same once more: each text has one example.
    assert run(stream, *teach).exit_code == 0
    assert exported(stream, tmp_path / "again").fingerprint == after.fingerprint


def test_types_that_the_pool_does_not_have_are_taught_if_asked_for_and_nothing_is_taught_by_halves(
    stream: Stream, tmp_path: Path
) -> None:
    stream.create_topics()
    file = tmp_path / "a.jsonl"
    records = [{"text": "Bo ran.", "label": [[0, 2, "person"]]}, {"text": "Rex barked.", "label": [[0, 3, "dog"]]}]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    teach = ["import", str(file), "--from", "doccano", "--to-topic", "--pool", "news"]
    stopped = run(stream, *teach)
    assert (stopped.exit_code, stream.ends(Topic.POOL_EXAMPLES)) == (2, 0)
    assert f"{file}:2: type 'dog' is not one of pool news" in stopped.stderr
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs" / "pool.toml").write_text('[types]\ndog = "an animal that barks"\n')
    (tmp_path / "dogs" / "b.jsonl").write_text('{"text": "Rex", "spans": []}\n')
    assert run(stream, *teach, "--new-types", "--types-of", str(tmp_path / "dogs")).exit_code == 0
    assert exported(stream, tmp_path / "after").types["dog"] == "an animal that barks"
    contradicting = [{"text": "Bo ran.", "label": [[0, 2, "person"]]}, {"text": "Bo ran.", "label": []}]
    file.write_text("".join(json.dumps(record) + "\n" for record in contradicting))
    assert "the same text as at" in run(stream, *teach).stderr
    assert run(stream, *teach, "--on-error", "skip").exit_code == 0


def test_without_a_topic_one_line_says_so(stream: Stream, tmp_path: Path) -> None:
    result = run(stream, "export", "news", "--to", "jsonl", "--taught", "--output", str(tmp_path / "pool"))
    assert result.exit_code == 1
    assert "create the topics with: el4ner topics create" in result.stderr
    assert not (tmp_path / "pool").exists()


def test_the_queue_has_what_is_tagged_without_what_was_deleted_or_taught(stream: Stream, tmp_path: Path) -> None:
    stream.create_topics()
    worker = stream.start("all").wait_ready()
    texts = {"a": "Here is Quux.", "b": "Here is Zork.", "c": "Here is Plugh."}
    stream.produce_documents([{"id": name, "text": text, "pool": "news"} for name, text in texts.items()])
    stream.wait_tagged(3)
    stream.produce([(b"b", None)])
    wait_until(lambda: any(record.value is None for record in stream.read(Topic.TAGGED_DOCUMENTS)), what="deleted")
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": texts["c"], "label": []}) + "\n")
    assert run(stream, "import", str(file), "--from", "doccano", "--to-topic", "--pool", "news").exit_code == 0
    result = run(stream, "queue", "news", "--from-topic", "--format", "json")
    assert [json.loads(line)["document"] for line in result.stdout.splitlines()] == ["a"], result.stderr
    assert "1 sentences out of 2 documents of pool news" in result.stderr
    assert worker.stop() == 0
