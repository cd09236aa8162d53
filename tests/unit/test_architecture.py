"""Rules of the whole source: the method knows nothing of the stream, and standard output is for results."""

import ast
import logging
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import el4ner
import workers

STREAM = {"kafka", "aiokafka", "faust", "mode", "redis", "structlog", "workers"}
METHOD_FOLDER = Path(el4ner.__file__).parent
STREAM_FOLDER = Path(workers.__file__).parent
SOURCES = sorted([*METHOD_FOLDER.rglob("*.py"), *STREAM_FOLDER.rglob("*.py")])
LOGGING_LIBRARIES = {"absl", "eliot", "logbook", "loguru", "structlog"}
RENDERER = STREAM_FOLDER / "telemetry" / "logs.py"
"""The one module that may import structlog: it formats what the standard library's loggers were given."""
SETS_A_LEVEL = METHOD_FOLDER / "engines" / "torch" / "transformers_engine.py"
"""Switches the progress bars of transformers off, through that library's own logging module."""
RESERVED_FIELDS = {
    *vars(logging.makeLogRecord({})),
    *("message", "asctime"),  # makeRecord refuses all of these
    *("event", "exception", "level", "logger", "timestamp"),  # what the worker's renderer adds
}


def nodes(paths: Iterable[Path]) -> Iterator[tuple[Path, str, ast.AST]]:
    """Every node of the sources that has a place, and the place."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.stmt | ast.expr | ast.keyword):
                yield path, f"{path}:{node.lineno}", node


def imported_by(node: ast.AST) -> list[str]:
    """Absolute names of modules, and of what is taken from them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def test_el4ner_imports_nothing_of_the_stream() -> None:
    """In the source: also inside functions."""
    for _, place, node in nodes(METHOD_FOLDER.rglob("*.py")):
        for name in imported_by(node):
            assert name.split(".")[0] not in STREAM, f"{place} imports {name}"


def test_whoever_reads_a_topic_reads_what_is_committed() -> None:
    """Also documents may come in transactions. Faust's consumers have a test of their own (test_transport.py)."""
    root = STREAM_FOLDER.parent
    for _, place, node in nodes([*STREAM_FOLDER.rglob("*.py"), *root.glob("bench/*.py"), *root.glob("tests/**/*.py")]):
        if not isinstance(node, ast.Call):
            continue
        # The class is called, or handed to what connects it.
        names = {part.id for part in (node.func, *node.args) if isinstance(part, ast.Name)}
        if names & {"KafkaConsumer", "AIOKafkaConsumer"}:
            said = {keyword.arg for keyword in node.keywords}
            assert "isolation_level" in said, f"{place} reads what was never committed, too"


def test_loading_the_tagger_loads_no_stream() -> None:
    """At run time: also through other packages."""
    code = "import sys, el4ner.tagger; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not STREAM & set(loaded)


def test_the_public_api_is_what_all_says() -> None:
    assert set(el4ner.__all__) <= set(dir(el4ner))
    assert el4ner.__all__ == sorted(el4ner.__all__)


def test_loggers_are_the_standard_librarys() -> None:
    """Another library's logger, unconfigured, may write to standard output, which is for results alone."""
    for path, place, node in nodes(SOURCES):
        for name in imported_by(node):
            package, *rest = name.split(".")
            assert package not in LOGGING_LIBRARIES or path == RENDERER, f"{place} imports {name}"
            assert "logging" not in rest or path == SETS_A_LEVEL, f"{place} imports {name}"
            assert package != "logging" or not rest, (
                f"{place}: import logging as a whole, this test knows it by its name"
            )
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.split(".")[-1].lower() in ("getlogger", "get_logger"):
                assert called == "logging.getLogger", f"{place} takes a logger by {called}"
            assert called != "logging.basicConfig", f"{place}: only workers.telemetry.logs configures"


def test_nothing_but_a_commands_results_is_written_to_standard_output() -> None:
    """Commands write their results by :func:`workers.cli.standard_output.results_file`: once a library may print, that is
    not ``sys.stdout``."""
    for path, place, node in nodes(SOURCES):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "rich.print", "pprint.pprint", "pprint", "pp"), f"{place} prints"
        if path in (STREAM_FOLDER / "cli" / "standard_output.py", STREAM_FOLDER / "cli" / "app.py"):
            continue
        assert not {"typer.echo", "click.echo", "sys.stdout", "rich.print"} & set(imported_by(node)), place
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            assert node.attr not in ("stdout", "__stdout__"), place


def test_every_command_with_global_options_configures_logging() -> None:
    """Before it does anything that logs or prints; these are the functions that typer hands the context to."""
    commands = 0
    for path, place, node in nodes((STREAM_FOLDER / "cli").glob("*.py")):
        if not isinstance(node, ast.FunctionDef) or node.name == "_root" or path.name == "settings.py":
            continue
        if not any(ast.unparse(argument.annotation or node) == "typer.Context" for argument in node.args.args):
            continue
        called = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
        commands += 1
        assert called & {"configure_cli_logging", "configure_logging"}, f"{place} {node.name}"
    assert commands > 15


def test_fields_of_log_records_have_names_that_are_free() -> None:
    """``extra={"name": …}`` raises a KeyError when the line is logged, which may be long after it was written."""
    for _, place, node in nodes(SOURCES):
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
            names = {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
            assert not names & RESERVED_FIELDS, place
