"""Dead letters over a real broker and real workers: listed, shown byte for byte, and sent again once mended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka import KafkaProducer

from el4ner.errors import DocumentError
from el4ner.serialize import dumps
from tests.integration.stream_harness import ROOT, Stream, wait_until
from workers.dead_letters.letters import DlqError, Letter, Wanted, headers_to_replay, plan_replay
from workers.dead_letters.listing import find_letter, find_letters, read_letters
from workers.dead_letters.replay import Journal, replay
from workers.messages.envelope import Record, dead_letter
from workers.messages.headers import find
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

LONG = {"id": "long", "text": "Berlin " * 60}
BROKEN: dict[bytes, tuple[bytes, str]] = {
    b"not-json": (b"this is not JSON \x00\r\n", "json"),
    b"no-text": (b'{"title": "nothing to read"}', "schema"),
    b"not-utf-8": (b'{"text": "Z\xfcrich"}', "encoding"),
    b"long": (dumps(LONG), "document-too-long"),
}
SHORT_DOCUMENTS = {"method": {"max_document_chars": 200}}


def dlq(stream: Stream, *arguments: str, exit_code: int = 0) -> subprocess.CompletedProcess[bytes]:
    """``el4ner dlq …`` as people run it."""
    command = [sys.executable, "-m", "workers.cli", "--config", str(stream.config), "dlq", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == exit_code, done.stderr.decode()
    return done


def rows(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def letter_to(
    stream: Stream, value: bytes | None, *, topic: Topic = Topic.DOCUMENTS, offset: int = 0, **more: Any
) -> None:
    """A dead letter, as a stage writes it."""
    source = more.pop("source", stream.name(topic))
    record = Record(topic, source, more.pop("from_partition", 1), offset, 7, b"k", value, more.pop("headers", ()))
    letter = dead_letter(
        record,
        stage="extract",
        error=DocumentError("no", code=more.pop("code", "json")),
        document="k",
        attempts=1,
        now_ms=9,
    )
    stream.produce([(letter.key, letter.value)], topic=Topic.DEAD_LETTERS, headers=list(letter.headers), **more)


def letters(stream: Stream) -> list[Letter]:
    return sorted(read_letters(stream.settings), key=lambda letter: letter.coordinates)


def sent_again(stream: Stream) -> list[Any]:
    return [record for record in stream.read(Topic.DOCUMENTS) if find(record.headers, "el4ner-replay") is not None]


@pytest.mark.parametrize("stream", [SHORT_DOCUMENTS], indirect=True)
def test_broken_documents_are_listed_shown_and_come_out_when_they_were_mended(stream: Stream, tmp_path: Path) -> None:
    stream.create_topics()
    worker = stream.start("all").wait_ready()
    own = [("own", b"1"), ("own", b"2"), ("empty", b"")]
    stream.produce(((key, value) for key, (value, _) in BROKEN.items()), headers=own)
    stream.produce_documents([{"id": "fine", "text": "Ada Lovelace lived in London."}])
    wait_until(lambda: len(stream.tagged()) == len(BROKEN) + 1, what="all documents")

    listed = rows(dlq(stream, "list", "--format", "json"))
    assert {row["key"]: row["code"] for row in listed} == {key.decode(): code for key, (_, code) in BROKEN.items()}
    assert {row["stage"] for row in listed} == {"extract"}
    kinds = rows(dlq(stream, "list", "--summary", "--format", "json"))
    assert {kind["code"]: kind["letters"] for kind in kinds} == dict.fromkeys([code for _, code in BROKEN.values()], 1)
    assert dlq(stream, "list", "--until", "1d", exit_code=1).stdout == b""
    table = dlq(stream, "list", "--code", "document-too-long", "--topic", "documents").stdout.decode()
    assert "not-utf-8" not in table
    assert "the text has 420 characters, method.max_document_chars is 200" in table

    by_key = {row["key"]: row["letter"] for row in listed}
    for one in letters(stream):
        assert one.value == BROKEN[one.key or b""][0]
    assert dlq(stream, "show", by_key["not-json"], "--raw").stdout == BROKEN[b"not-json"][0]
    shown = dlq(stream, "show", by_key["not-utf-8"]).stdout.decode()
    assert "7b 22 74 65 78 74 22 3a 20 22 5a fc" in shown
    assert "own: 2" in shown

    # The limit is raised, and the document that was too long is sent again.
    assert worker.stop() == 0
    stream.start("all", environ={"EL4NER_METHOD__MAX_DOCUMENT_CHARS": "1000"}).wait_ready()
    dry = dlq(stream, "replay", "--code", "document-too-long")
    assert b"dry run: 1 message would be sent again" in dry.stderr
    assert sent_again(stream) == []
    journal = tmp_path / "replayed.jsonl"
    real = ("replay", "--code", "document-too-long", "--journal", str(journal), "--yes")
    (done,) = rows(dlq(stream, *real, "--format", "json"))
    assert done["letter"] == by_key["long"]
    (again,) = sent_again(stream)
    (first,) = [record for record in stream.read(Topic.DOCUMENTS) if record.key == b"long" and record is not again][:1]
    assert (again.key, again.value, again.partition) == (b"long", BROKEN[b"long"][0], first.partition)
    assert list(again.headers)[:3] == own
    assert dict(again.headers[3:]) == {
        "el4ner-replay": b"1",
        "el4ner-replay-of": by_key["long"].encode(),
        "el4ner-first-failed-at": str(next(row["failed_at"] for row in listed if row["key"] == "long")).encode(),
    }

    def statuses() -> list[str]:
        return [document["status"] for document in stream.tagged() if document["id"] == "long"]

    wait_until(lambda: statuses() == ["failed", "complete"], timeout=40, what="the mended document")

    # With its journal the same command has nothing left to do; and nothing was taken out of the dead letters.
    left = dlq(stream, *real, exit_code=1)
    assert b"passed over: 1 sent before, says the journal" in left.stderr
    assert len(sent_again(stream)) == 1
    assert len(letters(stream)) == len(BROKEN)


ENGINE_THAT_FAILS = """
from el4ner.engines.instant import InstantEngine
from el4ner.errors import EngineError

score = InstantEngine.score


def failing(self, requests):
    if "POISON" in repr(requests):
        raise EngineError("the engine does not like this one")
    return score(self, requests)


InstantEngine.score = failing
"""


def test_what_an_engine_failed_on_goes_on_from_its_stage_when_the_engine_is_well(
    stream: Stream, tmp_path: Path
) -> None:
    stream.create_topics()
    (tmp_path / "sitecustomize.py").write_text(ENGINE_THAT_FAILS)
    ill = stream.start("all", environ={"PYTHONPATH": f"{tmp_path}:{ROOT}"}).wait_ready()
    poison = {"id": "poison", "text": "Ada Lovelace drank POISON in London."}
    stream.produce_documents([poison, {"id": "fine", "text": "Grace Hopper lived in York."}])
    wait_until(lambda: len(stream.tagged()) == 2, what="both documents")
    (kind,) = rows(dlq(stream, "list", "--summary", "--format", "json"))
    assert (kind["stage"], kind["code"], kind["letters"]) == ("classify", "engine", 1)
    (letter,) = letters(stream)
    assert letter.document == "poison"
    assert letter.source is not None
    assert letter.source[0] == stream.name(Topic.SPAN_CANDIDATES)
    assert letter.attempts is not None
    assert ill.stop() == 0

    stream.start("all").wait_ready()
    dlq(stream, "replay", "--code", "engine", "--topic", "span-candidates", "--yes")
    candidates = [record for record in stream.read(Topic.SPAN_CANDIDATES) if record.key == b"poison"]
    assert len(candidates) == 2
    assert len({(record.partition, record.value) for record in candidates}) == 1

    def outcome() -> list[str]:
        return [document["status"] for document in stream.tagged() if document["id"] == "poison"]

    wait_until(lambda: outcome()[1:] == ["complete"], timeout=40, what="the document, complete")


def test_a_message_that_fails_again_is_known_as_the_same_failure(stream: Stream) -> None:
    stream.create_topics()
    stream.start("extract").wait_ready()
    stream.produce([(b"a", b"not JSON")])
    wait_until(lambda: len(letters(stream)) == 1, what="the dead letter")
    (first,) = letters(stream)
    dlq(stream, "replay", first.id, "--yes")
    wait_until(lambda: len(letters(stream)) == 2, what="the second dead letter")
    (again,) = (letter for letter in letters(stream) if letter.coordinates != first.coordinates)
    assert (again.replay.count, again.replay.of, again.value) == (1, first.id, b"not JSON")
    assert again.first_failed_at_ms == first.first_failed_at_ms
    assert again.reasons["replays"] == "1"
    assert int(again.reasons["failed-at"]) > again.first_failed_at_ms
    # By filter only the later of the two is sent, as the second replay of the same message.
    done = dlq(stream, "replay", "--code", "json", "--yes")
    assert b"1 message of 1 sent again" in done.stderr
    wait_until(lambda: len(letters(stream)) == 3, what="the third dead letter")
    assert sorted(letter.replay.count for letter in letters(stream)) == [0, 1, 2]
    assert {letter.first_failed_at_ms for letter in letters(stream)} == {first.first_failed_at_ms}
    (third,) = (letter for letter in letters(stream) if letter.replay.count == 2)
    names = [name for name, _ in headers_to_replay(third)]
    assert len(names) == len(set(names))


def test_a_deletion_and_a_megabyte_keep_their_bytes(stream: Stream) -> None:
    stream.create_topics()
    large = bytes(range(256)) * 8_192
    for number, value in enumerate((None, b"", large)):
        letter_to(stream, value, offset=number)
    assert {letter.source: letter.value for letter in letters(stream)} == {
        (stream.name(Topic.DOCUMENTS), 1, number): value for number, value in enumerate((None, b"", large))
    }
    dlq(stream, "replay", "--all", "--yes")
    assert sorted((len(one.value or b""), one.value is None, one.partition) for one in sent_again(stream)) == [
        (0, False, 1),
        (0, True, 1),
        (len(large), False, 1),
    ]


def test_an_interrupted_replay_goes_on_where_it_ended(stream: Stream, tmp_path: Path) -> None:
    stream.create_topics()
    for number in range(5):
        letter_to(stream, b"%d" % number, offset=number)
    settings, wanted = stream.settings, Wanted()
    with Journal(tmp_path / "journal") as journal:
        plan = plan_replay(read_letters(settings), settings.kafka, wanted=wanted)
        ended = replay(
            settings,
            read_letters(settings, only=plan.letters),
            delivered=journal.add,
            stop=Stop(after=2),
        )
        assert ended == len(journal.done) == 2
    with Journal(tmp_path / "journal") as journal:
        plan = plan_replay(read_letters(settings), settings.kafka, wanted=wanted, done=journal.done)
        assert plan.done == 2
        assert replay(settings, read_letters(settings, only=plan.letters), delivered=journal.add) == 3
    assert sorted(record.value for record in sent_again(stream)) == [b"0", b"1", b"2", b"3", b"4"]


class Stop:
    """True after so many questions."""

    def __init__(self, *, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_nothing_is_sent_to_a_topic_that_no_stage_reads(stream: Stream) -> None:
    stream.create_topics()
    letter_to(stream, b"a", source="somebody-elses-topic")
    letter_to(stream, b"b", source=stream.name(Topic.TAGGED_DOCUMENTS))
    stream.produce([(b"k", b"no letter at all")], topic=Topic.DEAD_LETTERS)
    done = dlq(stream, "replay", "--all", "--yes", exit_code=1)
    assert b"somebody-elses-topic" in done.stderr
    assert b"no stage of this pipeline reads '?'" in done.stderr
    assert stream.ends(Topic.TAGGED_DOCUMENTS) == 0
    assert len(rows(dlq(stream, "list", "--format", "json"))) == 3


def test_what_is_not_there_is_named(stream: Stream) -> None:
    assert (
        f"topic '{stream.name(Topic.DEAD_LETTERS)}' does not exist" in dlq(stream, "list", exit_code=1).stderr.decode()
    )
    stream.create_topics()
    letter_to(stream, b"a", partition=2)
    for coordinates, said in {
        (9, 0): "partitions 0 to 3",
        (2, 5): "has 2-0 to 2-0",
        (1, 0): "partition 1 is empty",
    }.items():
        with pytest.raises(DlqError, match=said):
            find_letter(stream.settings, coordinates)
    letter_to(stream, b"c", partition=2, offset=2)
    named = [(2, 1), (2, 0), (2, 1)]
    assert [letter.value for letter in find_letters(stream.settings, named)] == [b"c", b"a", b"c"]
    letter_to(stream, b"b", from_partition=77, offset=1)
    done = dlq(stream, "replay", "--all", "--yes", exit_code=1)
    assert b"came from partition 77" in done.stderr
    assert b"has 4 partitions now" in done.stderr


def in_a_transaction(stream: Stream, value: bytes, *, commit: bool) -> None:
    producer = KafkaProducer(bootstrap_servers=stream.bootstrap, transactional_id=f"{stream.prefix}{value.decode()}")
    try:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(stream.name(Topic.DEAD_LETTERS), key=b"k", value=value, partition=0)
        producer.flush()
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    finally:
        producer.close()


def test_letters_of_transactions_are_read_when_committed_and_the_end_is_found(stream: Stream) -> None:
    stream.create_topics()
    in_a_transaction(stream, b"kept", commit=True)
    in_a_transaction(stream, b"taken-back", commit=False)
    # Behind the last letter lie two marks and a message that was taken back.
    assert [letter.value for letter in letters(stream)] == [b"kept"]
    with pytest.raises(DlqError, match="there is no dead letter 0-1"):
        find_letter(stream.settings, (0, 1))
