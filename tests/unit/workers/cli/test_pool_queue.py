"""``el4ner pool queue``: from a file of tagged documents, and from the topic without a broker."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from el4ner.pools import load_pool
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import taught_pool
from workers.cli.app import app
from workers.tail import TailedDocument

pytestmark = pytest.mark.usefixtures("undisturbed")


def tagged(number: str, text: str, *entities: tuple[str, float], pool: str | None = "news") -> dict[str, Any]:
    """As ``el4ner tag --format json`` writes it: each surface is a person, with that confidence."""
    return {
        "id": number,
        "text": text,
        "pool": pool,
        "entities": [
            {
                "start": text.index(surface),
                "end": text.index(surface) + len(surface),
                "text": surface,
                "type": "person",
                "confidence": confidence,
                "proposed_by": [],
                "votes": {},
                "verdict": None,
            }
            for surface, confidence in entities
        ],
    }


def lines(path: Path, *documents: object) -> str:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return str(path)


SURE = tagged("sure", "It was Ada.", ("Ada", 0.98))
UNSURE = tagged("unsure", "It was Bo.", ("Bo", 0.31))


def test_the_least_certain_document_comes_first_and_it_says_why(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(app, ["pool", "queue", "news", lines(tmp_path / "a.jsonl", SURE, UNSURE)])
    assert result.exit_code == 0, result.stderr
    first, shown, second, _ = result.stdout.splitlines()
    assert first == "1. unsure:0: Bo is person with 31%; not in the pool: bo"
    assert shown == "It was [Bo|person]."
    assert second.startswith("2. sure:0: Ada is person with 98%")
    assert "2 sentences out of 2 documents of pool news" in result.stderr


def test_json_lines_name_the_place_in_the_document(runner: CliRunner, tmp_path: Path) -> None:
    document = tagged("d", "It rained. It was Bo.", ("Bo", 0.31))
    file = lines(tmp_path / "a.jsonl", document)
    result = runner.invoke(app, ["pool", "queue", "news", file, "--format", "json", "--limit", "1"])
    (line,) = map(json.loads, result.stdout.splitlines())
    assert (line["rank"], line["document"], line["start"], line["text"]) == (1, "d", 11, "It was Bo.")
    assert (line["entities"][0]["start"], line["doubt"], line["new_words"]) == (7, 0.69, ["bo"])
    assert document["text"][line["start"] :].startswith(line["text"])


def test_what_the_pool_has_and_what_repeats_is_left_out(runner: CliRunner, tmp_path: Path) -> None:
    known = load_pool("news").sentences[0].text
    documents = [tagged("k", known), *(tagged(str(year), f"In {year} Quux fell.") for year in range(1990, 1999))]
    result = runner.invoke(app, ["pool", "queue", "news", "-"], input="\n".join(map(json.dumps, documents)))
    assert "1 sentences out of 10 documents" in result.stderr
    assert "Quux fell." in result.stdout


def test_documents_of_other_pools_are_said_and_failed_ones_have_no_text(runner: CliRunner, tmp_path: Path) -> None:
    failed = {**SURE, "text": None, "pool": None, "entities": []}
    file = lines(tmp_path / "a.jsonl", {**SURE, "pool": "logs"}, failed, UNSURE)
    result = runner.invoke(app, ["pool", "queue", "news", file])
    assert "1 sentences out of 1 documents of pool news" in result.stderr
    assert "documents of other pools were passed over: logs (1)" in result.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nothing", "line 1 column 1"),
        ('{"id": 1}', "'text' is missing"),
        (json.dumps({**UNSURE, "id": 7}), "id, text and pool are texts"),
        ("[]", "is no tagged document"),
        (json.dumps({**SURE, "entities": [{**SURE["entities"][0], "start": 0}]}), "/entities/0"),
        (json.dumps({**SURE, "entities": [{**SURE["entities"][0], "confidence": "high"}]}), "high"),
    ],
)
def test_what_is_no_tagged_document_is_an_error_with_its_line(
    runner: CliRunner, tmp_path: Path, line: str, said: str
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"{json.dumps(UNSURE)}\n\n{line}\n")
    result = runner.invoke(app, ["pool", "queue", "news", str(file)])
    assert result.exit_code == 1
    assert f"{file}:3: is no tagged document" in result.stderr
    assert said in result.stderr
    assert "el4ner tag --format json" in result.stderr


def test_a_file_that_is_not_there(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(app, ["pool", "queue", "news", str(tmp_path / "none.jsonl")])
    assert result.exit_code == 1
    assert "cannot be read: No such file" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["a.jsonl", "--from-topic"]])
def test_it_needs_a_file_or_the_topic(runner: CliRunner, arguments: list[str]) -> None:
    result = runner.invoke(app, ["pool", "queue", "news", *arguments])
    assert result.exit_code == 2
    assert "give a file of tagged documents, or --from-topic" in result.stderr


def test_control_characters_of_a_document_command_no_terminal(runner: CliRunner, tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", tagged("x\x1b[2J", "It was \x1b[31mQuux.", ("Quux", 0.5)))
    result = runner.invoke(app, ["pool", "queue", "news", file])
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The topics: ``messages`` are documents, or the ids of deleted ones; ``examples`` are the pool's."""
    import workers.cli.pool_queue
    import workers.tail

    there = SimpleNamespace(messages=[], examples=[])

    def read(settings: object, *, unreadable: object, deleted: Callable[[str], None]) -> Iterator[TailedDocument]:
        for message in there.messages:
            if isinstance(message, str):
                deleted(message)
            else:
                yield TailedDocument(message, 0, 0, 0, None)

    monkeypatch.setattr(workers.tail, "tagged_until_now", read)
    monkeypatch.setattr(
        workers.cli.pool_queue, "with_what_it_was_taught", lambda settings, pool: taught_pool(pool, there.examples).pool
    )
    return there


def test_deleted_documents_and_earlier_revisions_are_not_shown(runner: CliRunner, topic: SimpleNamespace) -> None:
    failed = {**tagged("c", ""), "text": None, "pool": None}
    topic.messages = [
        tagged("a", "It was Quux."),
        tagged("b", "It was Zork.", ("Zork", 0.1)),
        tagged("c", "It was Blip."),
        "a",
        tagged("b", "It was Plugh.", ("Plugh", 0.2)),
        failed,
    ]
    result = runner.invoke(app, ["pool", "queue", "news", "--from-topic"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[1:] == ["It was [Plugh|person]."]
    assert "1 sentences out of 1 documents of pool news" in result.stderr


def test_what_the_pool_was_taught_is_not_asked_for_again(runner: CliRunner, topic: SimpleNamespace) -> None:
    topic.messages = [tagged("a", "It was Quux."), tagged("b", "Here is Zork.")]
    topic.examples = [PoolExample("It was Quux.", ())]
    result = runner.invoke(app, ["pool", "queue", "news", "--from-topic"])
    assert result.stdout.splitlines()[1:] == ["Here is Zork."]


def test_the_topic_has_pools_of_the_configuration_alone(runner: CliRunner, topic: SimpleNamespace) -> None:
    result = runner.invoke(app, ["pool", "queue", "weather", "--from-topic"])
    assert result.exit_code != 0
    assert "the stream has no pool 'weather' by its configuration; it has: news" in result.stderr
