"""Pictures of the page for README and docs, captured from a real stream: Kafka, workers with the packaged models, the
page, and Debian's Chromium. Takes ten minutes, since what rises is compared with five minutes before."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from kafka import KafkaProducer
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from el4ner.errors import ConfigError
from workers.config import StreamSettings, load_stream_settings
from workers.inputs.documents import NewDocument, format_of, read_documents
from workers.kafka import topic_admin
from workers.local.ports import choose_port
from workers.local.services import temporary_services
from workers.produce import produce_documents
from workers.tail import tagged_until_now
from workers.topics import Topic, topic_name

__all__ = ["capture"]

_ROUNDS: Final = 2
_ROUND_SECONDS: Final = 345.0
"""What is mentioned more than before is known when there is a time before the five minutes that Trends shows."""
_START_SECONDS: Final = 600.0
_WIDE: Final = {"width": 1240, "height": 780}
_PHONE: Final = {"width": 390, "height": 780}
_BROKEN: Final = (b'{"title": "nothing to read"}', b"this is not JSON \x00\x1b[31m", b'{"text": "Z\xfcrich"}')
_COLOURS: Final = 256
"""Of a picture's palette: flat surfaces and text need no more, and a picture takes a third."""


def capture(folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Write the pictures into ``folder``; returns their paths.

    Raises:
        ConfigError: there is no Chromium.
    """
    chromium = os.environ.get("EL4NER_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise ConfigError("no Chromium: apt-get install chromium, or EL4NER_CHROMIUM=PATH")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="el4ner-pictures-") as name:
        root = Path(name)
        services = temporary_services(root / "services", progress=say)
        with services as running, contextlib.ExitStack() as stack:
            config = _configuration(root, running.kafka_bootstrap, running.redis_url)
            settings = load_stream_settings(config, environ={})
            topic_admin.create(settings)
            say("starting the workers and the page")
            # Of the two workers the first one is asked for its metrics, and the other one listens elsewhere.
            for command in (["worker", "pipeline"], ["worker", "entities", "--health-port", "0"], ["ui"]):
                stack.enter_context(_process(config, command, root / f"{'-'.join(command[:2])}.ready"))
            _stream(settings, say)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                paths = list(_pictures(browser, f"http://127.0.0.1:{settings.ui.port}", folder))
                browser.close()
    return paths


def _configuration(root: Path, kafka: str, redis: str) -> Path:
    page = choose_port()
    metrics = choose_port(taken=frozenset({page}))
    config = root / "el4ner.toml"
    config.write_text(
        f"""[kafka]
bootstrap_servers = "{kafka}"
[redis]
url = "{redis}"
[worker]
web_port = {metrics}
data_dir = "{root}/data"
batch_documents = 8
[entities]
enabled = true
[ui]
port = {page}
metrics_urls = ["http://127.0.0.1:{metrics}/metrics"]
""",
        encoding="utf-8",
    )
    return config


@contextlib.contextmanager
def _process(config: Path, command: Sequence[str], ready: Path) -> Iterator[None]:
    """A command of ours, once it is ready."""
    arguments = [sys.executable, "-m", "workers.cli", *command, "--config", str(config), "--ready-file", str(ready)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(ready.exists, process)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _wait(until: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while not until():
        if process.poll() is not None or time.monotonic() > end:
            raise ConfigError(f"{' '.join(map(str, process.args))} did not start")  # type: ignore[arg-type]
        time.sleep(0.1)


def _stream(settings: StreamSettings, say: Callable[[str], None]) -> None:
    """The demo's documents in several rounds, in later ones some names much more often, and a few broken messages."""
    sample = Path(str(resources.files("el4ner") / "samples" / "demo.jsonl"))
    documents = list(read_documents(sample, format=format_of(sample)))
    producer = KafkaProducer(bootstrap_servers=settings.kafka.servers)
    for value in _BROKEN:
        producer.send(topic_name(settings.kafka, Topic.DOCUMENTS), key=b"feed-7", value=value)
    producer.close()
    sent = 0
    for number in range(_ROUNDS):
        say(f"streaming, round {number + 1} of {_ROUNDS}")
        began = time.monotonic()
        news = [each for each in documents if each.id.startswith("news")]
        more = number * (2 * news[:12] + 8 * news[:6])
        chosen = [*more, *documents]
        produce_documents(
            settings,
            [
                NewDocument(f"{each.id}.{number}{place:02}", each.text, each.pool, 0, each.metadata)
                for place, each in enumerate(chosen)
            ],
            source="demo",
        )
        sent += len(chosen)
        if number + 1 < _ROUNDS:
            time.sleep(max(0.0, _ROUND_SECONDS - (time.monotonic() - began)))
    # Elsewhere the machine may be busy: pictures of half a stream show little.
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and sum(1 for _ in tagged_until_now(settings)) < sent:
        time.sleep(1.0)


def _pictures(browser: Browser, url: str, folder: Path) -> Iterator[Path]:
    def look(name: str, view: str, size: dict[str, int], scheme: Any, prepare: Callable[[Page], None]) -> Path:
        context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1)  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"{url}/#{view}")
        page.locator("#broker", has_text="Following").wait_for()
        prepare(page)
        path = folder / f"ui-{name}.webp"
        _write(page.screenshot(animations="disabled"), path)
        context.close()
        return path

    yield look("live", "live", _WIDE, "light", _explained)
    yield look("lesson", "live", _WIDE, "light", _corrected)
    yield look("review", "review", _WIDE, "light", _queued)
    yield look("trends", "trends", _WIDE, "light", _listed)
    yield look("entities", "entities", _WIDE, "light", _gathered)
    yield look("entity", "entities", _WIDE, "dark", _known)
    yield look("health", "health", _WIDE, "dark", _measured)
    yield look("phone", "live", _PHONE, "dark", lambda page: page.locator("article .entity").first.wait_for())


def _explained(page: Page) -> None:
    """With what is known of the second entity that is a person, or of the first entity."""
    page.locator("article .entity").first.wait_for()
    people = page.locator("article .entity.hue-0")
    # The element itself: a locator would look anew when the documents have changed places.
    entity = (people.nth(1) if people.count() > 1 else page.locator("article .entity").first).element_handle()
    entity.evaluate("each => document.querySelector('.documents').prepend(each.closest('article'))")
    page.evaluate("scrollTo(0, 0)")
    entity.hover()
    page.locator("#details dl").wait_for()


def _corrected(page: Page) -> None:
    page.locator("article .entity.hue-1").first.click()
    page.locator(".lesson-tools select").wait_for()


def _queued(page: Page) -> None:
    page.locator(".review-buttons").first.wait_for()


def _listed(page: Page) -> None:
    page.locator(".trends button").first.wait_for()


def _gathered(page: Page) -> None:
    page.locator(".entity-link").first.wait_for()


def _known(page: Page) -> None:
    """All that is known of the first person."""
    page.get_by_label("Type").select_option("person")
    page.wait_for_function("document.querySelectorAll('.entities .vote:not(.hue-0)').length === 0")
    page.locator(".entity-link").first.click()
    page.locator(".chart canvas").wait_for()
    page.locator("article .entity").first.wait_for()


def _measured(page: Page) -> None:
    page.locator(".chart canvas").first.wait_for()
    page.locator("tbody td").first.wait_for()


def _write(picture: bytes, path: Path) -> None:
    """Lossless, of few colours."""
    image = Image.open(BytesIO(picture)).convert("RGB")
    few = image.quantize(_COLOURS, dither=Image.Dither.NONE).convert("RGB")
    few.save(path, lossless=True, quality=100, method=4)
