"""The consumers of ``examples/consumers``, each by its own language's tools, read what a running stream has written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.conftest import Endpoints
from tests.integration.stream_harness import Stream
from tests.integration.test_stream import documents
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(420),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "consumers"


def python(_folder: Path) -> Sequence[str]:
    return [sys.executable, "tagged_documents.py"]


def java(folder: Path) -> Sequence[str]:
    run(["mvn", "-q", "-B", "compile", "dependency:build-classpath", "-Dmdep.outputFile=classpath"], folder)
    classpath = f"target/classes{os.pathsep}{(folder / 'classpath').read_text()}"
    return ["java", "-cp", classpath, "example.TaggedDocuments"]


def javascript(folder: Path) -> Sequence[str]:
    run(["npm", "ci", "--no-audit", "--no-fund"], folder)
    return ["node", "tagged-documents.js"]


def go(folder: Path) -> Sequence[str]:
    run(["go", "build", "-o", "tagged-documents", "."], folder)
    return ["./tagged-documents"]


NEEDED = {python: (), java: ("mvn", "java"), javascript: ("npm", "node"), go: ("go",)}


def run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-3000:]}{done.stdout[-1000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def written(services: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """What a worker made of documents, of one that was deleted, and of what is none: all consumers read the same."""
    folder = tmp_path_factory.mktemp("stream")
    stream = Stream(services.kafka_bootstrap, services.redis_url, f"t{uuid.uuid4().hex[:8]}.", folder)
    with contextlib.closing(stream):
        stream.create_topics()
        worker = stream.start("pipeline").wait_ready()
        stream.produce_documents([*documents(20), {"id": "gone", "text": "Angela flew to Berlin."}])
        stream.produce([(b"no-json", b"this is not JSON")])
        stream.wait_tagged(22)
        stream.produce([(b"gone", None)])
        stream.wait_tagged(23)
        assert worker.stop() == 0
        yield stream


@pytest.mark.parametrize("language", NEEDED, ids=lambda language: language.__name__)
def test_a_consumer_reads_what_there_is(
    written: Stream, tmp_path: Path, language: Callable[[Path], Sequence[str]]
) -> None:
    missing = [tool for tool in NEEDED[language] if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not on this machine")
    folder = tmp_path / "consumer"
    shutil.copytree(EXAMPLES / language.__name__, folder)
    command = language(folder)
    topic = written.name(Topic.TAGGED_DOCUMENTS)
    printed = run([*command, written.bootstrap, topic, str(ROOT / "schemas"), "23"], folder)
    found = [json.loads(line) for line in printed.splitlines()]
    records = written.read(Topic.TAGGED_DOCUMENTS)
    expected = [said(record.key, record.value) for record in records]
    assert len(expected) == 23
    assert sum(len(one.get("entities", ())) for one in expected) > 40
    by_text = orjson.dumps
    assert sorted(map(by_text, found)) == sorted(map(by_text, expected))


def said(key: bytes, value: bytes | None) -> dict[str, Any]:
    if value is None:
        return {"document": key.decode(), "deleted": True}
    document = orjson.loads(value)
    entities = [f"{entity['text']}|{entity['type']}" for entity in document["entities"]]
    return {"document": document["id"], "status": document["status"], "entities": entities}
