"""`pytest -m gpu` in several processes beside each other, and what came of each test.

A test waits for the host more than for the card. Each class has an engine of its own, and so goes into processes of its
own, and so do the functions of a file.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpu.live import FILE, PART
from gpu.record import Record

__all__ = ["Shard", "outcomes", "run", "shards"]

TEST_SECONDS: Final = 90
END_SECONDS: Final = 3.0
"""Of a phase's time, for ending and writing."""
POLL_SECONDS: Final = 0.2
PARTS: Final = {False: 2, True: 3}
"""Processes that share the tests of a class, of those with and without quantised weights: these come when nothing else
is left to do."""
ENGINES: Final = frozenset({"transformers", "exllamav2", "exllamav3"})
QUANTISED: Final = "exl2"
"""In the name of a fixture: whatever asks for one needs quantised weights."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Tests of one process.

    Attributes:
        name: of the process.
        tests: as pytest names them.
        part: which of them, as :data:`gpu.live.PART` has it.
    """

    name: str
    tests: tuple[str, ...]
    part: str = "0/1"


def shards(root: Path, *, quantised: bool, ready: Iterable[str] = ENGINES) -> list[Shard]:
    """Of ``tests/gpu``: those that need quantised weights, or all others. A class that is about an engine that is not
    ready would be skipped test by test, after seconds: it gets no process."""
    absent = ENGINES - set(ready)
    every: list[Shard] = []
    for file in sorted((root / "tests" / "gpu").glob("test_*.py")):
        path = file.relative_to(root).as_posix()
        functions: list[str] = []
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                fixtures = {name for inner in node.body for name in _arguments(inner)}
                if _quantised(fixtures) == quantised and not _named(node) & absent:
                    every += _parts(node.name, (f"{path}::{node.name}",), PARTS[quantised])
            elif (
                isinstance(node, ast.FunctionDef)
                and node.name.startswith("test_")
                and _quantised(_arguments(node)) == quantised
            ):
                functions.append(f"{path}::{node.name}")
        if functions:
            every += _parts(file.stem, tuple(functions), min(PARTS[quantised], len(functions)))
    return every


def run(
    record: Record,
    root: Path,
    work: Path,
    *,
    quantised: bool,
    ready: Iterable[str],
    seconds: float,
    environment: Mapping[str, str],
    at_once: int,
) -> None:
    """Every test with the mark ``gpu`` that needs quantised weights, or that does not.

    Raises:
        RuntimeError: a test failed, or was not reached, or pytest itself did not work.
    """
    end = time.monotonic() + seconds - END_SECONDS
    folder = work / ("gpu-tests-exl2" if quantised else "gpu-tests")
    folder.mkdir(parents=True, exist_ok=True)
    waiting = shards(root, quantised=quantised, ready=ready)
    every = {test for shard in shards(root, quantised=quantised) for test in shard.tests}
    record.put(left_out=sorted(every - {test for shard in waiting for test in shard.tests}))
    began: dict[str, float] = {}
    took: dict[str, dict[str, Any]] = {}
    running: dict[str, tuple[Shard, subprocess.Popen[bytes]]] = {}
    files = {shard.name: folder / f"{shard.name}.jsonl" for shard in waiting}
    record.doing("pytest")
    try:
        while (waiting or running) and time.monotonic() < end:
            while waiting and len(running) < at_once:
                shard = waiting.pop(0)
                began[shard.name] = time.monotonic()
                running[shard.name] = shard, _start(shard, root, folder, files[shard.name], environment)
            time.sleep(POLL_SECONDS)
            for name, (_, process) in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[name]
                    took[name] = {"seconds": time.monotonic() - began[name], "ended": code}
                    _show(folder / f"{name}.log")
            _put(record, files, running, took)
    finally:
        for name, (_, process) in running.items():
            process.kill()
            process.wait()
            took[name] = {"seconds": time.monotonic() - began[name], "ended": "out of time"}
            _show(folder / f"{name}.log")
    took |= {shard.name: {"seconds": 0.0, "ended": "not begun"} for shard in waiting}
    results = _put(record, files, {}, took)
    record.doing(None)
    # 5: everything was left out on purpose.
    bad = [f"{name}: {facts['ended']}" for name, facts in took.items() if facts["ended"] not in (0, 5)]
    if bad or results["failed"]:
        first = f"; first: {results['failed'][0][0]}: {results['failed'][0][1]}" if results["failed"] else ""
        raise RuntimeError(f"{len(results['failed'])} tests failed; pytest ended with {', '.join(bad)}{first}")


def outcomes(files: Iterable[tuple[Path, object]]) -> dict[str, list[Any]]:
    """What :mod:`gpu.live` wrote: ``passed`` (names), ``failed`` and ``skipped`` ([name, reason]).

    Args:
        files: each with how its process ended; None: it runs. A test in which a process ended has failed.
    """
    results: dict[str, list[Any]] = {"passed": [], "failed": [], "skipped": []}
    for file, ended in files:
        states: dict[str, tuple[str, str]] = {}
        for line in _lines(file):
            before = states.get(line["test"], ("", ""))[0]
            if before not in ("failed", "skipped"):  # cleaning up does not mend a test
                states[line["test"]] = line["state"], line["reason"]
        for test, (state, reason) in states.items():
            name = test.partition("::")[2].replace("::", ".")
            if state == "passed":
                results["passed"].append(name)
            elif state != "running":
                results[state].append([name, reason])
            elif ended is not None:
                results["failed"].append([name, f"the process ended in this test: {ended}"])
    return results


def _parts(name: str, tests: tuple[str, ...], count: int) -> list[Shard]:
    if count == 1:
        return [Shard(name, tests)]
    return [Shard(f"{name}-{number + 1}-of-{count}", tests, f"{number}/{count}") for number in range(count)]


def _start(
    shard: Shard, root: Path, folder: Path, file: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", *shard.tests, "-q", "-p", "no:cacheprovider"]
    command += ["-p", "gpu.live", "--tb=short", "-W", "default", "-o", f"timeout={TEST_SECONDS}"]
    with (folder / f"{shard.name}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=root,
            env={**os.environ, **environment, FILE: str(file), PART: shard.part},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


def _put(
    record: Record, files: Mapping[str, Path], running: Mapping[str, object], took: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Any]]:
    ended = {name: None if name in running else took.get(name, {}).get("ended") for name in files}
    results = outcomes((file, ended[name]) for name, file in files.items())
    record.put(
        **{state: len(tests) for state, tests in results.items()},
        failures=results["failed"],
        reasons=results["skipped"],
        processes=dict(took),
    )
    return results


def _show(log: Path) -> None:
    print(f"--- {log.stem}", flush=True)
    with contextlib.suppress(OSError):
        print(log.read_text(encoding="utf-8", errors="replace"), flush=True)


def _lines(file: Path) -> Iterator[dict[str, str]]:
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a process may end in the middle of a line
                yield json.loads(line)


def _arguments(node: ast.AST) -> Sequence[str]:
    if not isinstance(node, ast.FunctionDef):
        return ()
    return [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]


def _named(node: ast.ClassDef) -> set[str]:
    """Engines that the class itself names."""
    return {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and inner.value in ENGINES}


def _quantised(fixtures: Iterable[str]) -> bool:
    return any(QUANTISED in name for name in fixtures)
