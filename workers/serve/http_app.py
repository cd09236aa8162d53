"""The service's paths, and what every answer has.

POST /v1/tag            tags texts
GET /v1/pools           the pools, and their types
GET /openapi.json       the description of these two
GET /livez, /readyz, /healthz, /metrics     as a worker's web server has them
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from el4ner.errors import El4nerError, EngineError
from el4ner.pools import Pool
from el4ner.serialize import dumps
from workers.config import ServeSettings
from workers.http.problems import CLIENT_GONE, ProblemError, problem_response
from workers.serve.front import PATHS, Front
from workers.serve.openapi import openapi_document
from workers.serve.tag_answers import Tagged, tag_answer
from workers.serve.tag_requests import TextToTag, read_tag_request
from workers.serve.text_queue import QueueFullError, StoppedError, TextQueue
from workers.telemetry.health import Health
from workers.telemetry.recorder import Telemetry

__all__ = ["ServiceState", "http_app"]

log = logging.getLogger(__name__)

_START_SECONDS: Final = 5
"""When to come back to a service that is starting, stopping, or whose engine is away."""


@dataclass
class ServiceState:
    """What requests are answered by. ``queue`` and ``pools`` are there once the models are loaded. ``entity_ids``:
    whether entities have ids."""

    settings: ServeSettings
    pool_names: Sequence[str]
    default_pool: str
    telemetry: Telemetry
    health: Health
    token: str | None = None
    entity_ids: bool = False
    queue: TextQueue | None = None
    pools: Mapping[str, Pool] = field(default_factory=dict)
    stopping: bool = False
    bodies: set[asyncio.Timeout] = field(default_factory=set)
    """Limits of those that are on their way."""

    def stop(self) -> None:
        """Take nothing new, and wait for no body any more."""
        self.stopping = True
        now = asyncio.get_running_loop().time()
        for limit in self.bodies:
            if not limit.expired():
                limit.reschedule(now)

    def loaded_queue(self) -> TextQueue:
        """The queue, if it takes anything.

        Raises:
            ProblemError: 503.
        """
        retry = {"Retry-After": str(_START_SECONDS)}
        if self.stopping:
            detail = "the service stops: it answers what it has accepted, and nothing new; ask another one"
            raise ProblemError(503, StoppedError.code, detail, headers={**retry, "Connection": "close"})
        if self.queue is None:
            raise ProblemError(503, "starting", "the models are being loaded: ask again in a while", headers=retry)
        return self.queue


def http_app(state: ServiceState) -> ASGIApp:
    """The application. Nothing that it raises reaches the server."""
    app = Starlette(
        routes=[
            Route("/v1/tag", partial(_tag, state=state), methods=["POST"]),
            Route("/v1/pools", partial(_pools, state=state)),
            Route("/openapi.json", partial(_openapi, state=state)),
            Route("/livez", partial(_probe, judge=state.health.live)),
            Route("/readyz", partial(_probe, judge=state.health.ready)),
            Route("/healthz", partial(_probe, judge=state.health.well)),
            Route("/metrics", partial(_metrics, state=state)),
        ],
        exception_handlers={HTTPException: _http_problem, ProblemError: _own_problem, Exception: _bug},
    )
    app.router.redirect_slashes = False
    return Front(app, token=state.token, telemetry=state.telemetry)


# --- paths ------------------------------------------------------------------------------------------------------------


async def _tag(request: Request, state: ServiceState) -> Response:
    queue, settings = state.loaded_queue(), state.settings
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # A browser asks before it sends this type to another site, and nothing here says yes.
        raise ProblemError(415, "media-type", "expected Content-Type: application/json")
    most = settings.max_request_kb << 10
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdecimal() else most
    if size > most:
        raise _too_large(settings)
    try:
        with queue.room(size):
            body = await _body(request, state)
            state.loaded_queue()  # it may have begun to stop while the body came
            texts = read_tag_request(body, pools=state.pool_names, max_texts=settings.max_texts)
            results = await _answers(request, queue, texts, settings.request_seconds)
            return _json(tag_answer(texts, results, with_ids=state.entity_ids))
    except QueueFullError as full:
        raise ProblemError(429, full.code, str(full), headers={"Retry-After": str(full.retry_seconds)}) from full


async def _body(request: Request, state: ServiceState) -> bytes:
    settings = state.settings
    most, body = settings.max_request_kb << 10, bytearray()
    try:
        async with asyncio.timeout(settings.read_seconds) as limit:
            state.bodies.add(limit)
            try:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise _too_large(settings)
            finally:
                state.bodies.discard(limit)
    except TimeoutError:
        state.loaded_queue()  # 503 if it stops
        detail = f"the body did not come within {settings.read_seconds:g} s (serve.read_seconds)"
        raise ProblemError(408, "slow-body", detail, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ProblemError(CLIENT_GONE, "client-gone", "the client closed the connection") from None
    return bytes(body)


async def _answers(request: Request, queue: TextQueue, texts: Sequence[TextToTag], seconds: float) -> list[Tagged]:
    waiting = queue.accept(texts)
    answered = asyncio.gather(*(each.answer for each in waiting), return_exceptions=True)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((answered, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            if gone.done():
                raise ProblemError(CLIENT_GONE, "client-gone", "the client closed the connection")
            detail = f"not answered within {seconds:g} s (serve.request_seconds): send fewer texts at once"
            raise ProblemError(504, "request-timeout", detail)
    finally:
        gone.cancel()
        if not answered.done():
            queue.drop(waiting)  # which ends what gathers them
    results: list[Tagged] = []
    for result in answered.result():
        if isinstance(result, El4nerError):
            detail = str(result)
            if isinstance(result, EngineError):  # whose message may quote a text of another request
                detail = "an engine is away or failed: ask again in a while"
            raise ProblemError(503, result.code, detail, headers={"Retry-After": str(_START_SECONDS)}) from result
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


async def _gone(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(settings: ServeSettings) -> ProblemError:
    detail = f"the body is larger than serve.max_request_kb = {settings.max_request_kb}: send several requests"
    # The connection stays, and throws the rest away: closed with data on its way, the client might not see the answer.
    return ProblemError(413, "request-too-large", detail)


async def _pools(_request: Request, state: ServiceState) -> Response:
    state.loaded_queue()
    pools = [
        {
            "name": name,
            "text_kind": pool.text_kind,
            "sentences": len(pool.sentences),
            "fingerprint": pool.fingerprint,
            "types": [{"name": kind, "description": text} for kind, text in pool.types.items()],
        }
        for name, pool in sorted(state.pools.items())
    ]
    return _json({"default": state.default_pool, "pools": pools})


async def _openapi(_request: Request, state: ServiceState) -> Response:
    return _json(openapi_document(state.settings, state.pool_names))


async def _probe(_request: Request, judge: Callable[[], tuple[bool, Mapping[str, Any]]]) -> Response:
    well, details = judge()
    return _json(details, HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)


async def _metrics(request: Request, state: ServiceState) -> Response:
    body, content_type = state.telemetry.metrics.exposition(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})


def _json(data: Any, status: int = 200) -> Response:
    return Response(dumps(data), status, media_type="application/json")


async def _own_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error)


async def _http_problem(_request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or method."""
    assert isinstance(error, HTTPException)
    codes = {404: "no-such-path", 405: "method-not-allowed"}
    detail = f"there are {', '.join(sorted(PATHS))}" if error.status_code == HTTPStatus.NOT_FOUND else error.detail
    code = codes.get(error.status_code, "request")
    return problem_response(ProblemError(error.status_code, code, detail, headers=error.headers))


async def _bug(_request: Request, _error: Exception) -> Response:
    detail = "a bug; the service's log has it, by this answer's X-Request-ID"
    return problem_response(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "bug", detail))
