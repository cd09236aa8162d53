"""``el4ner ui`` in a thread of the tests' process, on a free port; and tagged documents as the stream writes them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import orjson

from tests.support.paths import ROOT
from workers.config import StreamSettings
from workers.ui.page_service import serve_page

__all__ = ["RunningPage", "tagged_value"]

_SECONDS = 60.0
_EXAMPLE: dict[str, Any] = orjson.loads((ROOT / "schemas/examples/tagged-documents.v1.complete.json").read_bytes())


def tagged_value(name: str, text: str, *spans: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A message of ``tagged-documents``; ``spans``: surfaces of the text, and their types."""
    entity = _EXAMPLE["entities"][0]
    entities = []
    for surface, kind in spans:
        start = text.index(surface)
        votes = {"smollm2-135m": kind, "gemma3-270m": kind}
        entities.append(
            {**entity, "start": start, "end": start + len(surface), "text": surface, "type": kind, "votes": votes}
        )
    return {**_EXAMPLE, "id": name, "text": text, "entities": entities, **more}


class RunningPage:
    """A context manager; inside, requests are answered. What the page raises is raised at its end.

    ``clock``: what the page takes for the time, seconds since the epoch.
    """

    def __init__(
        self,
        settings: StreamSettings,
        ui: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        section = type(settings.ui).model_validate(
            {**settings.ui.model_dump(exclude_unset=True), "port": 0, **(ui or {})}
        )
        self.settings = settings.model_copy(update={"ui": section})
        self._clock = clock
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(_SECONDS)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_SECONDS)
        assert not self._thread.is_alive()
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

        def ready(port: int) -> None:
            self.url = f"http://127.0.0.1:{port}"
            self._ready.set()

        await serve_page(self.settings, stop=self._stop, ready=ready, clock=self._clock)
