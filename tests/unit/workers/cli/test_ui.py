"""``el4ner ui``: what its options set, and what it says without its extra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workers.cli.app import app

pytestmark = pytest.mark.usefixtures("undisturbed")


def test_options_win_over_the_file(runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(settings: Any, *, ready: Any, **_: Any) -> None:
        seen.update(settings=settings)
        ready(4711)

    monkeypatch.setattr("workers.ui.page_service.run_page", run)
    config, port_file = tmp_path / "el4ner.toml", tmp_path / "port"
    config.write_text('[ui]\nport = 1\nkeep_documents = 7\nhost = "localhost"\n')
    arguments = ["ui", "--config", str(config), "--host", "::1", "--port", "0", "--ready-file", str(port_file)]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    ui = seen["settings"].ui
    assert (ui.host, ui.port, ui.keep_documents) == ("::1", 0, 7)
    assert port_file.read_text() == "4711\n"
    assert "the page is at http://[::1]:4711/" in done.output


def test_another_address_demands_a_token(runner: CliRunner) -> None:
    done = runner.invoke(app, ["ui", "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "reader_token" in done.output


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_its_extra_it_names_it(runner: CliRunner, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == missing or name.startswith(("workers.http", "workers.ui")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)  # type: ignore[arg-type]
    done = runner.invoke(app, ["ui"])
    assert done.exit_code == 2
    assert "pip install 'el4ner[ui]'" in done.output
