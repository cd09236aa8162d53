"""Rules of the whole source: who may import whom, one name for one idea, and standard output is for results."""

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

import pytest

import el4ner
import workers

STREAM = {"kafka", "aiokafka", "faust", "mode", "redis", "structlog", "workers"}
METHOD_FOLDER = Path(el4ner.__file__).parent
STREAM_FOLDER = Path(workers.__file__).parent
TOOLS_FOLDER = STREAM_FOLDER.parent / "tools"
SOURCES = sorted([*METHOD_FOLDER.rglob("*.py"), *STREAM_FOLDER.rglob("*.py")])
LOGGING_LIBRARIES = {"absl", "eliot", "logbook", "loguru", "structlog"}
RENDERER = STREAM_FOLDER / "telemetry" / "logs.py"
"""The one module that may import structlog: it formats what the standard library's loggers were given."""
SETS_A_LEVEL = METHOD_FOLDER / "engines" / "torch" / "model_loading.py"
"""Switches the progress bars of transformers off, through that library's own logging module."""
ORDER = {
    # A part may import from the floors before its own, and from nobody beside it.
    "el4ner": (
        ("code_fingerprint", "errors", "nearest", "types"),
        ("extras", "text", "toml_files"),
        ("config_errors",),
        ("config",),
        ("canonical",),
        ("participation", "pools", "redaction"),
        ("models",),
        ("engines",),
        ("prompts", "quantizing", "retrieval"),
        ("evidence", "repeats"),
        ("proposing",),
        ("stages",),
        ("assemble", "serialize"),
        ("known_lines",),
        ("front_door",),
        ("decided_by",),
        ("pipeline",),
        ("members_pipeline",),
        ("pool_retrievers",),
        ("loader",),
        ("sliced_reading",),
        ("tagger",),
        ("__init__",),
        ("evaluation",),
    ),
    "workers": (
        ("value_path",),
        ("__init__", "backoff", "config", "exit_status", "local", "printable", "roles"),
        ("shutdown",),
        ("http", "security"),
        ("registry", "topics"),
        ("messages",),
        ("telemetry",),
        ("kafka",),
        ("shared_cache",),
        ("stages",),
        ("join",),
        ("dead_letters", "ensemble", "entities", "inputs", "one_hop", "redaction", "teaching"),
        ("pipeline_owner", "probes"),
        ("produce", "run", "serve", "tail"),
        ("ui",),
        ("cli",),
        ("__main__",),
    ),
}
DRIVERS = ("exllama", "served", "torch")
"""Folders of el4ner/engines that run models, each for itself."""
KNOWS_DRIVERS = ("model_facts", "placing", "registry")
"""Modules beside these folders that may import from them: what fits on a GPU, where it goes, and what is loaded."""
SHARED_FILE_NAMES = {
    "config.py": "settings: the method's, and the stream's, which have them inside",
    "evaluate.py": "the evaluation, and its command",
    "pool.py": "a pool, and its commands",
    "produce.py": "sending documents, and its command",
    "progress.py": "what a long preparation reports, and how the command line shows it",
    "tail.py": "reading the results, and its command",
    "topics.py": "the topics, and their commands",
}
"""Files of one name in two folders, and the one idea that both are about."""
SHARED_CLASS_NAMES = {"SpanFilter": "what may be written, for each of the two ExLlama libraries"}
"""As above, of classes; a leading underscore makes no other name."""
RESERVED_FIELDS = {
    *vars(logging.makeLogRecord({})),
    *("message", "asctime"),  # makeRecord refuses all of these
    *("event", "exception", "level", "logger", "timestamp"),  # what the worker's renderer adds
}


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a source. The rules go through the same sources, which are read once."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def dotted(node: ast.expr) -> str:
    """``a.b.c`` as it is written; what is no name and no attribute of one is an ellipsis. (ast.unparse is slow.)"""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "…"


def nodes(paths: Iterable[Path]) -> Iterator[tuple[Path, str, ast.AST]]:
    """Every node of the sources that has a place, and the place."""
    for path in paths:
        for node in nodes_of(path):
            if isinstance(node, ast.stmt | ast.expr | ast.keyword):
                yield path, f"{path}:{node.lineno}", node


def imported_by(node: ast.AST) -> list[str]:
    """Absolute names of modules, and of what is taken from them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def modules() -> dict[str, Path]:
    """Every module of el4ner and workers by its name; a package is its ``__init__``."""
    found = {}
    for path in SOURCES:
        parts = path.relative_to(METHOD_FOLDER.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def arrows() -> dict[str, set[str]]:
    """Of each module those that it imports, also inside functions and for types alone."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        imported: set[str] = set()
        for node in nodes_of(path):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
                taken = [f"{node.module}.{alias.name}" for alias in node.names]
                imported.update(full if full in known else node.module for full in taken)
        found[name] = (imported & known.keys()) - {name}
    return found


def part_of(module: str) -> tuple[str, str]:
    """The tree, and the folder or file in it."""
    top, *rest = module.split(".")
    return top, rest[0] if rest else "__init__"


def circle(graph: Mapping[str, Iterable[str]]) -> str | None:
    """One circle of the graph, in words."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " imports ".join(reversed(error.args[1]))
    return None


@pytest.mark.parametrize("tree", ORDER)
def test_nothing_imports_upward(tree: str) -> None:
    floor = {part: number for number, parts in enumerate(ORDER[tree]) for part in parts}
    assert set(floor) == {part for top, part in map(part_of, modules()) if top == tree}, "give each part its floor"
    wrong = []
    for module, imported in arrows().items():
        for other in imported:
            (top, importer), (other_top, part) = part_of(module), part_of(other)
            if top == other_top == tree and importer != part and floor[part] >= floor[importer]:
                wrong.append(f"{module} imports {other}")
    assert not wrong, "\n".join(["upward or beside:", *sorted(wrong)])


def test_there_is_no_circle_between_modules() -> None:
    assert circle(arrows()) is None


def test_there_is_no_circle_between_packages() -> None:
    """At every depth, between the folders and files that stand side by side."""
    packages: dict[str, set[str]] = defaultdict(set)
    for module, imported in arrows().items():
        for other in imported:
            mine, its = module.split("."), other.split(".")
            shared = next((i for i, (a, b) in enumerate(zip(mine, its, strict=False)) if a != b), None)
            if shared is not None:
                packages[".".join(mine[: shared + 1])].add(".".join(its[: shared + 1]))
    assert circle(packages) is None


def test_engines_do_not_know_each_other() -> None:
    """What they share stands beside their folders."""
    for module, imported in arrows().items():
        for other in imported:
            importer, driver = (
                ".".join(name.split(".")[:3]).removeprefix("el4ner.engines.") for name in (module, other)
            )
            if driver in DRIVERS and module.startswith("el4ner.engines."):
                assert importer in (driver, *KNOWS_DRIVERS), f"{module} imports {other}"


def check_shared(places: Mapping[str, list[str]], allowed: Mapping[str, str]) -> None:
    """Names with more than one place are those that are allowed to have it."""
    shared = {name: sorted(paths) for name, paths in places.items() if len(paths) > 1}
    assert not {name: paths for name, paths in sorted(shared.items()) if name not in allowed}
    assert not allowed.keys() - shared.keys(), "these are not shared any more: take them from the list"


def test_a_file_name_is_used_for_one_idea() -> None:
    folders = defaultdict(list)
    for path in [*SOURCES, *TOOLS_FOLDER.rglob("*.py")]:
        if not path.name.startswith("__"):
            folders[path.name].append(str(path.parent.relative_to(METHOD_FOLDER.parent)))
    check_shared(folders, SHARED_FILE_NAMES)


def test_a_class_name_is_used_for_one_idea() -> None:
    files = defaultdict(list)
    for path in [*SOURCES, *TOOLS_FOLDER.rglob("*.py")]:
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                files[node.name.lstrip("_")].append(str(path.relative_to(METHOD_FOLDER.parent)))
    check_shared(files, SHARED_CLASS_NAMES)


def test_the_wheel_has_no_tests_and_no_tools() -> None:
    """It has the two packages and the schemas, and these import nothing that is not in it."""
    project = tomllib.loads((METHOD_FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["el4ner", "workers"], "force-include": {"schemas": "workers/_schemas"}}
    assert set(project["project"]["scripts"].values()) == {"workers.cli:main"}
    for _, place, node in nodes(SOURCES):
        for name in imported_by(node):
            assert name.split(".")[0] not in ("bench", "tests", "tools"), f"{place} imports {name}"


def test_el4ner_imports_nothing_of_the_stream() -> None:
    """In the source: also inside functions."""
    for _, place, node in nodes(METHOD_FOLDER.rglob("*.py")):
        for name in imported_by(node):
            assert name.split(".")[0] not in STREAM, f"{place} imports {name}"


def test_whoever_reads_a_topic_reads_what_is_committed() -> None:
    """Also documents may come in transactions. Faust's consumers have a test of their own (test_transport.py)."""
    root = STREAM_FOLDER.parent
    sources = [*STREAM_FOLDER.rglob("*.py"), *root.glob("bench/*.py"), *root.glob("tests/**/*.py")]
    for _, place, node in nodes(path for path in sources if "KafkaConsumer" in path.read_text(encoding="utf-8")):
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
            called = dotted(node.func)
            if called.split(".")[-1].lower() in ("getlogger", "get_logger"):
                assert called == "logging.getLogger", f"{place} takes a logger by {called}"
            assert called != "logging.basicConfig", f"{place}: only workers.telemetry.logs configures"


def test_nothing_but_a_commands_results_is_written_to_standard_output() -> None:
    """Commands write their results by :func:`workers.cli.standard_output.results_file`: once a library may print, that
    is not ``sys.stdout``."""
    for path, place, node in nodes(SOURCES):
        if isinstance(node, ast.Call):
            called = dotted(node.func)
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
        named = isinstance(node, ast.Assign) and dotted(node.targets[0]) == "extra"
        keyword = isinstance(node, ast.keyword) and node.arg == "extra"
        if (named or keyword) and isinstance(node.value, ast.Dict):
            names = {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
            assert not names & RESERVED_FIELDS, place
