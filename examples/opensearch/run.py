"""From nothing to a search: ``python -m examples.opensearch.run``, in the project's folder.

Starts Kafka and Valkey for this folder as ``el4ner local up`` does, an OpenSearch of its own, a worker that tags, and
the sink; sends the sample; shows what is in the index; then stays until Ctrl-C, so that you can ask more.
KAFKA_BOOTSTRAP_SERVERS and REDIS_URL, or OPENSEARCH_URL, are used instead where set.

With ``--no-tagging`` the stream is one that runs already, as ``el4ner.toml`` of the folder says: nothing is started but
OpenSearch and the sink. ``-- sh -c 'curl "$OPENSEARCH_URL/el4ner-documents/_search?q=text:Rome"'`` asks and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from opensearchpy import OpenSearch, OpenSearchException, TransportError

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
from examples.opensearch.documents_sink import GROUP, INDEX, client_of
from examples.opensearch.indexed_documents import index_id
from examples.opensearch.processes import LocalOpenSearch, SinkProcess
from workers.config import load_stream_settings
from workers.local import services
from workers.local.processes import log_excerpt

_PATIENCE_SECONDS: Final = 900.0
"""A worker reads its pools, which takes minutes on a slow machine."""


def main() -> int:
    """Everything, in order; 1 and a line on standard error if something is missing, or COMMAND's exit status."""
    arguments = example_arguments(
        "From nothing to a search in OpenSearch.",
        no_tagging="only OpenSearch and the sink, for a stream that runs",
        once="end when the documents are there",
        command="run this with OPENSEARCH_URL set, and end",
    )
    return run_example(partial(run, arguments), OpenSearchException)


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Start, tag, show, stay. COMMAND's exit status, or 0."""
    environ = dict(os.environ)
    if not arguments.no_tagging:
        environ |= services.up(ROOT / ".el4ner", environ=os.environ, progress=tell).environ()
    settings = load_stream_settings(environ=environ)
    ids = tagged_ids(settings) if arguments.no_tagging else []
    group = GROUP
    with contextlib.ExitStack() as stack:
        server = None
        if not environ.get("OPENSEARCH_URL"):
            tell("starting OpenSearch")
            server = stack.enter_context(LocalOpenSearch.temporary(tell))
            environ["OPENSEARCH_URL"] = server.url
            group = f"{GROUP}-{uuid.uuid4().hex}"  # an index of its own begins with the first message
        if not arguments.no_tagging:
            el4ner(["topics", "create"], environ)
            tell("starting a worker")
            options = [] if arguments.ensemble is None else ["--ensemble", arguments.ensemble]
            stack.enter_context(worker("pipeline", options, folder, environ))
        if server is not None:
            server.wait_ready()
        sink = stack.enter_context(SinkProcess.running(folder / "sink.log", environ, "--group", group))
        if not arguments.no_tagging:
            ids = send(arguments, folder, environ)
        client = client_of(environ)
        wait_for_documents(client, sink, ids, folder / "pipeline.log")
        if arguments.command:
            return run_command(arguments.command, environ)
        for line in overview(client):
            print(line)
        if not arguments.once:
            tell("ask more in another terminal (docs/search.md has questions), Ctrl-C ends it:")
            tell(f"\n    curl '{shown(environ['OPENSEARCH_URL'])}/{INDEX}/_search?q=text:Rome&pretty'\n")
            signal.pause()
    return 0


def wait_for_documents(client: OpenSearch, sink: SinkProcess, ids: Sequence[str], log: Path) -> None:
    """Until there is the index, and every document is found."""
    query = {"query": {"ids": {"values": [index_id(name) for name in ids]}}}
    count, since = -1, time.monotonic()
    while count < len(ids):
        sink.check()
        with contextlib.suppress(TransportError):  # while the index is being made; the sink says what else may be
            client.indices.refresh(index=INDEX)
            if (now := int(client.count(index=INDEX, body=query)["count"])) != count:
                count, since = now, time.monotonic()
                tell(f"{count} of {len(ids)} documents are in the index")
        if time.monotonic() - since > _PATIENCE_SECONDS:
            raise ExampleError(
                f"no document for {_PATIENCE_SECONDS:g} s; the worker says: {log_excerpt([log]) or 'nothing'}; "
                f"the sink: {sink.said()}"
            )
        time.sleep(0.5)


def overview(client: OpenSearch) -> list[str]:
    """How many documents there are by status, and the entities that most of them mention."""
    entities = {"terms": {"field": "entities.entity", "size": 10}, "aggs": {"documents": {"reverse_nested": {}}}}
    answer: Mapping[str, Any] = client.search(
        index=INDEX,
        body={
            "size": 0,
            "aggs": {
                "status": {"terms": {"field": "status"}},
                "mentions": {"nested": {"path": "entities"}, "aggs": {"entities": entities}},
            },
        },
    )["aggregations"]
    lines = [f"{bucket['doc_count']} documents are {bucket['key']}" for bucket in answer["status"]["buckets"]]
    return lines + [
        f"{bucket['key']}: {bucket['doc_count']} in {bucket['documents']['doc_count']} documents"
        for bucket in answer["mentions"]["entities"]["buckets"]
    ]


def shown(url: str) -> str:
    """An address without the password that may be in it."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


if __name__ == "__main__":
    sys.exit(main())
