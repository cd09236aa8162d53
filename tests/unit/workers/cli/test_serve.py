"""``el4ner serve``: what its options set, and what it says without its extra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workers.cli.app import app

pytestmark = pytest.mark.usefixtures("undisturbed")
SERVICE = "workers.serve.service"


def test_options_win_over_the_file(runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(settings: Any, *, ready: Any, **_: Any) -> None:
        seen.update(settings=settings)
        ready(4711)

    monkeypatch.setattr(f"{SERVICE}.run_service", run)
    config, port_file = tmp_path / "el4ner.toml", tmp_path / "port"
    config.write_text('[serve]\nport = 1\nmax_texts = 7\nhost = "localhost"\n[ensemble]\npreset = "instant"\n')
    arguments = ["serve", "--config", str(config), "--host", "127.0.0.2", "--port", "0", "--ready-file", str(port_file)]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    serve = seen["settings"].serve
    assert (serve.host, serve.port, serve.max_texts) == ("127.0.0.2", 0, 7)
    assert port_file.read_text() == "4711\n"


def test_another_address_demands_a_token(runner: CliRunner) -> None:
    done = runner.invoke(app, ["serve", "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "EL4NER_SERVE__TOKEN" in done.output


def test_a_ready_file_that_cannot_be_written_is_refused_at_once(runner: CliRunner, tmp_path: Path) -> None:
    done = runner.invoke(app, ["serve", "--ensemble", "instant", "--ready-file", str(tmp_path / "no" / "port")])
    assert done.exit_code == 2
    assert "--ready-file" in done.output


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_its_extra_it_names_it(runner: CliRunner, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == missing or name.startswith(("workers.http", "workers.serve")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)  # type: ignore[arg-type]
    done = runner.invoke(app, ["serve", "--ensemble", "instant"])
    assert done.exit_code == 2
    assert "pip install 'el4ner[serve]'" in done.output
