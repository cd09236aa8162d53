"""A registry's answers, those that are none included. With the real one: tests/integration/test_registry.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from el4ner.errors import ConfigError, MessageError
from workers import security
from workers.config import RegistrySettings
from workers.registry.known_schemas import KnownSchemas
from workers.registry.registered_schema import (
    RegisteredSchema,
    RegistryAwayError,
    SchemaReference,
    UnknownSchemaError,
)
from workers.registry.registry_client import RegistryClient

SETTINGS = RegistrySettings(url="http://registry:8081/apis/ccompat/v7", username="ada", password="secret")


def client(answer: Callable[[httpx.Request], httpx.Response]) -> RegistryClient:
    options = security.registry_options(SETTINGS)
    return RegistryClient(httpx.Client(**options, transport=httpx.MockTransport(answer)))


def test_it_is_asked_as_the_settings_say() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"schema": '"string"'})

    assert client(answer).schema(7) == RegisteredSchema("AVRO", '"string"')
    assert str(asked[0].url) == "http://registry:8081/apis/ccompat/v7/schemas/ids/7"
    assert asked[0].headers["authorization"] == "Basic YWRhOnNlY3JldA=="


def test_references_come_each_behind_what_it_needs() -> None:
    def referring(text: str, *subjects: str) -> dict[str, Any]:
        references = [{"name": subject, "subject": subject, "version": 1} for subject in subjects]
        return {"schema": text, "schemaType": "AVRO", "references": references}

    stored = {
        "/schemas/ids/1": referring("whole", "geo/place", "city"),
        "/subjects/geo%2Fplace/versions/1": referring("place", "city"),
        "/subjects/city/versions/1": referring("city"),
    }

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=stored[request.url.raw_path.decode().removeprefix("/apis/ccompat/v7")])

    assert client(answer).schema(1) == RegisteredSchema(
        "AVRO", "whole", (SchemaReference("city", "city"), SchemaReference("geo/place", "place"))
    )


@pytest.mark.parametrize(
    ("levels", "width", "most"), [(10, 5, 51), (30, 1, 20), (2, 2_000, 1_100)], ids=["countless ways", "deep", "wide"]
)
def test_each_reference_is_asked_for_once_and_too_many_are_refused(levels: int, width: int, most: int) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        level = 0 if "/ids/" in request.url.path else int(request.url.path.split("/")[-3].split("-")[0]) + 1
        names = [f"{level}-{number}" for number in range(width)] if level < levels else []
        references = [{"name": name, "subject": name, "version": 1} for name in names]
        return httpx.Response(200, json={"schema": f"s{level}", "references": references})

    known = KnownSchemas(client(answer))
    if levels == 10:
        assert len(client(answer).schema(1).references) == levels * width
    else:
        for _ in range(2):  # and not asked for again
            with pytest.raises(
                MessageError, match=r"the schema of the value \(id 1\) refers to .*, and is not read"
            ) as error:
                (known.known(1) or known.ask(1)).read(b"x")
            assert error.value.code == "schema-type"
    assert len(asked) <= most


def test_a_reference_that_names_nothing_is_no_answer() -> None:
    for reference in ({}, {"subject": "a", "version": "x"}, "a"):
        answer = httpx.Response(200, json={"schema": "s", "references": [reference]})
        with pytest.raises(RegistryAwayError, match="a reference without subject and version"):
            client(lambda _, answer=answer: answer).schema(1)


def test_only_a_registry_says_that_a_schema_is_unknown() -> None:
    """A document whose schema is unknown is a dead letter; a wrong address must not make one of every document."""
    unknown = httpx.Response(404, json={"error_code": 40403, "message": "Schema not found"})
    with pytest.raises(UnknownSchemaError, match="Schema not found"):
        client(lambda _: unknown).schema(7)


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx.Response(404, text="<html>"), "see kafka.registry.url"),
        (httpx.Response(404, json={"error_code": 404, "message": "HTTP 404 Not Found"}), "see kafka.registry.url"),
        (httpx.Response(200, text="welcome"), "see kafka.registry.url"),
        (httpx.Response(302, headers={"location": "/login"}), "see kafka.registry.url"),
        (httpx.Response(401, json={"error_code": 40101, "message": "Unauthorized"}), "see kafka.registry.username"),
        (httpx.Response(503), "503 Service Unavailable"),
        (httpx.ConnectError("refused"), "refused"),
        (httpx.ReadTimeout(""), "ReadTimeout"),
    ],
)
def test_what_is_no_answer_may_be_one_later(response: httpx.Response | Exception, said: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        return response

    with pytest.raises(RegistryAwayError) as away:
        client(answer).schema(7)
    assert said in str(away.value)
    assert "secret" not in str(away.value)


def registering(*answers: httpx.Response, kinds: Mapping[str, str] = {}) -> tuple[Callable[[], int], list[str]]:
    """A call that registers, and what it will have asked; ``kinds``: of the schemas that can be read."""
    asked: list[str] = []
    left = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/apis/ccompat/v7")
        if request.method == "GET":
            kind = kinds.get(path)
            return NO_SUBJECT if kind is None else httpx.Response(200, json={"schema": "{}", "schemaType": kind})
        asked.append(path)
        return next(left)

    return lambda: client(answer).register("a-value", RegisteredSchema("JSON", "{}")), asked


NO_SUBJECT = httpx.Response(404, json={"error_code": 40401, "message": "Subject not found"})


def test_a_schema_that_is_there_is_not_written() -> None:
    """Whoever may only read goes on with it."""
    register, asked = registering(httpx.Response(200, json={"id": 5, "version": 1}))
    assert (register(), asked) == (5, ["/subjects/a-value"])


def test_a_new_schema_is_registered() -> None:
    register, asked = registering(NO_SUBJECT, httpx.Response(200, json={"id": 6}))
    assert (register(), asked) == (6, ["/subjects/a-value", "/subjects/a-value/versions"])


def test_a_subject_with_schemas_of_another_kind_stays_as_it_is() -> None:
    kinds = {"/subjects/a-value/versions/latest": "AVRO"}
    register, asked = registering(NO_SUBJECT, httpx.Response(200, json={"id": 6}), kinds=kinds)
    assert (register(), asked) == (6, ["/subjects/a-value-json", "/subjects/a-value-json/versions"])


def test_a_registry_that_takes_the_schema_for_another_kind_is_told_of() -> None:
    """Its clients could not read what is written by it."""
    register, _ = registering(httpx.Response(200, json={"id": 6}), kinds={"/schemas/ids/6": "AVRO"})
    with pytest.raises(ConfigError, match=r"subject a-value \(id 6\) for AVRO, and it is JSON: delete the subject"):
        register()


@pytest.mark.parametrize(
    ("status", "said"),
    [(409, "not compatible with what the subject has"), (403, "allow el4ner to register"), (422, "at json")],
)
def test_a_schema_that_is_refused_says_what_can_be_done(status: int, said: str) -> None:
    register, _ = registering(NO_SUBJECT, httpx.Response(status, json={"message": "because"}))
    with pytest.raises(ConfigError, match=f"subject a-value: {status} because; .*{said}"):
        register()


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_registry_that_does_not_register_is_asked_again(status: int) -> None:
    for answers in ([httpx.Response(status)], [NO_SUBJECT, httpx.Response(status)]):
        register, _ = registering(*answers)
        with pytest.raises(RegistryAwayError, match=str(status)):
            register()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "registry:8081"}, "expected http://HOST:PORT"),
        ({"url": "https://ada:secret@registry"}, "without user and password"),
        ({"username": "ada"}, "has no effect without url"),
        ({"url": "http://r", "username": "ada"}, "needs password or password_file"),
        ({"url": "http://r", "password": "secret"}, "needs username"),
        ({"url": "http://r", "password": "secret", "username": "ada", "token": "t"}, "leave one of them out"),
        ({"url": "http://r", "ssl_check_hostname": False}, "start url with https://"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        RegistrySettings(**settings)
    assert "secret" not in str(error.value.errors(include_input=False))  # type: ignore[attr-defined]
