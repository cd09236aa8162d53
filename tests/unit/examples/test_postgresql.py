"""What can be known of ``examples/postgresql`` without Kafka and PostgreSQL. The rest is in ``tests/integration``."""

import re

import pytest

from examples.local_stream import ExampleError
from examples.postgresql.database import Database
from examples.postgresql.kafka_connect import CONNECT, ENTITIES_SINK, FOLDER, SINK, connector, sink_environ
from examples.postgresql.run import ask, how_to_ask
from workers.local.jars import kafka_version

DATABASE = Database(host="db", port=5432, name="news", user="el4ner", password="secret")


def test_connect_is_of_the_version_of_the_local_kafka() -> None:
    assert CONNECT.version == kafka_version()


def test_the_docs_name_the_version_of_the_sink() -> None:
    page = (FOLDER.parents[1] / "docs" / "databases.md").read_text(encoding="utf-8")
    assert SINK.version.startswith(re.findall(r"jdbc\.html\) (\d+\.\d+) \(", page)[0])


def test_every_variable_that_the_configurations_take_is_set() -> None:
    texts = [(FOLDER / "connect.properties").read_text(), *connector().values(), *connector(ENTITIES_SINK).values()]
    taken = {name for text in texts for name in re.findall(r"\$\{env:(\w+)\}", text)}
    assert taken == sink_environ("broker:9092", DATABASE).keys()


def test_both_connectors_differ_in_topic_table_and_key_alone() -> None:
    documents, entities = connector(), connector(ENTITIES_SINK)
    assert documents.keys() == entities.keys()
    differ = {name for name in documents if documents[name] != entities[name]}
    names = {"topics", "tasks.max", "transforms.id.field", "primary.key.fields", "collection.name.format"}
    assert differ == names


def test_no_configuration_has_a_password() -> None:
    assert all(value.startswith("${env:") for name, value in connector().items() if "password" in name)


def test_the_readme_names_every_file() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        if not path.name.startswith(("_", "README")):
            assert f"`{path.name}" in readme, path.name


def test_a_database_is_named_by_the_variables_of_libpq() -> None:
    assert Database.named_by({}) is None
    assert Database.named_by(DATABASE.environ) == DATABASE
    bare = Database.named_by({"PGHOST": "db"})
    assert bare is not None
    assert (bare.port, bare.user, bare.name) == (5432, "postgres", "postgres")
    assert DATABASE.jdbc_url == "jdbc:postgresql://db:5432/news"


def test_only_the_password_of_a_database_of_our_own_is_shown() -> None:
    assert "PGPASSWORD=secret psql" in how_to_ask(DATABASE, new=True)
    assert how_to_ask(DATABASE, new=False) == "psql"


def test_a_command_is_run_on_the_database(capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(DATABASE, ["sh", "-c", "echo $PGDATABASE of $PGHOST; exit 3"]) == 3
    assert capfd.readouterr().out == "news of db\n"
    with pytest.raises(ExampleError, match="cannot run no-such-program"):
        ask(DATABASE, ["no-such-program"])
