"""``el4ner serve`` in a thread of the tests' process, on a free port, with engines that answer at once or as told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from el4ner.engines.base import ScoreRequest, ScoreResult
from el4ner.engines.instant import InstantEngine
from workers.config import StreamSettings, load_stream_settings
from workers.serve.service import serve_texts

__all__ = ["EngineGate", "RunningService", "service_settings"]

START_SECONDS = 600.0


def service_settings(sections: Mapping[str, Mapping[str, Any]] | None = None) -> StreamSettings:
    """Of the instant ensemble on a free port, without Redis, and with ``sections`` over that."""
    overrides: dict[str, Any] = {
        "ensemble": {"preset": "instant"},
        "redis": {"enabled": False},
        "serve": {"port": 0},
        "worker": {"retries": 0},
    }
    for name, section in (sections or {}).items():
        overrides[name] = {**overrides.get(name, {}), **section}
    return load_stream_settings(environ={}, overrides=overrides)


class RunningService:
    """A context manager; inside, requests are accepted. What the service raises is raised at its end."""

    def __init__(self, settings: StreamSettings) -> None:
        self.settings = settings
        self.error: BaseException | None = None
        self._port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60.0, trust_env=False, verify=False, **options)

    def stop(self) -> None:
        """As a signal does. Returns at once."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def ended(self) -> None:
        """Wait for the end."""
        self._thread.join(START_SECONDS)
        assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(START_SECONDS)
        if self.error is not None:
            raise self.error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.stop()
        self.ended()
        if kind is None and self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

        def ready(port: int) -> None:
            self._port = port
            self._ready.set()

        await serve_texts(self.settings, stop=self._stop, ready=ready)


class EngineGate:
    """Holds every instant engine up while it is closed, and has it fail where a prompt has a certain text.

    ``raises``: text → what is raised over a batch that has it. ``asked``: set by each call.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.raises: dict[str, Exception] = {}
        score = InstantEngine.score

        def gated(engine: InstantEngine, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
            self.asked.set()
            assert self.open.wait(START_SECONDS)
            for text, error in self.raises.items():
                if any(text in request.prompt.user for request in requests):
                    raise error
            return score(engine, requests)

        monkeypatch.setattr(InstantEngine, "score", gated)
