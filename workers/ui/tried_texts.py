"""Texts that people try: tagged by `el4ner serve`, at ``ui.serve_url``.

Not by the topic ``documents``, although the page could write there: what is tried would be a document of the stream, on
every topic for as long as they are kept, and in what its readers count. The service answers and keeps nothing.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import httpx

from el4ner.errors import MessageError
from workers.config import UiSettings
from workers.http.problems import ProblemError
from workers.messages import json_schemas
from workers.security import bearer_token
from workers.topics import Topic
from workers.ui.shown_documents import shown_document, shown_string

__all__ = ["TriedTexts"]

_SECONDS: Final = 60.0


class TriedTexts:
    """Raises a :class:`ProblemError` where the service cannot be asked, or refuses.

    Raises:
        ConfigError: the token file cannot be used.
    """

    def __init__(self, settings: UiSettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        token = bearer_token(settings.serve_token, settings.serve_token_file, "ui.serve_token")
        self._url = settings.serve_url
        self._client = httpx.AsyncClient(
            base_url=settings.serve_url or "",
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=_SECONDS,
            transport=transport,
        )

    @property
    def is_possible(self) -> bool:
        """Whether a service is configured."""
        return self._url is not None

    async def pools(self) -> dict[str, Any]:
        """The service's pools with their types, and which one is its default."""
        answer = await self._ask("GET", "/v1/pools")
        try:
            return {
                "default": str(answer["default"]),
                "pools": [
                    {
                        "name": str(pool["name"]),
                        "text_kind": pool["text_kind"],
                        "sentences": pool["sentences"],
                        "types": [
                            {"name": shown_string(kind["name"]), "description": shown_string(kind["description"])}
                            for kind in pool["types"]
                        ],
                    }
                    for pool in answer["pools"]
                ],
            }
        except (KeyError, TypeError) as error:
            raise self._another_service() from error

    async def tag(self, text: str, pool: str | None) -> dict[str, Any]:
        """The text with its entities, as the page shows a document."""
        document = {"id": "tried", "text": text, **({} if pool is None else {"pool": pool})}
        answer = await self._ask("POST", "/v1/tag", {"documents": [document]})
        try:
            (value,) = answer["documents"]
            json_schemas.validate(Topic.TAGGED_DOCUMENTS, value)
        except (KeyError, TypeError, ValueError, MessageError) as error:
            raise self._another_service() from error
        return shown_document(value)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    def _another_service(self) -> ProblemError:
        detail = f"{self._url} answered something else: is it the address of `el4ner serve`?"
        return ProblemError(HTTPStatus.BAD_GATEWAY, "service", detail)

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        if self._url is None:
            detail = "no service is configured: start `el4ner serve`, and set ui.serve_url to its address"
            raise ProblemError(HTTPStatus.NOT_FOUND, "no-service", detail)
        try:
            response = await self._client.request(method, path, json=body)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            detail = f"no answer from {self._url} ({type(error).__name__}): is `el4ner serve` running there?"
            raise ProblemError(HTTPStatus.BAD_GATEWAY, "service-away", detail) from error
        if response.status_code == HTTPStatus.OK:
            return answer
        documents = answer.get("documents") if isinstance(answer, dict) else None
        if documents:  # refused as a whole, since the one text cannot be tagged: it says why
            return answer
        detail = shown_string(answer.get("detail", "")) if isinstance(answer, dict) else ""
        raise ProblemError(HTTPStatus.BAD_GATEWAY, "service", f"{self._url}: {response.status_code}: {detail}")
