"""``examples/postgresql``: a real Kafka Connect writes what is on ``tagged-documents`` to a real PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from typer.testing import CliRunner

from examples.local_stream import ExampleError
from examples.postgresql.database import Database, postgresql_programs
from examples.postgresql.kafka_connect import DOCUMENTS_SINK, ENTITIES_SINK, FOLDER, Connect, connector, sink_environ
from tests.integration.conftest import Endpoints
from tests.integration.stream_harness import Stream, wait_until
from tests.support.paths import ROOT
from tests.support.tagged_topic import PARTITIONS, TaggedTopic, tagged
from workers.cli.app import app
from workers.join.outputs import normalise
from workers.messages.entity_ids import entity_ids
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
    pytest.mark.skipif(
        postgresql_programs() is None or shutil.which("psql") is None or shutil.which("mvn") is None,
        reason="PostgreSQL or Maven is not on this machine: apt-get install postgresql maven",
    ),
]

PAGE = (ROOT / "docs" / "databases.md").read_text()
ENTITIES_PAGE = (ROOT / "docs" / "entities.md").read_text()
DAY_MS = 24 * 3600 * 1000


def sql_below(heading: str, page: str = PAGE) -> str:
    """The first block of SQL below a heading, or a bold word, of a page: of docs/databases.md."""
    block = re.search(rf"^(?:#+ {heading}$|\*\*{heading}\*\*).*?```sql\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    assert block is not None, heading
    return block.group(1)


def query_below(heading: str, page: str = PAGE) -> str:
    """The same as a part of a query."""
    return sql_below(heading, page).rstrip().rstrip(";")


@dataclass
class Feed(TaggedTopic):
    """The topic, and the rows that the connector ``sink`` makes of it."""

    database: Database
    kafka_connect: Connect
    sink: str = DOCUMENTS_SINK

    def settle(self) -> None:
        """Until there are rows of everything that was sent: a last document on each partition says so."""
        last = [f"last-{uuid.uuid4().hex}-{partition}" for partition in range(PARTITIONS)]
        self.send(*(tagged(name, "") for name in last))
        wait_until(lambda: self.have_rows(last), timeout=90, what=f"rows; {self.kafka_connect.log_excerpt()}")
        self.database.psql(script="DELETE FROM el4ner.documents WHERE document_id LIKE 'last-%'")

    def have_rows(self, names: Sequence[str]) -> bool:
        self.kafka_connect.check(self.sink)
        wanted = ", ".join(f"'{name}'" for name in names)
        return len(self.database.rows(f"SELECT FROM el4ner.documents WHERE document_id IN ({wanted})")) == len(names)

    def documents(self) -> dict[str, dict[str, Any]]:
        return {row["document_id"]: row for row in self.database.rows("SELECT * FROM el4ner.documents")}

    def mentions(self, name: str) -> list[tuple[str, str]]:
        query = f"SELECT text, type FROM el4ner.mentions WHERE document_id = '{name}' ORDER BY number"
        return [(row["text"], row["type"]) for row in self.database.rows(query)]


@pytest.fixture(scope="module")
def feed(services: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Feed]:
    """The tables, and the connector as the user that the docs make for it; a topic of the tests' own."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    topic = TaggedTopic(services.kafka_bootstrap, prefix, int(time.time() * 1000))
    topic.create()
    own = {f"{name}.storage.topic": f"{prefix}{name}" for name in ("config", "offset", "status")}
    settings = {"group.id": f"{prefix}connect", "offset.flush.interval.ms": "1000", **own}
    with Database.temporary() as database:
        database.psql("-f", str(FOLDER / "tables.sql"))
        database.psql("-f", str(FOLDER / "tables.sql"))  # it can be run again
        database.psql(script=sql_below("The database\\."))
        user = dataclasses.replace(database, user="el4ner_connect", password="change-me")
        environ = sink_environ(services.kafka_bootstrap, user, topic_prefix=prefix)
        folder = tmp_path_factory.mktemp("connect")
        with Connect.running(folder, environ, settings) as kafka_connect:
            kafka_connect.wait_ready()
            kafka_connect.configure(DOCUMENTS_SINK, {**connector(), "flush.retry.delay.ms": "200"})
            yield Feed(topic.bootstrap, prefix, topic.now_ms, database, kafka_connect)


@pytest.fixture
def empty(feed: Feed) -> Feed:
    feed.database.psql(script="DELETE FROM el4ner.documents")
    return feed


def test_documents_and_mentions_become_rows(empty: Feed) -> None:
    text = "Zoë Schröder 🦊 joined ACME\0\0 in \\u0000 Zürich."
    failure = {"stage": "extract", "code": "json", "message": "the value is not JSON"}
    entities = [("Zoë Schröder", "person"), ("ACME", "organization"), ("Zürich", "location")]
    empty.send(
        tagged("whole", text, *entities, metadata={"source": {"name": "wi\0re"}}),
        {**tagged("failed-1", ""), "text": None, "pool": None, "status": "failed", "error": failure},
        tagged("endless", "x" * 9_000, ("x" * 9_000, "misc")),
        age_ms=1_500,
    )
    empty.settle()
    rows = empty.documents()
    assert rows.keys() == {"whole", "failed-1", "endless"}
    assert rows["whole"]["text"] == text.replace("\0", "\ufffd")
    assert rows["whole"]["metadata"] == {"source": {"name": "wi\ufffdre"}}
    assert rows["failed-1"]["text"] is None
    assert rows["failed-1"]["error"] == failure
    assert {row["kafka_timestamp"] for row in rows.values()} == {empty.now_ms - 1_500}
    assert empty.mentions("whole") == entities
    assert empty.mentions("failed-1") == []
    ids = empty.database.rows("SELECT entity_id FROM el4ner.mentions WHERE document_id = 'whole' ORDER BY number")
    assert [row["entity_id"] for row in ids] == entity_ids(tagged("whole", text, *entities))
    cut = empty.database.rows(
        "SELECT m.text, substr(d.text, start_offset + 1, end_offset - start_offset) AS cut, "
        "extract(epoch FROM m.tagged_at) * 1000 AS tagged_ms "
        "FROM el4ner.mentions AS m JOIN el4ner.documents AS d USING (document_id)"
    )
    assert len(cut) == 4
    assert all(row["text"] == row["cut"] and row["tagged_ms"] == empty.now_ms - 1_500 for row in cut)


def test_entities_are_named_as_on_the_topic_of_mentions(feed: Feed) -> None:
    latin = ["ACME  Corp", "  Łódź\t", "x\u00a0y", "Straße", "ﬁne Ⅳ", "A\u030angstro\u0308m"]
    surfaces = [*latin, "ΟΔΥΣΣΕΥΣ", "ДРУЖБА", "株式会社ソニー"]
    listed = ", ".join(f"'{surface}'" for surface in surfaces)
    rows = feed.database.rows(f"SELECT s, el4ner.normalised(s) AS n FROM unnest(ARRAY[{listed}]) AS s")
    assert {row["s"]: row["n"] for row in rows} == {surface: normalise(surface) for surface in surfaces}


def test_the_newest_revision_stays(empty: Feed) -> None:
    empty.send(
        tagged("a", "Ada in Rome", ("Ada", "person"), ("Rome", "location"), revision=3),
        tagged("a", "Bob", ("Bob", "person"), revision=4),
        tagged("a", "Ada in Rome", ("Ada", "person"), ("Rome", "location"), revision=3),
    )
    empty.settle()
    assert empty.documents()["a"]["revision"] == 4
    assert empty.mentions("a") == [("Bob", "person")]


@pytest.mark.parametrize(
    ("one", "other", "before"),
    [
        ((0, 4, 10), (0, 5, 10), True),
        ((0, 5, 10), (0, 5, 10), False),
        ((0, 4, 11), (0, 5, 10), False),  # the topic was made anew
        ((0, 501, 10), (7, 3, 11), True),  # the topic got more partitions
        ((7, 3, 11), (0, 501, 10), False),
    ],
)
def test_which_of_two_messages_is_older(
    feed: Feed, one: tuple[int, int, int], other: tuple[int, int, int], before: bool
) -> None:
    names = ("kafka_partition", "kafka_offset", "kafka_timestamp")
    rows = [f"jsonb_populate_record(NULL::el4ner.documents, '{json.dumps(dict(zip(names, place, strict=True)))}')"
            for place in (one, other)]  # fmt: skip
    assert feed.database.rows(f"SELECT el4ner.is_before({', '.join(rows)}) AS before") == [{"before": before}]


def test_a_deletion_takes_the_rows_away(empty: Feed) -> None:
    document = tagged("gone", "Ada", ("Ada", "person"), revision=7)
    empty.send(
        document, tagged("back", "Bob", ("Bob", "person"), revision=7), tagged("stays", "Eve", ("Eve", "person"))
    )
    empty.settle()
    assert empty.documents().keys() == {"gone", "back", "stays"}
    empty.send("gone", "back", "never-there", tagged("back", "Bo", ("Bo", "person")))
    empty.settle()
    assert empty.documents().keys() == {"back", "stays"}
    assert empty.mentions("gone") == []
    assert empty.mentions("back") == [("Bo", "person")]


def test_what_was_taken_back_becomes_no_row(empty: Feed) -> None:
    empty.send(tagged("taken-back", "Ada", ("Ada", "person")), commit=False)
    empty.settle()
    assert empty.documents() == {}


def test_reading_everything_again_leaves_rows_as_they_are(empty: Feed) -> None:
    empty.send(
        tagged("a", "Ada", ("Ada", "person"), revision=1),
        tagged("a", "Ada B", ("Ada B", "person"), revision=2),
        tagged("b", "Bob", ("Bob", "person"), revision=5),
        "b",
        tagged("b", "Bo", ("Bo", "person"), revision=1),
        tagged("c", "Eve", ("Eve", "person")),
        "c",
    )
    empty.settle()
    before = empty.documents(), empty.database.rows("SELECT * FROM el4ner.mentions ORDER BY document_id, number")
    assert before[0].keys() == {"a", "b"}
    empty.database.psql(script="CREATE TABLE seen AS SELECT document_id, xmin::text AS written FROM el4ner.mentions")
    empty.kafka_connect.go_on_from(DOCUMENTS_SINK)
    empty.settle()
    mine = "document_id IN ('a', 'b', 'c')"
    again = [name for name in empty.documents() if name in before[0] or name == "c"]
    assert sorted(again) == ["a", "b"]
    assert {name: empty.documents()[name] for name in again} == before[0]
    assert empty.database.rows(f"SELECT * FROM el4ner.mentions WHERE {mine} ORDER BY document_id, number") == before[1]
    untouched = "SELECT FROM seen JOIN el4ner.mentions AS m USING (document_id) WHERE m.xmin::text = seen.written"
    assert len(empty.database.rows(untouched)) == 2, "mentions are not written anew"


def test_a_lost_connection_loses_no_rows(empty: Feed) -> None:
    empty.send(tagged("before", "Ada", ("Ada", "person")))
    empty.settle()
    lost = "SELECT pg_terminate_backend(pid) AS lost FROM pg_stat_activity WHERE usename = 'el4ner_connect'"
    assert any(row["lost"] for row in empty.database.rows(lost))
    empty.send(tagged("after", "Bob", ("Bob", "person")))
    empty.settle()
    assert empty.documents().keys() == {"before", "after"}


def test_the_questions_of_the_docs_are_answered(empty: Feed) -> None:
    ada, acme, rome = ("Ada", "person"), ("ACME", "organization"), ("Rome", "location")
    split = tagged("doubted", "Rome", rome)
    split["entities"][0]["votes"] = {"one": "location", "other": "person"}
    empty.send(tagged("old", "Ada of ACME", ada, acme), tagged("old-2", "Rome", rome), age_ms=DAY_MS + 3_600_000)
    empty.send(tagged("new", "Acme hires Ada", ("Acme", "organization"), ada), tagged("new-2", "Ada", ada), split)
    empty.send(tagged("half", "Ada", status="partial", missing=["validate"], error=dict.fromkeys("abc", "")))
    empty.settle()
    ask = empty.database.rows

    def answers(heading: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in ask(query_below(heading))]

    days = answers("Entities by day")
    assert [row[1:] for row in days[:2]] == [("person:ada", 2), ("location:rome", 1)]
    assert sum(row[2] for row in days) == 7
    assert [row[0] for row in answers("Documents with a person and an organization")] == ["new", "old"]
    assert answers("What rose since yesterday") == [("person:ada", 1, 2)]
    assert answers("Who is named together") == [("organization:acme", "person:ada", 2)]
    about = answers("Everything about one entity")
    assert [(row[0], row[2]) for row in about] == [("new", "Acme"), ("old", "ACME")]
    assert [row[:2] for row in answers("What is not complete")] == [("half", "partial")]
    assert [row[0] for row in answers("Votes that were not unanimous")] == ["doubted"]
    entities = {row["entity"]: row for row in ask("SELECT * FROM el4ner.entities")}
    assert entities["person:ada"]["mentions"] == 3
    assert entities["person:ada"]["documents"] == 3
    assert entities["person:ada"]["first_seen"] < entities["person:ada"]["last_seen"]


def test_mentions_are_read_anew_as_the_docs_say(empty: Feed) -> None:
    empty.send(tagged("a", "Ada in Rome", ("Ada", "person"), ("Rome", "location")))
    empty.settle()
    before = empty.database.rows("SELECT * FROM el4ner.mentions")
    # As an older tables.sql has left them.
    empty.database.psql(script="UPDATE el4ner.mentions SET type = 'old'")
    empty.database.psql(script="ALTER TABLE el4ner.mentions DROP COLUMN entity_id")
    empty.database.psql("-f", str(FOLDER / "tables.sql"))
    script = re.search(r"^  BEGIN;\n.*?COMMIT;$", PAGE, re.MULTILINE | re.DOTALL)
    assert script is not None
    empty.database.psql(script=script.group())
    assert empty.database.rows("SELECT * FROM el4ner.mentions") == before


def test_readers_can_read_and_nothing_else(feed: Feed) -> None:
    as_reader = "SET ROLE el4ner_reader; "
    feed.database.psql(script=as_reader + sql_below("Everything about one entity"))
    for forbidden in ("DELETE FROM el4ner.documents", "UPDATE el4ner.mentions SET type = ''"):
        with pytest.raises(Exception, match="permission denied"):
            feed.database.psql(script=as_reader + forbidden)


def test_entities_over_all_documents_become_rows_too(empty: Feed) -> None:
    topic = f"{empty.prefix}entities"
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=empty.bootstrap)) as admin:
        admin.create_topics([NewTopic(topic, 1, 1)])
    empty.database.psql("-f", str(FOLDER / "entities.sql"))
    empty.database.psql(script=sql_below("Entities over all documents"))
    empty.kafka_connect.configure(ENTITIES_SINK, connector(ENTITIES_SINK))
    examples = ROOT / "schemas" / "examples"
    entity, merged = (
        orjson.loads((examples / f"entities.v1.{name}.json").read_bytes()) for name in ("entity", "merged")
    )
    gone = {**merged, "id": "0" * 32}
    with contextlib.closing(KafkaProducer(bootstrap_servers=empty.bootstrap)) as producer:
        for message in (entity, gone, merged):
            producer.send(topic, key=message["id"].encode(), value=orjson.dumps(message))
        producer.send(topic, key=gone["id"].encode(), value=None)
        producer.send(topic, key=b"last", value=orjson.dumps({**merged, "id": "last"}))
        producer.flush()
    empty.send(tagged("a", "MERKEL", ("MERKEL", "person")), tagged("b", "Merkel", ("Merkel", "location")))
    empty.settle()

    def rows() -> list[dict[str, Any]]:
        empty.kafka_connect.check(ENTITIES_SINK)
        return empty.database.rows("SELECT * FROM el4ner.canonical_entities ORDER BY kafka_offset")

    wait_until(lambda: any(row["entity_id"] == "last" for row in rows()), timeout=60, what="rows of entities")
    first, second, _last = rows()
    for row, message in ((first, entity), (second, merged)):
        assert [row[name] for name in ("entity_id", "type", "name", "merged_into")] == [
            message[name] for name in ("id", "type", "name", "merged_into")
        ]
    assert (first["aliases"], second["aliases"]) == (entity["aliases"], [])
    windows = empty.database.rows("SELECT mentions, documents FROM el4ner.entity_windows ORDER BY start")
    assert windows == [{key: each[key] for key in ("mentions", "documents")} for each in entity["windows"]]
    found = empty.database.rows(query_below("Documents with an entity by any of its names"))
    assert found == [{"document_id": "a", "text": "MERKEL"}]


@pytest.mark.parametrize(
    "stream", [{"entities": {"enabled": True}, "kafka": {"partitions": PARTITIONS}}], indirect=True
)
def test_mentions_follow_what_people_merge_and_split_and_what_is_deleted(empty: Feed, stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("entities").wait_ready(120)
    empty.database.psql("-f", str(FOLDER / "entities.sql"))
    empty.database.psql(script=sql_below("Entities over all documents"))
    empty.database.psql(script="DELETE FROM el4ner.canonical_entities")
    sinks = {"documents-of-worker": DOCUMENTS_SINK, "entities-of-worker": ENTITIES_SINK}
    for name, sink in sinks.items():
        topic = stream.name(Topic(sink.removeprefix("el4ner-").replace("documents", "tagged-documents")))
        empty.kafka_connect.configure(name, {**connector(sink), "topics": topic})
    feed = dataclasses.replace(empty, prefix=stream.prefix, sink="documents-of-worker")
    short, ada, king = ("Lovelace", "person"), ("Ada Lovelace", "person"), ("Augusta King", "person")
    feed.send(
        # Two of three say whom the third one means.
        tagged("long-1", "Lovelace is Ada Lovelace", short, ada),
        tagged("long-3", "Lovelace was Ada Lovelace", short, ada),
        tagged("short-2", "Lovelace", short),
        tagged("king-1", "Augusta King in London", king, ("London", "location")),
        tagged("king-2", "AUGUSTA KING: Augusta King", ("AUGUSTA KING", "person"), king),
    )

    def answers() -> dict[tuple[str, str], int]:
        feed.kafka_connect.check("entities-of-worker")
        rows = feed.database.rows(query_below("What you get", ENTITIES_PAGE))
        return {(row["type"], row["name"]): row["mentions"] for row in rows}

    def become(expected: dict[tuple[str, str], int], what: str) -> None:
        wait_until(lambda: answers() == expected, timeout=60, every=0.3, what=f"{what}: {expected}")

    def decide(*arguments: str) -> None:
        decided = CliRunner().invoke(app, ["entities", *arguments, "--config", str(stream.config)])
        assert decided.exit_code == 0, decided.stderr

    london = {("location", "London"): 1}
    apart = {("person", "Ada Lovelace"): 5, ("person", "Augusta King"): 3, **london}
    become(apart, "tagged")
    ids = {row["name"]: row["entity_id"] for row in feed.database.rows("SELECT * FROM el4ner.canonical_entities")}
    decide("merge", ids["Ada Lovelace"], ids["Augusta King"])
    become({("person", "Ada Lovelace"): 8, **london}, "merged")
    by_name = feed.database.rows(query_below("Mentions of each entity"))
    assert [(row["name"], row["mentions"], row["documents"]) for row in by_name] == [
        ("Ada Lovelace", 8, 5),
        ("London", 1, 1),
    ]
    decide("split", ids["Ada Lovelace"], "Augusta King")
    become(apart, "split")
    feed.send("king-1", "king-2", tagged("short-2", "London", ("London", "location"), revision=1))
    become({("person", "Ada Lovelace"): 4, **london}, "deleted, and a new revision")
    gone = f"SELECT FROM el4ner.canonical_entities WHERE entity_id = '{ids['Augusta King']}'"
    wait_until(lambda: feed.database.rows(gone) == [], timeout=30, what="the null on entities deletes the row")
    assert worker.stop() == 0


def test_an_id_that_the_database_refuses_stops_the_connector_until_it_is_stepped_over(empty: Feed) -> None:
    empty.send(tagged("no\0id", "Ada"), tagged("behind", "Bob", ("Bob", "person")))
    with pytest.raises(ExampleError, match="invalid byte sequence") as refused:
        wait_until(lambda: empty.kafka_connect.check(DOCUMENTS_SINK), timeout=60, what="the connector stops")
    place = re.search(r"\('(\d+)'::int4\),\('(\d+)'::int8\)", str(refused.value))
    assert place is not None, "the status says where the message stands"
    partition, offset = map(int, place.groups())
    topic = f"{empty.prefix}{Topic.TAGGED_DOCUMENTS.value}"
    empty.kafka_connect.go_on_from(DOCUMENTS_SINK, [(topic, partition, offset + 1)])
    empty.settle()
    assert empty.documents().keys() == {"behind"}
