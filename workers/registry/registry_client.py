"""A schema registry, asked by the REST interface that Confluent's, Karapace and Apicurio share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
import orjson

from el4ner.errors import ConfigError
from workers import security
from workers.config import RegistrySettings
from workers.registry.registered_schema import (
    RefusedSchemaError,
    RegisteredSchema,
    RegistryAwayError,
    SchemaReference,
    UnknownSchemaError,
)

__all__ = ["RegistryClient"]

_SCHEMA_NOT_FOUND: Final = 40403
"""The registry's own code. A bare 404 may come from another server, or for a wrong address."""
_SUBJECT_NOT_FOUND: Final = 40401
_REFUSALS: Final[Mapping[int, str]] = {
    httpx.codes.CONFLICT: "it is not compatible with what the subject has: register it yourself, change the subject's "
    "compatibility, or leave kafka.value_format at json",
    httpx.codes.UNPROCESSABLE_ENTITY: "leave kafka.value_format at json, or register a schema for it yourself",
    httpx.codes.FORBIDDEN: "allow el4ner to register schemas, or register it for el4ner",
}
_DEEPEST_REFERENCES: Final = 16
_MOST_REFERENCES: Final = 1_000
_SHOWN: Final = 300


class RegistryClient:
    """Blocking, and for one thread at a time. Nothing is kept: who asks keeps the answer."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    @classmethod
    def of(cls, settings: RegistrySettings) -> Self:
        """A client as the settings say; ``url`` is set.

        Raises:
            ConfigError: a certificate, key, password or token file cannot be used; names the key.
        """
        return cls(httpx.Client(**security.registry_options(settings)))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def schema(self, schema_id: int) -> RegisteredSchema:
        """The schema of an id, which is the same for ever.

        Raises:
            UnknownSchemaError: there is none.
            RefusedSchemaError: it refers to too many others.
            RegistryAwayError: the registry does not say.
        """
        answer = self._get(f"schemas/ids/{schema_id}")
        found: dict[SchemaReference, None] = {}
        self._add_references(answer, found, set(), depth=0)
        return RegisteredSchema(str(answer.get("schemaType") or "AVRO"), _text_of(answer), tuple(found))

    def register(self, subject: str, schema: RegisteredSchema) -> int:
        """The id of a schema without references under a subject, which gets it as a new version if it has it not.

        Where the subject has schemas of another kind it is ``SUBJECT-avro``, ``-json`` or ``-protobuf``: registries
        compare no schemas of two kinds, and Apicurio takes all of a subject for what its first one was.

        Raises:
            ConfigError: the registry refuses it: it does not go with what the subject has, or may not be written.
            RegistryAwayError: the registry does not say.
        """
        if self._kind(f"subjects/{quote(subject, safe='')}/versions/latest") not in (None, schema.kind):
            subject = f"{subject}-{schema.kind.lower()}"
        schema_id = self._registered(subject, schema)
        kept = self._kind(f"schemas/ids/{schema_id}")
        if kept not in (None, schema.kind):
            raise ConfigError(
                f"kafka.value_format: the registry takes the schema of subject {subject} (id {schema_id}) for {kept}, "
                f"and it is {schema.kind}: delete the subject for good, or register the schema under it yourself"
            )
        return schema_id

    def _kind(self, path: str) -> str | None:
        """The kind of the schema that is there; None: it is not, or nobody says."""
        response, data = self._ask("GET", path)
        if response.status_code != httpx.codes.OK or not isinstance(data.get("schema"), str):
            return None
        return str(data.get("schemaType") or "AVRO")

    def _registered(self, subject: str, schema: RegisteredSchema) -> int:
        path = f"subjects/{quote(subject, safe='')}"
        body = {"schema": schema.text, "schemaType": schema.kind}
        # Who only reads the registry may go on with what somebody else has registered.
        for asked in (path, f"{path}/versions"):
            response, data = self._ask("POST", asked, body)
            schema_id = data.get("id")
            if response.status_code == httpx.codes.OK and isinstance(schema_id, int):
                return schema_id
            if response.status_code in _REFUSALS:
                raise ConfigError(
                    f"kafka.value_format: the registry refuses the schema of subject {subject}: "
                    f"{response.status_code} {str(data.get('message'))[:_SHOWN]}; {_REFUSALS[response.status_code]}"
                )
            if asked != path or data.get("error_code") not in (_SUBJECT_NOT_FOUND, _SCHEMA_NOT_FOUND):
                break
        raise RegistryAwayError(f"{self._http.base_url}{asked}: {_refusal(response, data)}")

    def _add_references(
        self,
        answer: Mapping[str, Any],
        found: dict[SchemaReference, None],
        asked: set[tuple[str, str, int]],
        *,
        depth: int,
    ) -> None:
        """Add what a schema refers to, directly or through others. ``asked``: by name, subject and version, each once:
        where many refer to the same, ways to it may be countless."""
        if depth > _DEEPEST_REFERENCES:
            raise RefusedSchemaError(f"refers to others more than {_DEEPEST_REFERENCES} deep, and is not read")
        for reference in answer.get("references") or ():
            try:
                name = str(reference.get("name") or "")
                subject, version = str(reference["subject"]), int(reference["version"])
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise RegistryAwayError(f"{self._http.base_url}: a reference without subject and version") from error
            if (name, subject, version) in asked:
                continue
            asked.add((name, subject, version))
            if len(asked) > _MOST_REFERENCES:
                raise RefusedSchemaError(f"refers to more than {_MOST_REFERENCES} others, and is not read")
            referred = self._get(f"subjects/{quote(subject, safe='')}/versions/{version}")
            self._add_references(referred, found, asked, depth=depth + 1)
            found[SchemaReference(name, _text_of(referred))] = None

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[httpx.Response, Mapping[str, Any]]:
        try:
            response = self._http.request(method, path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RegistryAwayError(f"{self._http.base_url}{path}: {str(error) or type(error).__name__}") from error
        return response, _object(response.content)

    def _get(self, path: str) -> Mapping[str, Any]:
        response, data = self._ask("GET", path)
        if response.status_code == httpx.codes.NOT_FOUND and data.get("error_code") == _SCHEMA_NOT_FOUND:
            raise UnknownSchemaError(f"the registry knows no such schema: {str(data.get('message'))[:_SHOWN]}")
        if response.status_code != httpx.codes.OK or not isinstance(data.get("schema"), str):
            raise RegistryAwayError(f"{self._http.base_url}{path}: {_refusal(response, data)}")
        return data


def _text_of(answer: Mapping[str, Any]) -> str:
    return str(answer["schema"])


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def _refusal(response: httpx.Response, data: Mapping[str, Any]) -> str:
    said = f"{response.status_code} {str(data.get('message') or response.reason_phrase)[:_SHOWN]}"
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return f"{said}: see kafka.registry.username and password, or token"
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or response.status_code == 429:
        return said
    return f"{said}: no answer of a schema registry: see kafka.registry.url (Apicurio's ends in /apis/ccompat/v7)"
