"""The page of ``el4ner demo --ui``: a process beside the workers, and documents that go on coming."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workers.cli.demo_process import DemoError, environment, start, stop, wait_ready
from workers.cli.output import tell

if TYPE_CHECKING:
    from workers.config import StreamSettings
    from workers.inputs.documents import NewDocument

__all__ = ["again", "running_page", "settings_with_page"]

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0
_PAUSE_SECONDS: Final = 1.0
"""Between documents that come again: somebody is reading."""


def settings_with_page(settings: StreamSettings) -> StreamSettings:
    """With a port for the workers' metrics, which the page shows."""
    from workers.local.ports import choose_port

    metrics = settings.worker.web_port or choose_port(taken=frozenset({settings.ui.port}))
    page = {"metrics_urls": (f"http://{settings.worker.web_host}:{metrics}/metrics",)}
    return settings.model_copy(
        update={
            "ui": settings.ui.model_copy(update=page),
            "worker": settings.worker.model_copy(update={"web_port": metrics}),
        }
    )


@contextlib.contextmanager
def running_page(settings: StreamSettings, folder: Path, options: Sequence[str]) -> Iterator[None]:
    """``el4ner ui`` over the demo's topics, answering.

    Raises:
        DemoError: it does not.
    """
    from workers.local.ports import is_free

    ready, log = folder / "page.port", folder / "page.log"
    environ = {
        **environment(settings),
        "EL4NER_UI__PORT": str(settings.ui.port if is_free(settings.ui.port) else 0),
        "EL4NER_UI__METRICS_URLS": json.dumps(settings.ui.metrics_urls),
    }
    process = start(["ui", *options], environ, ready=ready, log=log)

    def check() -> None:
        if process.poll() is not None:
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise DemoError(f"the page did not start: {words[-1] if words else 'nothing was said'}; its log is {log}")

    try:
        wait_ready(
            ready, _START_SECONDS, check, f"the page did not start within {_START_SECONDS:g} s; its log is {log}"
        )
        tell(f"the page is at {settings.ui.url_at(int(ready.read_text()))}")
        yield
    finally:
        stop(process, _STOP_SECONDS)


def again(
    documents: Sequence[NewDocument],
    check: Callable[[], None],
    *,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[NewDocument]:
    """The documents as new ones, again and again, one after another. ``check`` raises when the workers have ended."""
    for number in itertools.count(2):
        for document in documents:
            check()
            pause(_PAUSE_SECONDS)
            yield replace(document, id=f"{document.id}.{number}")
