"""Every command in README and docs is run by a test, or says that it is not; and each of ours is one that there is.

A comment before a block says which::

    <!-- run by tests/… -->       that test takes the block from the page, and runs it to the letter
    <!-- tried by tests/… -->     those tests run these commands of el4ner's, on data of their own
    <!-- not run: REASON -->
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer

from tests.support.command_blocks import CommandBlock, command_blocks, commands_of, unnamed_blocks
from tests.support.paths import ROOT
from workers.cli.app import app

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
BLOCKS = [block for page in PAGES for block in command_blocks(page)]
MARKER = re.compile(r"(?:(?P<how>run|tried) by (?P<tests>tests/\S+\.py(?:, tests/\S+\.py)*))|not run: \S.*")
HERE = "run by tests/unit/docs/test_commands.py"
COMMAND_LINE = typer.main.get_command(app)
ENDS = {"|", "&", ">", "2>", "<", "&&", ";"}
"""What ends a command's words, in the shell."""
PROGRAMS = {
    "$",
    "el4ner",
    "make",
    "uv",
    "pip",
    "python",
    "python3",
    "curl",
    "psql",
    "docker",
    "kubectl",
    "helm",
    "java",
    "mvn",
}
"""A line of a block that says no language begins with none of them."""
TOOLS = re.compile(r"python -m tools|\bmake schemas\b")
"""What a test tries that is for whoever changes el4ner."""


def ids(block: CommandBlock) -> str:
    return str(block)


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_a_block_is_run_or_says_that_it_is_not(block: CommandBlock) -> None:
    page = block.page.relative_to(ROOT)
    mend = "put <!-- run by tests/… -->, <!-- tried by tests/… --> or <!-- not run: REASON --> on the line before it"
    assert block.marker is not None, f"{page}:{block.line}: nobody says who runs this block: {mend}"
    match = MARKER.fullmatch(block.marker)
    assert match is not None, f"{page}:{block.line}: {block.marker!r}: {mend}"
    for name in (match["tests"] or "").split(", "):
        path = ROOT / name
        assert path.is_file() or not name, f"{page}:{block.line}: there is no {name}"
        if match["how"] == "run" and block.marker != HERE:
            assert block.page.name in path.read_text(encoding="utf-8"), f"{name} does not read {page}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if "tried by" in (block.marker or "")], ids=ids)
def test_who_tries_a_block_names_its_commands(block: CommandBlock) -> None:
    match = MARKER.fullmatch(block.marker or "")
    assert match is not None
    tests = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in match["tests"].split(", "))
    calls = [command_path(words) for _, words in lines_of([block])]
    mend = 'name the test that does, or say "not run: …"'
    assert calls or TOOLS.search(block.body), f"{block}: there is no command of ours in it: {mend}"
    for path in calls:
        # "worker": tests start workers by their role, through tests/integration/stream_harness.py.
        missing = [word for word in path if word != "worker" and f'"{word}"' not in tests]
        assert not missing, f"{block}: no test that is named there runs `el4ner {' '.join(path)}`: {mend}"


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_what_installs_is_a_block_of_its_own(block: CommandBlock) -> None:
    """No test installs from an index: a marker that says so has to be about that alone."""
    if not (block.marker or "").startswith("not run:"):
        assert "pip install" not in block.body, f"{block}: give it a block, and say <!-- not run: … -->"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_block_of_commands_says_that_it_is_one(page: Path) -> None:
    for block in unnamed_blocks(page):
        first = [line.split()[0] for line in block.body.splitlines() if line.strip()]
        commands = sorted({word for word in first if word in PROGRAMS})
        assert not commands, f"{block}: begin it with ```console or ```bash: it has {', '.join(commands)}"


def command_path(words: list[str]) -> list[str]:
    """The names of the command and of what it is in: ["pool", "export"]."""
    path: list[str] = []
    command: Any = COMMAND_LINE
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        path.append(word)
        command = command.commands[word]
    return path


def lines_of(blocks: list[CommandBlock]) -> Iterator[tuple[str, list[str]]]:
    """Each call of ``el4ner`` in them, where it is and its words."""
    for block in blocks:
        text = re.sub(r"<< '(\w+)'.*?^\1$", "", commands_of(block), flags=re.MULTILINE | re.DOTALL)
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for start, word in enumerate(words):
                before = words[start - 1] if start else ""
                if word != "el4ner" or before in ("install", "kubectl", "createdb", "-f", "-d"):
                    continue
                rest = words[start + 1 :]
                end = next((i for i, part in enumerate(rest) if part in ENDS), len(rest))
                yield str(block), [part.rstrip(";)") for part in rest[:end]]


def parse(command: Any, name: str, words: list[str], parent: Any = None) -> None:
    """Read a command line as the program does, and run nothing. Files need not be there.

    Raises:
        Exception: click's, about what is wrong.
    """
    try:
        context = command.make_context(name, list(words), parent=parent)
    except Exception as error:
        kinds = {base.__name__ for base in type(error).__mro__}  # click's, of which newer versions of typer have a copy
        if "BadParameter" in kinds and "MissingParameter" not in kinds:
            return
        raise
    if hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        inner, below, args = command.resolve_command(context, rest)
        assert below is not None
        parse(below, inner, args, context)


CALLS = list(lines_of(BLOCKS))


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(("place", "words"), CALLS, ids=[f"{place} {' '.join(words[:3])}" for place, words in CALLS])
def test_a_command_is_one_that_there_is(place: str, words: list[str]) -> None:
    try:
        parse(COMMAND_LINE, "el4ner", words)
    except Exception as error:
        raise AssertionError(f"{place}: el4ner {shlex.join(words)}: {error}") from error


def test_there_are_many() -> None:
    assert len(BLOCKS) >= 40
    assert len(CALLS) >= 60


def test_a_wrong_command_is_noticed() -> None:
    for words in (["tag", "--no-such", "x"], ["pool", "exprot", "x"], ["pool", "export"]):
        with pytest.raises(Exception, match=r"(?i)no such|missing|unexpected"):
            parse(COMMAND_LINE, "el4ner", words)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.marker == HERE], ids=ids)
def test_a_block_runs_to_the_letter(block: CommandBlock, tmp_path: Path) -> None:
    """Where the files that it names lie."""
    task = {
        "data": {"text": "Norvik shall pay."},
        "annotations": [
            {
                "result": [
                    {
                        "from_name": "label",
                        "to_name": "text",
                        "type": "labels",
                        "value": {"start": 0, "end": 6, "text": "Norvik", "labels": ["party"]},
                    }
                ]
            }
        ],
    }
    (tmp_path / "project-7.json").write_bytes(orjson.dumps([task]))
    (tmp_path / "pools").mkdir()
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", commands_of(block)]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
