"""The processes of the demo, which are commands of ours: started, waited for, stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from el4ner.errors import El4nerError

if TYPE_CHECKING:
    from workers.config import StreamSettings

__all__ = ["DemoError", "environment", "start", "stop", "wait_ready"]


class DemoError(El4nerError):
    """The demo cannot go on; the message says where the log is."""

    code = "demo"


def environment(settings: StreamSettings) -> dict[str, str]:
    """Where the demo's Kafka and topics are."""
    from workers.topics import Topic, topic_name

    return {
        "EL4NER_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "EL4NER_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "EL4NER_KAFKA__DOCUMENTS_TOPIC": topic_name(settings.kafka, Topic.DOCUMENTS),
    }


def start(command: Sequence[str], environ: Mapping[str, str], *, ready: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start ``el4ner COMMAND`` with this in its environment.

    It writes ``ready`` when it is, says what it says to ``log``, and ends when this process does, however that is.
    """
    with log.open("wb") as errors:
        return subprocess.Popen(
            # -P: a folder named like one of ours, where the user happens to be, is not imported.
            [
                *(sys.executable, "-P", "-m", "workers.cli", *command),
                *("--ready-file", str(ready), "--until-stdin-closes"),
            ],
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,  # ends it if this process is killed
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C at the terminal is for us; we stop it in our own order
        )


def wait_ready(ready: Path, seconds: float, check: Callable[[], None], late: str) -> None:
    """Until the file is there. ``check`` raises when the process has ended.

    Raises:
        DemoError: ``late``: it took too long.
    """
    end = time.monotonic() + seconds
    while not ready.exists():
        check()
        if time.monotonic() > end:
            raise DemoError(late)
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    """SIGTERM, time to finish what was begun, SIGKILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also if somebody presses Ctrl-C once more. Does nothing to a process that has ended.
            process.kill()
            process.wait(timeout=10)
    if process.stdin is not None:
        process.stdin.close()
