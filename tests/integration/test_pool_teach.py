"""``el4ner pool add``, ``remove`` and ``log``, with a real topic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from el4ner.pools import load_pool
from el4ner.pools.examples import example_digest
from tests.integration.stream_harness import Stream
from workers.cli.app import app
from workers.teaching.topic_examples import taught_until_now
from workers.topics import Topic

pytestmark = pytest.mark.integration

ADD = ["add", "news", "--text", "Zorko met Mirko.", "--entity", "Zorko=person", "--teacher", "Ada"]


def run(stream: Stream, *arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, ["pool", *arguments, "--config", str(stream.config)], input=stdin)


def in_force(stream: Stream) -> dict[str, Any]:
    return {example.text: example for example in taught_until_now(stream.settings.kafka).values()}


def test_what_is_added_is_in_the_log_until_and_after_it_is_removed(stream: Stream) -> None:
    stream.create_topics()
    added = run(stream, *ADD, "--document", "wire-1")
    assert added.exit_code == 0, added.stderr
    digest = example_digest("Zorko met Mirko.")
    assert added.stdout == f"{digest[:12]}\tZorko met Mirko.\n"
    example = in_force(stream)["Zorko met Mirko."]
    assert [(span.text, label) for span, label in example.spans] == [("Zorko", "person")]
    assert (example.teacher, example.source.document) == ("Ada", "wire-1")
    again = run(stream, *ADD)
    assert "had that already" in again.stderr
    removed = run(stream, "remove", "news", digest[:6])
    assert (removed.exit_code, in_force(stream)) == (0, {})
    lines = [json.loads(line) for line in run(stream, "log", "news", "--format", "json").stdout.splitlines()]
    assert [(line["digest"], line.get("teacher"), line.get("withdrawn")) for line in lines][-1] == (digest, None, True)
    assert "Ada" in run(stream, "log").stdout
    missing = run(stream, "remove", "news", "--text", "Zorko met Mirko.")
    assert missing.exit_code == 2
    assert "has no example" in missing.stderr


def test_a_new_type_is_taught_with_its_description_and_kept_by_who_uses_it(stream: Stream) -> None:
    stream.create_topics()
    unknown = run(stream, "add", "news", "--text", "Zorko sells.", "--entity", "Zorko=gadget")
    assert unknown.exit_code == 2
    assert "type 'gadget' is not one of the pool's" in unknown.stderr
    assert stream.ends(Topic.POOL_EXAMPLES) == 0
    described = ["--new-type", "gadget=a small machine = a tool"]
    assert run(stream, "add", "news", "--text", "Zorko sells.", "--entity", "Zorko=gadget", *described).exit_code == 0
    assert run(stream, "add", "news", "--text", "Mirko sells.", "--entity", "Mirko=gadget").exit_code == 0
    assert {dict(each.types)["gadget"] for each in in_force(stream).values()} == {"a small machine = a tool"}


def test_where_the_pool_says_otherwise_nothing_is_taught_unless_it_is_meant(stream: Stream) -> None:
    stream.create_topics()
    names = [(span.text, label) for sentence in load_pool("news").sentences for span, label in sentence.spans]
    name = max(
        (name for name, label in names if label == "organization"), key=lambda each: names.count((each, "organization"))
    )
    odd = ["add", "news", "--text", f"Then {name} sang.", "--entity", f"{name}=person"]
    refused = run(stream, *odd)
    assert (refused.exit_code, stream.ends(Topic.POOL_EXAMPLES)) == (1, 0)
    assert f"the pool calls {name!r} organization" in refused.stderr
    assert "--yes" in refused.stderr
    assert run(stream, *odd, "--yes").exit_code == 0
    assert stream.ends(Topic.POOL_EXAMPLES) == 1


def test_lines_of_standard_input_are_taught_all_or_not_at_all(stream: Stream) -> None:
    stream.create_topics()
    lines = [{"text": "Zorko ran.", "entities": {"Zorko": "person"}}, {"text": "It rained."}]
    wrong = run(stream, "add", "news", stdin="".join(json.dumps(line) + "\n" for line in [*lines, {"text": 1}]))
    assert (wrong.exit_code, stream.ends(Topic.POOL_EXAMPLES)) == (2, 0)
    assert 'standard input:3: needs an object with a "text"' in wrong.stderr
    right = run(stream, "add", "news", stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert right.exit_code == 0, right.stderr
    assert set(in_force(stream)) == {"Zorko ran.", "It rained."}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["add", "nws", "--text", "x"], "nearest: 'news'"),
        (["add", "news", "--text", "Zorko ran.", "--entity", "Mirko=person"], "does not have 'Mirko'"),
        (["add", "news", "--text", "Zorko ran.", "--entity", "Zorko"], "expected SURFACE=TYPE"),
        (["add", "news", "--entity", "Zorko=person"], "about a --text"),
        (["remove", "news"], "name a digest"),
        (["remove", "news", ""], "name a digest"),
    ],
)
def test_what_cannot_be_taught_is_said_in_a_line(stream: Stream, arguments: list[str], reason: str) -> None:
    stream.create_topics()
    result = run(stream, *arguments)
    assert result.exit_code == 2
    assert reason in " ".join(result.stderr.replace("│", " ").split())
