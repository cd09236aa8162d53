"""The page of ``el4ner demo --ui``: a process beside the workers, and documents that go on coming."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from el4ner.errors import El4nerError
from workers.cli.output import tell

if TYPE_CHECKING:
    from workers.config import StreamSettings
    from workers.inputs.documents import NewDocument

__all__ = ["DemoError", "again", "kafka_environ", "running_page", "settings_with_page"]

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0
_PAUSE_SECONDS: Final = 1.0
"""Between documents that come again: somebody is reading."""


class DemoError(El4nerError):
    """The demo cannot go on; the message says where the log is."""

    code = "demo"


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


def kafka_environ(settings: StreamSettings) -> dict[str, str]:
    """The environment of a process of the demo, which finds its Kafka and its topics there."""
    return {
        **os.environ,
        "EL4NER_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "EL4NER_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
    }


@contextlib.contextmanager
def running_page(settings: StreamSettings, folder: Path, options: Sequence[str]) -> Iterator[None]:
    """``el4ner ui`` over the demo's topics, answering.

    Raises:
        DemoError: it does not.
    """
    from workers.local.ports import is_free

    ready, log = folder / "page.port", folder / "page.log"
    environ = {
        **kafka_environ(settings),
        "EL4NER_UI__PORT": str(settings.ui.port if is_free(settings.ui.port) else 0),
        "EL4NER_UI__METRICS_URLS": json.dumps(settings.ui.metrics_urls),
    }
    config = [*itertools.dropwhile(lambda option: option != "--config", options)][:2]  # it loads no ensemble
    with log.open("wb") as errors:
        process = subprocess.Popen(
            # -P: a folder named like one of ours, where the user happens to be, is not imported.
            [
                *(sys.executable, "-P", "-m", "workers.cli", "ui", *config),
                *("--ready-file", str(ready), "--until-stdin-closes"),
            ],
            env=environ,
            stdin=subprocess.PIPE,  # ends the page if this process is killed
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C at the terminal is for us
        )
    try:
        end = time.monotonic() + _START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > end:
                words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise DemoError(
                    f"the page did not start: {words[-1] if words else 'nothing was said'}; its log is {log}"
                )
            time.sleep(0.05)
        host = f"[{settings.ui.host}]" if ":" in settings.ui.host else settings.ui.host
        tell(f"the page is at http://{host}:{ready.read_text().strip()}/")
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait(10)
            if process.stdin is not None:
                process.stdin.close()


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
