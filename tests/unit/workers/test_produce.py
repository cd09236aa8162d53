"""Counting what a broker has confirmed, with a producer whose broker answers as the test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, NotEnoughReplicasError
from kafka.future import Future
from typer.testing import CliRunner

import workers.produce
from workers.cli.app import app
from workers.config import load_stream_settings
from workers.inputs.documents import NewDocument
from workers.produce import ProduceError, produce_documents

pytestmark = pytest.mark.usefixtures("undisturbed")

Fate = Callable[[int, Future], None]


class Sent(Future):  # type: ignore[misc]  # the client has no types
    def get(self, timeout: float | None = None) -> Any:
        if not self.is_done:
            raise KafkaTimeoutError("nobody answers")
        if self.exception is not None:
            raise self.exception
        return self.value


class Producer:
    """``fate`` says what becomes of the n-th message when it is waited for."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        self._futures: list[Sent] = []

    def send(self, _topic: str, **_message: Any) -> Sent:
        self._futures.append(Sent())
        return self._futures[-1]

    def flush(self, timeout: float) -> None:
        for number, future in enumerate(self._futures):
            if not future.is_done:
                self._fate(number, future)


@pytest.fixture
def fate(monkeypatch: pytest.MonkeyPatch) -> list[Fate]:
    """Put one in."""
    fates: list[Fate] = []

    @contextmanager
    def sending(*_: Any, **__: Any) -> Iterator[Producer]:
        yield Producer(fates[0])

    monkeypatch.setattr(workers.produce, "sending", sending)
    return fates


def some_fail(number: int, future: Future) -> None:
    """The broker loses a replica for a moment: the fourth is refused, and nobody knows of the last."""
    if number == 3:
        future.failure(NotEnoughReplicasError())
    elif number < 6:
        future.success(object())


DOCUMENTS = [NewDocument(str(number), "text") for number in range(7)]


def test_a_broker_that_is_lost(fate: list[Fate]) -> None:
    fate.append(some_fail)
    delivered: list[str] = []
    undelivered: list[str] = []
    with pytest.raises(ProduceError, match="document '3' was not delivered"):
        produce_documents(
            load_stream_settings(environ={}),
            DOCUMENTS,
            delivered=lambda document: delivered.append(document.id),
            undelivered=lambda document: undelivered.append(document.id),
        )
    assert (delivered, undelivered) == (["0", "1", "2", "4", "5"], ["3", "6"])


def test_a_message_that_only_the_broker_finds_too_large_costs_only_itself(fate: list[Fate]) -> None:
    def fates(number: int, future: Future) -> None:
        if number == 1:
            future.failure(MessageSizeTooLargeError())
        else:
            future.success(object())

    fate.append(fates)
    large: list[str] = []

    def too_large(document: NewDocument, reason: str) -> None:
        large.append(f"{document.id} {reason}")

    produced = produce_documents(load_stream_settings(environ={}), DOCUMENTS, too_large=too_large)
    assert produced.documents == 6
    (reason,) = large
    assert reason.startswith("1 is too large a message")


def test_the_command_says_where_to_go_on(runner: CliRunner, tmp_path: Path, fate: list[Fate]) -> None:
    file = tmp_path / "a.csv"
    file.write_text('text\n"one\n1"\n2\n\n3\n4\n5\n6\n7\n')
    fate.append(some_fail)
    result = runner.invoke(app, ["produce", str(file)])
    assert result.exit_code == 1
    # The fourth record begins on line 7: the first has two lines, and one is empty.
    assert "5 documents were sent, 2 are not confirmed; to go on: --from-line 7" in result.stderr
    assert "error: document " in result.stderr
