"""The service as its clients see it: by HTTP, on a real port, with engines that answer at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from el4ner.config import Settings, load_settings
from el4ner.errors import DocumentError
from el4ner.loader import load_pipeline
from el4ner.serialize import entity_to_json
from el4ner.tagger import Tagger
from el4ner.types import Document
from tests.support.http_service import RunningService, service_settings
from workers.messages import json_schemas
from workers.messages.entity_ids import entity_ids

TEXTS = [
    "Ada Lovelace met Charles Babbage in London.",
    "The European Union fined Apple in Brussels on Monday.",
    "",
    "Ünïcode 😀 and العربية in Zürich, said Marie Curie.",
]
LOG_LINE = "Nov 27 10:53:21 web-1 sshd[1205]: Failed password for root from 10.0.0.7 port 22 ssh2"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    patch = pytest.MonkeyPatch()
    patch.setenv("EL4NER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    with RunningService(service_settings({"serve": {"max_texts": 20, "max_request_kb": 64}})) as running:
        yield running
    patch.undo()


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[httpx.Client]:
    with service.client() as made:
        yield made


@pytest.fixture
def tagger(
    monkeypatch: pytest.MonkeyPatch, service: RunningService, request: pytest.FixtureRequest
) -> Iterator[Tagger]:
    del monkeypatch, service
    method = getattr(request, "param", {})
    settings = load_settings(Settings, environ={}, overrides={"ensemble": {"preset": "instant"}, "method": method})
    with Tagger(load_pipeline(settings)) as made:
        yield made


def tag(client: httpx.Client, body: Any, status: int = 200) -> Any:
    response = client.post("/v1/tag", json=body)
    assert response.status_code == status, response.text
    return response.json()


def entities_of(tagger: Tagger, documents: list[str | Document]) -> list[Any]:
    results = tagger.tag_or_error(documents)
    return [
        None if isinstance(result, DocumentError) else [entity_to_json(entity) for entity in result.entities]
        for result in results
    ]


# --- answers ----------------------------------------------------------------------------------------------------------


def test_entities_are_those_of_the_tagger(client: httpx.Client, tagger: Tagger) -> None:
    documents = tag(client, {"texts": TEXTS})["documents"]
    assert [document["entities"] for document in documents] == entities_of(tagger, [*TEXTS])
    assert sum(len(document["entities"]) for document in documents) > 5
    assert [document["id"] for document in documents] == ["0", "1", "2", "3"]
    for text, document in zip(TEXTS, documents, strict=True):
        assert document["text"] == text
        for entity in document["entities"]:
            assert text[entity["start"] : entity["end"]] == entity["text"]


def test_answers_are_what_the_topic_has(client: httpx.Client) -> None:
    item = {"text": TEXTS[0], "id": "d1", "revision": 7, "metadata": {"from": ["x"]}, "pool": "news"}
    bad = {"text": "x", "pool": "nws", "metadata": {}}
    documents = tag(client, {"documents": [item, bad]})["documents"]
    for document in documents:
        json_schemas.validate("tagged-documents", document)
    assert {key: documents[0][key] for key in item} == item
    assert documents[0]["status"] == "complete"
    assert set(documents[0]["manifests"]) == {"extract", "classify", "validate"}


def test_where_entities_are_enabled_answers_have_their_ids_as_the_topic(client: httpx.Client) -> None:
    body = {"texts": [*TEXTS, LOG_LINE]}
    plain = tag(client, body)["documents"]
    with RunningService(service_settings({"entities": {"enabled": True}})) as running, running.client() as other:
        documents = tag(other, body)["documents"]
    for document, before in zip(documents, plain, strict=True):
        json_schemas.validate("tagged-documents", document)
        ids = entity_ids(before)
        assert [entity.pop("entity_id") for entity in document["entities"]] == ids
        assert document["entities"] == before["entities"]


@pytest.mark.parametrize(
    ("tagger", "options"),
    [
        ({"overlaps": "nested"}, {"overlaps": "nested"}),
        ({"min_confidence": 0.22}, {"min_confidence": 0.22}),
        ({"overlaps": "nested", "min_confidence": 0.2}, {"overlaps": "nested", "min_confidence": 0.2}),
        ({}, {}),
    ],
    indirect=["tagger"],
)
def test_options_do_what_the_settings_do(client: httpx.Client, tagger: Tagger, options: dict[str, Any]) -> None:
    documents = tag(client, {"texts": TEXTS, "options": options})["documents"]
    assert [document["entities"] for document in documents] == entities_of(tagger, [*TEXTS])


def test_the_pool_of_the_request_is_that_of_texts_without_one(client: httpx.Client, tagger: Tagger) -> None:
    body = {"documents": [{"text": LOG_LINE}, {"text": TEXTS[0], "pool": "news"}], "pool": "logs"}
    documents = tag(client, body)["documents"]
    assert [document["pool"] for document in documents] == ["logs", "news"]
    expected = entities_of(tagger, [Document("0", LOG_LINE, "logs"), Document("1", TEXTS[0], "news")])
    assert [document["entities"] for document in documents] == expected


def test_a_text_that_cannot_be_tagged_costs_the_others_nothing(client: httpx.Client) -> None:
    body = {"documents": [{"text": TEXTS[0], "pool": "nws"}, {"text": TEXTS[0]}, {"text": "Ada said no.\n\n" * 1001}]}
    documents = tag(client, body)["documents"]
    assert [document["status"] for document in documents] == ["failed", "complete", "failed"]
    assert documents[0]["error"]["code"] == "unknown-pool"
    assert "nearest: 'news'" in documents[0]["error"]["message"]
    assert documents[2]["error"]["code"] == "too-many-sentences"
    assert documents[1]["entities"]


def test_a_request_of_which_nothing_can_be_tagged_is_refused(client: httpx.Client) -> None:
    problem = tag(client, {"documents": [{"text": "x", "pool": "nws"}, {"text": "y", "pool": "lgs"}]}, 422)
    assert (problem["status"], problem["code"]) == (422, "unknown-pool")
    assert problem["detail"].startswith("none of the 2 texts could be tagged; the first reason: no pool 'nws'")
    assert [document["error"]["code"] for document in problem["documents"]] == ["unknown-pool"] * 2


def nested(levels: int) -> bytes:
    return b'{"documents": [{"text": "a", "metadata": {"a": ' + b"[" * levels + b"]" * levels + b"}}]}"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code", "detail"),
    [
        (b"", 400, "json", "not JSON"),
        (b"{", 400, "json", "not JSON"),
        (b'{"texts": ["\xff"]}', 400, "json", "UTF-8"),
        (rb'{"texts": ["\ud800"]}', 400, "json", "not JSON"),
        (b"[" * 5000, 400, "json", "not JSON"),
        (b"[]", 422, "schema", "/: "),
        (b"{}", 422, "schema", "texts or documents"),
        (b'{"texts": ["a"], "documents": [{"text": "a"}]}', 422, "schema", "texts or documents"),
        (b'{"texts": []}', 422, "schema", "/texts: "),
        (b'{"texts": [1]}', 422, "schema", "/texts/0: "),
        (b'{"documents": [{"txt": "a"}]}', 422, "schema", "/documents/0: "),
        (b'{"texts": ["a"], "optons": {}}', 422, "schema", "optons"),
        (b'{"texts": ["a"], "options": {"validation": "off"}}', 422, "schema", "/options: "),
        (b'{"texts": ["a"], "options": {"min_confidence": 1.5}}', 422, "schema", "/options/min_confidence: "),
        (b'{"texts": ["a"], "options": {"overlaps": "none"}}', 422, "schema", "/options/overlaps: "),
        (b'{"texts": ["a"], "pool": "nws"}', 422, "unknown-pool", "nearest: 'news'"),
        (b'{"documents": [{"text": "a", "id": ""}]}', 422, "schema", "/documents/0/id: "),
        (b'{"documents": [{"text": "a", "revision": -1}]}', 422, "schema", "/documents/0/revision: "),
        (nested(260), 422, "schema", "/documents/0/metadata: "),
        (nested(900), 422, "schema", "nested more than 200 deep"),
        (
            orjson.dumps({"texts": [1] * 21}),
            413,
            "too-many-texts",
            "has 21 texts",
        ),  # before the mistakes are looked for
        (orjson.dumps({"documents": [{}] * 21}), 413, "too-many-texts", "has 21 documents"),
        (orjson.dumps({"texts": ["a"] * 21}), 413, "too-many-texts", "serve.max_texts = 20"),
        (orjson.dumps({"texts": ["a" * 70_000]}), 413, "request-too-large", "serve.max_request_kb = 64"),
    ],
)
def test_what_is_wrong_is_named(client: httpx.Client, body: bytes, status: int, code: str, detail: str) -> None:
    response = client.post("/v1/tag", content=body, headers={"Content-Type": "application/json"})
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert detail in problem["detail"]


def test_metadata_may_be_nested_as_deep_as_is_said(client: httpx.Client) -> None:
    response = client.post("/v1/tag", content=nested(199), headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    assert response.json()["documents"][0]["metadata"] == orjson.loads(nested(199))["documents"][0]["metadata"]


def test_a_body_without_a_length_has_the_same_bound(client: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"texts": ["'
        for _ in range(20):
            yield b"a" * 5000

    response = client.post("/v1/tag", content=parts(), headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (413, "request-too-large")
    small = client.post(
        "/v1/tag", content=iter([b'{"texts":', b'["a"]}']), headers={"Content-Type": "application/json"}
    )
    assert small.status_code == 200


def test_a_body_with_two_lengths_is_refused(client: httpx.Client) -> None:
    """A proxy before the service might go by the other one, and see another request in what follows."""
    headers = {"Content-Type": "application/json", "Content-Length": "4", "Transfer-Encoding": "chunked"}
    response = client.post("/v1/tag", content=iter([b'{"texts": ["a"]}']), headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "framing")
    assert response.headers["connection"] == "close"


def test_a_browsers_form_is_refused(client: httpx.Client) -> None:
    response = client.post("/v1/tag", content=b'{"texts": ["a"]}', headers={"Content-Type": "text/plain"})
    assert (response.status_code, response.json()["code"]) == (415, "media-type")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8088", "127.0.0.1.evil.example", ""])
def test_without_a_token_only_this_machines_names_are_answered(client: httpx.Client, host: str) -> None:
    response = client.get("/v1/pools", headers={"Host": host})
    assert (response.status_code, response.json()["code"]) == (400, "host")
    assert client.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8088", "127.0.0.1", "[::1]:8088"])
def test_all_of_this_machines_names_are(client: httpx.Client, host: str) -> None:
    assert client.get("/v1/pools", headers={"Host": host}).status_code == 200


def test_other_paths_and_methods_say_what_there_is(client: httpx.Client) -> None:
    missing = client.get("/v2/tag")
    assert (missing.status_code, missing.json()["code"]) == (404, "no-such-path")
    assert "/v1/tag" in missing.json()["detail"]
    wrong = client.get("/v1/tag")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "method-not-allowed", "POST")


# --- pools, description, probes ---------------------------------------------------------------------------------------


def test_the_pools_are_shown_with_their_types(client: httpx.Client, tagger: Tagger) -> None:
    answer = client.get("/v1/pools").json()
    assert answer["default"] == "news"
    for shown in answer["pools"]:
        pool = tagger.pipeline.pools[shown["name"]]
        assert {each["name"]: each["description"] for each in shown["types"]} == dict(pool.types)
        assert (shown["fingerprint"], shown["text_kind"]) == (pool.fingerprint, pool.text_kind)
        assert shown["sentences"] == len(pool.sentences)
    assert [shown["name"] for shown in answer["pools"]] == ["logs", "news"]


def test_the_description_names_no_other_host_and_resolves(client: httpx.Client) -> None:
    text = client.get("/openapi.json").text
    assert "http://" not in text
    assert "https://" not in text
    document = orjson.loads(text)
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    for reference in re.findall(r'"\$ref":"([^"]+)"', text):
        assert reference.removeprefix("#/components/schemas/") in schemas
    assert schemas["TagRequest"]["properties"]["pool"]["enum"] == ["logs", "news"]
    assert schemas["TagRequest"]["properties"]["texts"]["maxItems"] == 20
    assert "securitySchemes" not in document["components"]


def test_probes_and_metrics_are_those_of_a_worker(client: httpx.Client) -> None:
    tag(client, {"texts": ["Grace Hopper wrote a compiler in New York."]})
    for path in ("/livez", "/readyz", "/healthz"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        assert answer.json()["stages"]["serve"]["ready"] is True
    metrics = client.get("/metrics").text
    assert re.search(r'el4ner_http_requests_total\{path="/v1/tag",status="200"\} [1-9]', metrics)
    assert 'el4ner_stage_ready{stage="serve"} 1.0' in metrics
    assert re.search(r'el4ner_batch_documents_count\{stage="serve"\} [1-9]', metrics)
    assert re.search(r'el4ner_prompt_tokens_total\{stage="classify"\} [1-9]', metrics)
    client.get("/a-path-of-the-clients-own")
    assert "a-path-of-the-clients-own" not in client.get("/metrics").text


def test_ids_are_taken_and_passed_on(client: httpx.Client) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = {"X-Request-ID": "order/17", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    answer = client.post("/v1/tag", json={"texts": ["a"]}, headers=sent)
    assert answer.headers["x-request-id"] == "order/17"
    assert re.fullmatch(rf"00-{trace}-[0-9a-f]{{16}}-01", answer.headers["traceparent"])
    assert "00f067aa0ba902b7" not in answer.headers["traceparent"]


@pytest.mark.parametrize("hostile", ['"><script>', "a b", "x" * 129])
def test_an_id_that_is_none_is_replaced(client: httpx.Client, hostile: str) -> None:
    answer = client.get("/v1/pools", headers={"X-Request-ID": hostile})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["server"] == "el4ner"
