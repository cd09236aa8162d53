"""``el4ner serve`` as its users have it: a process and a signal, a generated client, whatever its description allows or
does not, and the real models."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from el4ner.serialize import entity_to_json
from el4ner.tagger import Tagger
from tests.integration.conftest import Endpoints
from tests.support.http_service import RunningService, service_settings
from workers.config import load_stream_settings

TEXT = "Ada Lovelace met Charles Babbage in London."


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    patch = pytest.MonkeyPatch()
    patch.setenv("EL4NER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    with RunningService(service_settings()) as running:
        yield running
    patch.undo()


def test_a_process_that_is_asked_to_stop_answers_what_it_has_accepted(tmp_path: Path) -> None:
    config, port_file = tmp_path / "el4ner.toml", tmp_path / "port"
    config.write_text('[ensemble]\npreset = "instant"\n[redis]\nenabled = false\n[serve]\nmax_texts = 2000\n')
    environ = {key: value for key, value in os.environ.items() if not key.startswith("EL4NER_")}
    environ["EL4NER_CACHE_DIR"] = str(tmp_path / "cache")
    command = [sys.executable, "-m", "workers.cli", "--log-format", "json", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--config", str(config), "--ready-file", str(port_file)],
        env=environ,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: list[dict[str, Any]] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(orjson.loads(line))
            if lines[-1]["event"] == "ready":
                break
        url = next(f"http://{line['host']}:{line['port']}" for line in lines if line["event"] == "listening")
        threading.Thread(target=lambda: lines.extend(map(orjson.loads, process.stderr or ())), daemon=True).start()
        # So much that the signal comes while it is at work.
        texts = [f"{TEXT} Number {number}." for number in range(400)]
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.post(f"{url}/v1/tag", json={"texts": texts}, timeout=60, trust_env=False))

        asking = threading.Thread(target=ask)
        asking.start()
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while client.get("/livez").json()["stages"]["serve"]["in_flight"] == 0:
                assert asking.is_alive()
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert [answer.status_code for answer in answers] == [200]
        assert [document["status"] for document in answers[0].json()["documents"]] == ["complete"] * 400
        assert process.wait(60) == 0
        assert port_file.read_text() == f"{url.rpartition(':')[2]}\n"
    finally:
        process.kill()
        output, _ = process.communicate()
    assert output == ""
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_a_generated_client_tags(service: RunningService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "openapi.json"
    with service.client() as client:
        document.write_bytes(client.get("/openapi.json").content)
    config = tmp_path / "config.yml"
    config.write_text("post_hooks: []\npackage_name_override: el4ner_generated\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(document), "--meta", "none"]
    made = subprocess.run(
        [*command, "--config", str(config), "--output-path", str(tmp_path / "el4ner_generated"), "--fail-on-warning"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    api = importlib.import_module("el4ner_generated.api.default.tag")
    models = importlib.import_module("el4ner_generated.models")
    generated = importlib.import_module("el4ner_generated.client").Client(base_url=service.url)
    request = models.TagRequest(
        documents=[models.Document(text=TEXT, id="d1")], options=models.Options(min_confidence=0.0)
    )
    answer = api.sync(client=generated, body=request)
    assert isinstance(answer, models.TagAnswer)
    assert answer.documents[0].id == "d1"
    assert {TEXT[entity.start : entity.end] == entity.text for entity in answer.documents[0].entities} == {True}
    refused = api.sync(client=generated, body=models.TagRequest())
    assert isinstance(refused, models.Problem)
    assert refused.code == "schema"
    generated.get_httpx_client().close()


def test_it_keeps_what_its_description_says(service: RunningService, tmp_path: Path) -> None:
    """Schemathesis asks what the description allows, at its edges and at random, and what it does not."""
    config = tmp_path / "schemathesis.toml"
    # 422: no pool of that name is hosted, or there is neither of texts and documents. 413: more texts than maxItems
    # says; they are counted before anything else is looked at.
    config.write_text(
        "[checks.positive_data_acceptance]\nexpected-statuses = [200, 422]\n"
        "[checks.negative_data_rejection]\nexpected-statuses = [400, 413, 415, 422]\n"
        "[phases.stateful]\nenabled = false\n"
    )
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    run = subprocess.run(
        [
            *command,
            f"{service.url}/openapi.json",
            "--max-examples",
            "60",
            "--seed",
            "7",
            "--generation-database",
            "none",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "No issues found" in run.stdout
    with service.client() as client:
        metrics = client.get("/metrics").text
    counts = dict(re.findall(r'http_requests_total{path="/v1/tag",status="(\d+)"} (\d+)', metrics))
    assert int(counts["200"]) > 10, counts
    assert int(counts["422"]) > 10, counts


def test_answers_are_shared_by_redis(services: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one service was asked, the next one knows: no Kafka is there, and no folder is shared."""
    redis = {"redis": {"enabled": True, "url": services.redis_url}}
    entities = []
    for number in (1, 2):
        monkeypatch.setenv("EL4NER_CACHE_DIR", str(tmp_path / f"cache{number}"))
        with RunningService(service_settings(redis)) as service, service.client() as client:
            document = client.post("/v1/tag", json={"texts": [f"{TEXT} {tmp_path}"]}).json()["documents"][0]
            entities.append(document["entities"])
            metrics = client.get("/metrics").text
    hits = [line for line in metrics.splitlines() if line.startswith("el4ner_shared_answers_total") and "hit" in line]
    assert any(float(line.rpartition(" ")[2]) > 0 for line in hits), hits
    assert entities[0] == entities[1]


@pytest.mark.models
@pytest.mark.timeout(1200)
def test_the_real_models_say_by_http_what_the_tagger_says() -> None:
    settings = load_stream_settings(environ={}, overrides={"redis": {"enabled": False}, "serve": {"port": 0}})
    texts = [TEXT, "The European Union fined Apple in Brussels on Monday."]
    with RunningService(settings) as service, service.client() as client:
        documents = client.post("/v1/tag", json={"texts": texts}).json()["documents"]
    with Tagger.from_config(environ={}) as tagger:
        expected = [[entity_to_json(entity) for entity in tagged.entities] for tagged in tagger.tag(texts)]
    assert [document["entities"] for document in documents] == expected
    assert {"person", "location"} <= {entity["type"] for entity in documents[0]["entities"]}
