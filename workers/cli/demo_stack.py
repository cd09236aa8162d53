"""Everything that the demo runs on: services, topics, and one worker process; all of it gone at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workers.cli.begun_early import begin
from workers.cli.demo_page import running_page, settings_with_page
from workers.cli.demo_process import DemoError, environment, start, stop, wait_ready
from workers.cli.output import complain, tell

if TYPE_CHECKING:
    from workers.config import StreamSettings
    from workers.local.services import Services

__all__ = ["Stack", "running_stack"]

_FOLDER: Final = Path(".el4ner") / "demo"
_START_SECONDS: Final = 600.0
_LEAVE_SECONDS: Final = 5.0
"""After an error or Ctrl-C nobody waits for what the workers have begun."""
_DOCUMENTS_AT_A_TIME: Final = 8
"""Small batches: somebody is watching. A worker of its own takes more at a time, and is a little faster."""


class Stack:
    """What runs, for whoever streams through it. ``settings`` lead to the demo's own topics; logs are in ``folder``."""

    def __init__(self, settings: StreamSettings, folder: Path, worker: subprocess.Popen[bytes]) -> None:
        self.settings = settings
        self.kept = False
        self.folder = folder
        self._worker = worker

    @property
    def log_hint(self) -> str:
        """Where to look when something is wrong."""
        return f"the workers' log is {_log(self.folder)}"

    def keep(self) -> None:
        """Leave the folder with the logs where it is."""
        self.kept = True

    def check_worker(self) -> None:
        """Raises ``DemoError`` if the workers have ended."""
        code = self._worker.poll()
        if code is not None:
            raise DemoError(f"the workers ended with exit code {code}: {_last_words(self.folder)}\n{self.log_hint}")

    def stop_worker(self) -> None:
        """SIGTERM, time to finish what was begun, SIGKILL."""
        stop(self._worker, self.settings.worker.shutdown_seconds + 10)

    def dead_letters(self) -> int:
        """How many there are."""
        from workers.dead_letters.listing import read_letters

        return sum(1 for _ in read_letters(self.settings))

    def answer_counters(self) -> tuple[int, int]:
        """How many of the sentences and templates that were looked up in Redis were there, and how many were looked up:
        as the workers log when they stop."""
        counted = [record for record in _log_records(self.folder) if record.get("event") == "shared answers"]
        hits = sum(int(record["hits"]) for record in counted)
        return hits, hits + sum(int(record["misses"]) for record in counted)


@contextlib.contextmanager
def running_stack(
    settings: StreamSettings, role: str, options: Sequence[str], *, keep: bool, page_options: Sequence[str] | None
) -> Iterator[Stack]:
    """Services, topics and workers, ready; stopped and removed at the end, also by Ctrl-C, SIGTERM or an error.

    ``role`` and ``options`` go to ``el4ner worker``. ``page_options``: of ``el4ner ui``, which runs too; None: it does
    not. The folder stays after an error, for its logs, or where ``keep`` is set.
    """
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = _FOLDER / name
    stack: Stack | None = None
    with _signals_raise_once():
        try:
            _make(folder)
            with _importing(folder, role, options) as process, _services(folder) as services:
                demo_settings = _own_settings(settings, services, f"el4ner-demo-{name}-", folder)
                if page_options is not None:
                    demo_settings = settings_with_page(demo_settings)
                stack = Stack(demo_settings, folder, process)
                with _topics(demo_settings, services), _working(process, stack), contextlib.ExitStack() as page:
                    if page_options is not None:
                        page.enter_context(running_page(demo_settings, folder, page_options))
                    yield stack
        except Exception:
            # Before the workers have anything to say, the error says all there is to say.
            keep = keep or _has_log(folder)
            raise
        finally:
            if keep or (stack is not None and stack.kept):
                tell(f"logs and data were kept in {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise DemoError(f"{folder}: cannot be made here: {error.strerror}; run it in a folder of yours") from error


@contextlib.contextmanager
def _services(folder: Path) -> Iterator[Services]:
    """The services that the environment names; of those that it does not, our own."""
    from workers.local import services

    if not any(os.environ.get(name, "").strip() for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL")):
        with services.temporary_services(folder, environ=os.environ, progress=tell) as temporary:
            yield temporary
        return
    try:
        yield services.up(folder, environ=os.environ, progress=tell)
    finally:
        services.down(folder)


def _own_settings(settings: StreamSettings, services: Services, prefix: str, folder: Path) -> StreamSettings:
    """The user's, but for the demo's own servers, topics and folder."""
    from workers.topics import Topic

    kafka, redis = settings.kafka, settings.redis
    if services.kafka_provider != "environment" and (kafka.uses_tls or kafka.uses_sasl):
        raise DemoError(
            "the demo's own Kafka knows neither TLS nor passwords: leave the security settings of [kafka] out, or name "
            "your broker in KAFKA_BOOTSTRAP_SERVERS"
        )
    if services.redis_provider != "environment":
        if redis.uses_tls or redis.password is not None or redis.password_file is not None:
            raise DemoError(
                "the demo's own Valkey knows neither TLS nor passwords: leave the security settings of [redis] out, or "
                "name your server in REDIS_URL"
            )
        redis = redis.model_copy(update={"url": services.redis_url})
    return settings.model_copy(
        update={
            "kafka": kafka.model_copy(
                update={
                    "bootstrap_servers": services.kafka_bootstrap,
                    "topic_prefix": prefix,
                    # Not the user's own topic, which is neither to be read nor to be deleted.
                    "documents_topic": f"{prefix}{Topic.DOCUMENTS.value}",
                }
            ),
            "redis": redis,
            "worker": settings.worker.model_copy(update={"data_dir": folder / "workers"}),
        }
    )


@contextlib.contextmanager
def _topics(settings: StreamSettings, services: Services) -> Iterator[None]:
    """The demo's own topics. On a broker that stays they are deleted at the end."""
    from workers.kafka import topic_admin

    try:
        topic_admin.create(settings)
        topic_admin.check(settings)
        yield
    finally:
        if services.kafka_provider == "environment":
            _delete_topics(settings)


def _delete_topics(settings: StreamSettings) -> None:
    from workers.kafka.topic_admin import administering
    from workers.topics import TopicError, plan, wanted_topics

    planned = plan(settings.kafka, wanted_topics(settings))
    names = [each.name for each in planned if each.name.startswith(settings.kafka.topic_prefix)]
    try:
        with administering(settings.kafka, client_id="el4ner-demo") as admin:
            admin.delete_topics(names)
    except TopicError as error:
        complain(f"the demo's topics {names[0]} … could not be deleted: {error}", severity="warning")


@contextlib.contextmanager
def _importing(folder: Path, role: str, options: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """All stages in one process, which imports what they need and waits (:func:`_working`)."""
    command = ["worker", role, *options, "--environment-from-stdin"]
    process = start(command, {}, ready=_ready(folder), log=_log(folder))
    try:
        yield process
    finally:
        stop(process, _LEAVE_SECONDS)


@contextlib.contextmanager
def _working(process: subprocess.Popen[bytes], stack: Stack) -> Iterator[None]:
    """The process works on what the stack's settings lead to."""
    settings = stack.settings
    environ = {
        **environment(settings),
        # With a password it comes from where the user has it: here it is no longer part of the address.
        **({"EL4NER_REDIS__URL": settings.redis.url} if settings.redis.password is None else {}),
        **({} if settings.worker.web_port is None else {"EL4NER_WORKER__WEB_PORT": str(settings.worker.web_port)}),
        "EL4NER_RETRIEVAL__K": str(settings.retrieval.k),
        "EL4NER_WORKER__DATA_DIR": str(settings.worker.data_dir),
        "EL4NER_WORKER__LOG_FORMAT": "json",
        "EL4NER_WORKER__BATCH_DOCUMENTS": str(_DOCUMENTS_AT_A_TIME),
    }
    tell(f"starting the workers (log: {_log(stack.folder)})")
    began = time.monotonic()
    patience = _LEAVE_SECONDS
    try:
        begin(process, environ)
        late = f"the workers were not ready within {_START_SECONDS:g} s: {stack.log_hint}"
        wait_ready(_ready(stack.folder), _START_SECONDS, stack.check_worker, late)
        tell(f"the workers are ready after {time.monotonic() - began:.1f} s")
        yield
        patience = settings.worker.shutdown_seconds
    finally:
        stop(process, patience)


def _ready(folder: Path) -> Path:
    return folder / "ready"


def _log(folder: Path) -> Path:
    return folder / "workers.log"


def _has_log(folder: Path) -> bool:
    return _log(folder).exists() and _log(folder).stat().st_size > 0


def _log_records(folder: Path) -> Iterator[dict[str, Any]]:
    with _log(folder).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record


def _last_words(folder: Path) -> str:
    """What the workers said last that was an error; else their last line."""
    event = ""
    for record in _log_records(folder):
        if record.get("level") in ("error", "critical"):
            event = str(record.get("event", ""))
    lines = _log(folder).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return event or (lines[-1].removeprefix("error: ") if lines else "nothing")


@contextlib.contextmanager
def _signals_raise_once() -> Iterator[None]:
    """Inside, SIGTERM ends the program as Ctrl-C does: through everything that cleans up.

    Only the first signal counts, since a second one would cut the cleaning up short; ``timeout`` always sends two.
    """

    def leave(number: int, _frame: Any) -> None:
        for signal_number in before:
            signal.signal(signal_number, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(143)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
