"""The demo's page: where it is told the metrics are, and the documents that come again."""

from __future__ import annotations

from itertools import islice

import pytest

from workers.cli.demo_page import again, settings_with_page
from workers.config import load_stream_settings
from workers.inputs.documents import NewDocument


def test_the_page_is_told_where_the_workers_metrics_are() -> None:
    settings = settings_with_page(load_stream_settings(environ={}))
    port = settings.worker.web_port
    assert port is not None
    assert settings.ui.metrics_urls == (f"http://127.0.0.1:{port}/metrics",)


def test_a_configured_port_of_the_metrics_stays() -> None:
    configured = load_stream_settings(environ={"EL4NER_WORKER__WEB_PORT": "4711"})
    assert settings_with_page(configured).ui.metrics_urls == ("http://127.0.0.1:4711/metrics",)


def test_documents_come_again_as_new_ones_one_after_another() -> None:
    pauses: list[float] = []
    documents = [NewDocument("a", "One.", "news"), NewDocument("b", "Two.")]
    coming = list(islice(again(documents, lambda: None, pause=pauses.append), 5))
    assert [document.id for document in coming] == ["a.2", "b.2", "a.3", "b.3", "a.4"]
    assert coming[2].text == "One."
    assert coming[2].pool == "news"
    assert len(pauses) == 5


def test_they_end_with_the_workers() -> None:
    def ended() -> None:
        raise RuntimeError("the workers have ended")

    with pytest.raises(RuntimeError, match="have ended"):
        next(again([NewDocument("a", "One.")], ended, pause=lambda _: None))
