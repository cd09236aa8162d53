"""The command line as a whole: help, exit codes, errors as lines."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from el4ner.errors import ConfigError, DocumentError, EngineError, ModelError, PoolError
from workers.cli.app import ErrorsAsLines, app

pytestmark = pytest.mark.usefixtures("undisturbed")

COMMANDS = [
    ["tag"],
    ["eval"],
    ["calibrate"],
    ["demo"],
    ["worker"],
    ["produce"],
    ["tail"],
    ["models", "quantize"],
    ["topics", "create"],
    ["topics", "describe"],
    ["topics", "acls"],
    ["dlq", "list"],
    ["dlq", "show"],
    ["dlq", "replay"],
    ["schemas", "asyncapi"],
    ["pool", "check"],
    ["pool", "index"],
    ["models", "list"],
    ["models", "prepare"],
    ["local", "up"],
    ["local", "status"],
    ["local", "down"],
]


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=lambda words: " ".join(words) or "el4ner")
def test_every_command_explains_itself(runner: CliRunner, command: list[str]) -> None:
    for flag in ("--help", "-h"):
        result = runner.invoke(app, [*command, flag])
        assert result.exit_code == 0
        assert "Usage" in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    assert len(lines) > 4, "an explanation, not only the usage"


def test_version_is_the_packages(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("el4ner ")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from workers.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*(name for name in ('torch', 'transformers', 'faust', 'kafka', 'redis') if name in sys.modules), "
        "file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (PoolError("x"), 2),
        (ModelError("x"), 2),
        (EngineError("x"), 1),
        (DocumentError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_what_is_raised_decides_the_exit_code(runner: CliRunner, error: BaseException, code: int) -> None:
    one = typer.Typer(cls=ErrorsAsLines)

    @one.command("fail")
    def fail() -> None:
        raise error

    @one.command("other")
    def other() -> None:
        pass

    result = runner.invoke(one, ["fail"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == ("" if code == 130 else "error: x\n")


def test_a_bug_is_not_hidden(runner: CliRunner) -> None:
    one = typer.Typer(cls=ErrorsAsLines)

    @one.command("fail")
    def fail() -> None:
        raise ZeroDivisionError

    @one.command("other")
    def other() -> None:
        pass

    assert isinstance(runner.invoke(one, ["fail"]).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tag", "x", "--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--config", "nowhere.toml", "tag", "x"], "nowhere.toml: cannot be read"),
        (["tag", "x", "--ensemble", "nosuch"], "there is no preset 'nosuch'; there are: default"),
        (["tag", "x", "--ensemble", "instant", "--pool", "nosuch"], "no such pool"),
        (["worker", "all", "--ensemble", "nosuch"], "there is no preset 'nosuch'"),
        (["models", "prepare", "packaged:nosuch"], "there is no packaged model 'nosuch'"),
        (["eval", "nowhere"], "nowhere: is no folder"),
    ],
)
def test_users_mistakes_are_a_line_and_exit_code_2(runner: CliRunner, arguments: list[str], said: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert said in result.stderr


@pytest.mark.parametrize(
    "arguments", [["nosuch"], ["tag", "--nosuch"], ["worker", "dance"], ["produce", "nowhere.txt"], ["tag", "no.txt"]]
)
def test_wrong_usage_is_exit_code_2(runner: CliRunner, arguments: list[str]) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_wrong_setting_is_named_with_its_source(runner: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "el4ner.toml"
    file.write_text("[retrieval]\nk = 0\n")
    result = runner.invoke(app, ["tag", "x", "--config", str(file)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: retrieval.k (in {file}): ")


def test_a_reader_that_leaves_early_is_not_talked_about(tmp_path: Path) -> None:
    file = tmp_path / "many.txt"
    file.write_text("A line about Ada Lovelace.\n" * 5_000)
    tag = [sys.executable, "-m", "workers.cli", "tag", str(file), "--lines", "--ensemble", "instant"]
    with subprocess.Popen(tag, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


def test_a_file_that_is_standard_output_is_written_there(tmp_path: Path) -> None:
    import json

    for split in ("train", "test"):
        (tmp_path / f"{split}.conll").write_text("Ada B-person\nslept O\n")
    command = [sys.executable, "-m", "workers.cli", "eval", str(tmp_path), "--ensemble", "instant", "--json"]
    environ = {**os.environ, "EL4NER_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([*command, "/dev/stdout"], capture_output=True, timeout=60, check=True, env=environ)
    assert "f1" in json.loads(done.stdout.splitlines()[-1])


def test_ctrl_c_while_waiting_for_input_is_quiet() -> None:
    tag = [sys.executable, "-m", "workers.cli", "tag", "--lines", "--ensemble", "instant"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A shell has its background jobs ignore Ctrl-C, and children inherit that: these tests may run in one.
    with subprocess.Popen(tag, **pipes, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"Ada Lovelace\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b""


def test_local_status_of_nothing(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(app, ["local", "status", "--root", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert result.stdout.count("stopped") == 2
    assert runner.invoke(app, ["local", "down", "--root", str(tmp_path / "none")]).exit_code == 0


def test_eval_shows_figures_and_writes_them(runner: CliRunner, tmp_path: Path) -> None:
    import json

    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        (folder / f"{split}.conll").write_text("Ada\tB-person\nslept\tO\n\nRome\tB-place\nburned\tO\n")
    out = tmp_path / "figures.json"
    arguments = ["eval", str(folder), "--limit", "1", "--seed", "3", "--mode", "paper", "--ensemble", "instant"]
    result = runner.invoke(app, [*arguments, "--json", str(out)])
    assert result.exit_code == 0, result.stderr
    assert "person" in result.stdout
    assert "tokens a sentence" in result.stdout
    figures = json.loads(out.read_text())
    promised = "precision recall f1 span_f1 sentences seconds_per_sentence tokens_per_sentence per_type settings"
    assert {*promised.split(), "fingerprints"} <= figures.keys()
    assert (figures["sentences"], figures["settings"]["method"]["mode"]) == (1, "paper")
    only_json = runner.invoke(app, [*arguments, "--json", "-"])
    assert json.loads(only_json.stdout)["f1"] == figures["f1"]
    assert runner.invoke(app, [*arguments, "--json", str(tmp_path / "no" / "out.json")]).exit_code == 2


def test_models_are_listed_for_programs_too(runner: CliRunner) -> None:
    import json

    assert "packaged:gemma3-270m" in runner.invoke(app, ["models", "list"]).stdout
    lines = [
        json.loads(line) for line in runner.invoke(app, ["models", "list", "--format", "json"]).stdout.splitlines()
    ]
    assert {"packaged:gemma3-270m", "packaged:smollm2-135m-instruct"} <= {line["source"] for line in lines}
    assert all({"licence", "installed", "prepared", "parameters"} <= line.keys() for line in lines)


def test_a_command_that_is_called_in_another_program_does_not_end_it_later(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only ``main`` owns its process, and bounds how long that takes to end."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    assert runner.invoke(app, ["worker", "aggregate"]).exit_code == 1
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}
