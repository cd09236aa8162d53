"""From nothing to rows in PostgreSQL: ``python -m examples.postgresql.run``, in the project's folder.

Starts Kafka and Valkey for this folder as ``el4ner local up`` does, a PostgreSQL of its own, the workers that tag and
that gather entities, and Kafka Connect with the sinks; sends the sample; shows what is in the tables; then stays until
Ctrl-C, so that you can ask more.
KAFKA_BOOTSTRAP_SERVERS and REDIS_URL, or PGHOST, PGPORT, PGDATABASE, PGUSER and PGPASSWORD, are used instead where set.

With ``--no-tagging`` the stream is one that runs already, as ``el4ner.toml`` of the folder says: nothing is started but
PostgreSQL and Kafka Connect, and what was tagged becomes rows, with entities over all documents where ``[entities]`` is
enabled. ``-- psql -c "SELECT …"`` asks them and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from examples.local_stream import (
    ROOT,
    ExampleError,
    el4ner,
    example_arguments,
    run_command,
    run_example,
    send,
    tagged_ids,
    tell,
    worker,
)
from examples.postgresql.database import Database
from examples.postgresql.kafka_connect import DOCUMENTS_SINK, ENTITIES_SINK, FOLDER, Connect, connector, sink_environ
from workers.config import load_stream_settings
from workers.local import services
from workers.local.processes import log_excerpt

_PATIENCE_SECONDS: Final = 900.0
"""A worker reads its pools, which takes minutes on a slow machine."""
_ENTITIES_SECONDS: Final = 60.0
"""Entities come after the documents that have them, within seconds."""
_DOCUMENTS: Final = "SELECT status, count(*) AS documents FROM el4ner.documents GROUP BY status"
_SPELLINGS: Final = (
    "SELECT name, type, mentions, documents FROM el4ner.entities ORDER BY documents DESC, entity LIMIT 10"
)
_ENTITIES: Final = (
    "SELECT name, type, mentions, array_to_string(aliases, ', ') AS aliases FROM el4ner.canonical_entities "
    "WHERE merged_into IS NULL ORDER BY mentions DESC, type, name LIMIT 10"
)
_WITHOUT_ENTITY: Final = (
    "SELECT count(DISTINCT m.entity_id) AS names FROM el4ner.mentions AS m "
    "LEFT JOIN el4ner.canonical_entities AS n USING (entity_id) WHERE m.entity_id IS NOT NULL AND n.entity_id IS NULL"
)


def main() -> int:
    """Everything, in order; 1 and a line on standard error if something is missing, or COMMAND's exit status."""
    arguments = example_arguments(
        "From nothing to rows in PostgreSQL.",
        no_tagging="only tables and Connect, for the stream that runs",
        once="end when the rows are there",
        command="run this on the rows and end, as in: -- psql -c 'SELECT …'",
    )
    return run_example(partial(run, arguments))


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Start, tag, show, stay. COMMAND's exit status, or 0."""
    environ = dict(os.environ)
    if not arguments.no_tagging:
        environ |= services.up(ROOT / ".el4ner", environ=os.environ, progress=tell).environ()
        environ["EL4NER_ENTITIES__ENABLED"] = "true"
    settings = load_stream_settings(environ=environ)
    ids = tagged_ids(settings) if arguments.no_tagging else []
    with contextlib.ExitStack() as stack:
        database = Database.named_by(os.environ)
        if new := database is None:
            tell("starting PostgreSQL")
            database = stack.enter_context(Database.temporary())
        sinks = {DOCUMENTS_SINK: "tables.sql"}
        if settings.entities.enabled:
            sinks[ENTITIES_SINK] = "entities.sql"
        for script in sinks.values():
            database.psql("-f", str(FOLDER / script))
        tell("starting Kafka Connect")
        addresses = sink_environ(settings.kafka.bootstrap_servers, database, topic_prefix=settings.kafka.topic_prefix)
        kafka_connect = stack.enter_context(Connect.running(folder, addresses, {}, tell))
        if not arguments.no_tagging:
            el4ner(["topics", "create"], environ)
            tell("starting the workers")
            options = [] if arguments.ensemble is None else ["--ensemble", arguments.ensemble]
            stack.enter_context(worker("entities", [], folder, environ))
            stack.enter_context(worker("pipeline", options, folder, environ))
        kafka_connect.wait_ready()
        for sink in sinks:
            kafka_connect.configure(sink, connector(sink))
            if new:
                kafka_connect.go_on_from(sink)  # rows of an earlier run went with its database
        if not arguments.no_tagging:
            ids = send(arguments, folder, environ)
        wait_for_rows(database, kafka_connect, ids, folder / "pipeline.log")
        if settings.entities.enabled:
            wait_for_entities(database, kafka_connect)
        if arguments.command:
            return ask(database, arguments.command)
        for query in (_DOCUMENTS, _ENTITIES if settings.entities.enabled else _SPELLINGS):
            print(database.psql(script=query))
        if not arguments.once:
            stay(database, new=new)
    return 0


def wait_for_rows(database: Database, kafka_connect: Connect, ids: Sequence[str], log: Path) -> None:
    """Until every document has a row."""
    wanted = ", ".join("'" + name.replace("'", "''") + "'" for name in ids)
    query = f"SELECT count(*) AS documents FROM el4ner.documents WHERE document_id IN ({wanted})"
    count, since = 0, time.monotonic()
    while count < len(ids):
        kafka_connect.check(DOCUMENTS_SINK)
        if (now := int(database.rows(query)[0]["documents"])) != count:
            count, since = now, time.monotonic()
            tell(f"{count} of {len(ids)} documents have rows")
        if time.monotonic() - since > _PATIENCE_SECONDS:
            raise ExampleError(
                f"no row for {_PATIENCE_SECONDS:g} s; the worker says: {log_excerpt([log]) or 'nothing'}; "
                f"Kafka Connect: {kafka_connect.log_excerpt()}"
            )
        time.sleep(0.5)


def wait_for_entities(database: Database, kafka_connect: Connect) -> None:
    """Until the names of all mentions have rows. Those of documents that are older than the kept windows get none."""
    count, since = -1, time.monotonic()
    while count != 0 and time.monotonic() - since < _ENTITIES_SECONDS:
        kafka_connect.check(ENTITIES_SINK)
        if (now := int(database.rows(_WITHOUT_ENTITY)[0]["names"])) != count:
            count, since = now, time.monotonic()
        time.sleep(0.5)
    if count:
        tell(f"{count} names have no row in el4ner.canonical_entities: does el4ner worker entities run?")


def ask(database: Database, command: Sequence[str]) -> int:
    """Run a program of the user's on the rows; its exit status."""
    return run_command(command, {**os.environ, **database.environ})


def stay(database: Database, *, new: bool) -> None:
    """Say how to ask, until Ctrl-C."""
    tell("ask more in another terminal (docs/databases.md has questions), Ctrl-C ends it:")
    tell(f"\n    {how_to_ask(database, new=new)}\n")
    signal.pause()


def how_to_ask(database: Database, *, new: bool) -> str:
    """What to type. A ``new`` database goes at the end, and its password with it; another's is not shown."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in database.environ.items()] if new else []
    return " ".join([*variables, "psql"])


if __name__ == "__main__":
    sys.exit(main())
