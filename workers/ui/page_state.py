"""What the page's requests are answered by, and what their handlers share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from el4ner.serialize import dumps
from workers.config import StreamSettings
from workers.dead_letters.letters import DlqError
from workers.entities.entity_topic import EntitiesError
from workers.http.problems import CLIENT_GONE, ProblemError
from workers.tail import TailError
from workers.teaching.topic_examples import TeachingError
from workers.ui.followed_entities import FollowedEntities
from workers.ui.followed_topic import FollowedTopic
from workers.ui.group_lag import LagKeeper
from workers.ui.lessons import Lessons
from workers.ui.live_feed import LiveFeed
from workers.ui.review_queues import ReviewQueues
from workers.ui.tried_texts import TriedTexts
from workers.ui.visitors import Visitors
from workers.ui.worker_metrics import WorkerMetrics

__all__ = ["PageState", "json_body", "json_response", "on_a_thread"]

T = TypeVar("T")

_MOST_BODY: Final = 512 * 1024
_BODY_SECONDS: Final = 10.0
_BLOCKING_CALLS: Final = 4
"""Kafka clients of ours that may be open at the same time for what people look up."""


@dataclass
class PageState:
    """What requests are answered by."""

    settings: StreamSettings
    visitors: Visitors
    feed: LiveFeed
    followed: FollowedTopic
    tried: TriedTexts
    metrics: WorkerMetrics
    lags: LagKeeper
    lessons: Lessons
    reviews: ReviewQueues
    entities: FollowedEntities
    clock: Callable[[], float] = time.time
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    blocking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_BLOCKING_CALLS))
    replaying: asyncio.Lock = field(default_factory=asyncio.Lock)
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)


async def on_a_thread(state: PageState, call: Callable[[], T]) -> T:
    """What asks Kafka by a client of its own, on a thread.

    Raises:
        ProblemError: 502: it says what is wrong.
    """
    async with state.blocking:
        try:
            return await asyncio.to_thread(call)
        except (DlqError, EntitiesError, TailError, TeachingError) as error:
            raise ProblemError(HTTPStatus.BAD_GATEWAY, error.code, str(error)) from error


async def json_body(request: Request) -> dict[str, Any]:
    """A JSON object."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media-type", "expected Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST_BODY:
                    detail = f"the body is larger than {_MOST_BODY >> 10} kB"
                    raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request-too-large", detail)
        value = orjson.loads(body)
    except TimeoutError:
        raise ProblemError(
            HTTPStatus.REQUEST_TIMEOUT, "slow-body", "the body did not come in time", headers={"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise ProblemError(CLIENT_GONE, "client-gone", "the client closed the connection") from None
    except orjson.JSONDecodeError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "json", f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProblemError(HTTPStatus.BAD_REQUEST, "json", "the body is no JSON object")
    return value


def json_response(data: Any, status: int = 200) -> Response:
    """The answer that has this data."""
    return Response(dumps(data), status, media_type="application/json")
