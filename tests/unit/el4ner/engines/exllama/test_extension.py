"""Compiling a library's extension: once, whoever asks, and again after a kill; and which of those there are is taken.

The library here is a toy of one C++ file, but torch's own ``cpp_extension``, ninja and the C++ compiler build it.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from el4ner.engines.exllama import building, compiling
from el4ner.engines.exllama.building import build_extension, extension_environ
from el4ner.engines.exllama.capabilities import Capability, covers, format_architectures, parse_architectures
from el4ner.engines.exllama.extension import (
    Extension,
    build_key,
    extensions_folder,
    find_extension,
    wanted_architectures,
)
from el4ner.engines.exllama.importing import load_extension
from el4ner.engines.exllama.toolchain import BuildTools, CudaCompiler, Missing, find_build_tools
from el4ner.errors import ConfigError, ModelError
from tests.support.paths import ROOT

SOURCE = """
#include <Python.h>
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "toylib_ext", 0, -1, 0};
PyMODINIT_FUNC PyInit_toylib_ext(void) {
  PyObject *module = PyModule_Create(&definition);
  PyModule_AddIntConstant(module, "answer", 42);
  return module;
}
"""
LIBRARY = '''
"""As exllamav2 does it."""
import os
try:
    import toylib_ext as extension
except ModuleNotFoundError:
    from torch.utils.cpp_extension import load
    here = os.path.dirname(os.path.abspath(__file__))
    extension = load(name="toylib_ext", sources=[here + "/one.cpp", here + "/two.cpp"], verbose=False)
answer = extension.answer
'''
COMPILER = """#!/bin/sh
for argument in "$@"; do
  if [ "$argument" = "-c" ]; then
    echo $$ >> "{record}"
    while [ -e "{hang}" ]; do sleep 0.1; done
  fi
done
exec c++ "$@"
"""
BUILD = """
import logging, sys
from pathlib import Path
from types import SimpleNamespace
from el4ner.engines.exllama.capabilities import parse_architectures
from el4ner.engines.exllama.building import build_extension
from tests.unit.el4ner.engines.exllama.test_extension import CXX_ONLY, Lines
print(build_extension("toylib", Path(sys.argv[1]), architectures=parse_architectures("9.0"),
                      tools=CXX_ONLY(), progress=Lines()).path)
"""
H100 = (Capability(9, 0),)


def CXX_ONLY() -> BuildTools:  # noqa: N802
    """This machine's, for sources without CUDA."""
    return dataclasses.replace(find_build_tools(None), missing=())


class Lines:
    """Progress, on standard output."""

    def start(self, label: str, total: int) -> None:
        sys.stdout.write(f"{label} ({total})\n")
        sys.stdout.flush()

    def advance(self, steps: int) -> None:
        sys.stdout.write("advanced\n")
        sys.stdout.flush()

    def done(self) -> None:
        """Nothing to say."""


@dataclasses.dataclass
class Toy:
    """The library, and a compiler that counts its runs and hangs while it is told to."""

    site: Path
    cache: Path
    record: Path
    hang: Path

    @property
    def runs(self) -> int:
        return len(self.compilers())

    def compilers(self) -> list[int]:
        return [int(line) for line in self.record.read_text().split()] if self.record.is_file() else []

    def build(self) -> Path:
        return build_extension("toylib", self.cache, architectures=H100, tools=CXX_ONLY()).path

    def start(self) -> subprocess.Popen[str]:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.site), str(ROOT)])}
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, str(self.cache)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    made = Toy(tmp_path / "site", tmp_path / "cache", tmp_path / "record", tmp_path / "hang")
    package = made.site / "toylib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(LIBRARY, encoding="utf-8")
    (package / "one.cpp").write_text(SOURCE, encoding="utf-8")
    (package / "two.cpp").write_text("int two() { return 2; }\n", encoding="utf-8")
    metadata = made.site / "toylib-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: toylib\nVersion: 1.0\n", encoding="utf-8")
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER.format(record=made.record, hang=made.hang), encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("MAX_JOBS", "1")
    for name in ("TORCH_EXTENSIONS_DIR", "TORCH_CUDA_ARCH_LIST", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(str(made.site))
    yield made
    for name in ("toylib", "toylib_ext"):
        sys.modules.pop(name, None)


def wait_for(condition: Any, what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# --- Building ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_is_compiled_by_torchs_own_machinery_and_imported(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The folder that the user names for extensions is where it goes, for the cards that the user names.
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "mine"))
    path = build_extension("toylib", toy.cache, tools=CXX_ONLY(), progress=Lines()).path
    assert path == tmp_path / "mine" / build_key("toylib", H100).name / "toylib_ext.so"
    assert not toy.cache.exists()
    assert toy.runs == 2
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "toylib: preparing to compile (0)",
        "toylib: compiling (1 at a time) (3)",
        *["advanced"] * 3,
        "toylib: importing it (0)",
    ]
    record = json.loads((path.parent / "build.json").read_text())
    assert (record["architectures"], record["torch"]) == (["9.0"], torch.__version__)
    assert record["checked"] in ("loaded without a GPU", "imported on a GPU")
    # Objects are not kept.
    assert {entry.name for entry in path.parent.iterdir()} == {"toylib_ext.so", "build.json"}
    assert not [entry for entry in path.parents[1].iterdir() if entry.name.endswith((".building", ".staged"))]
    # Another process needs no compiler, nor el4ner.
    environ = os.environ | {"PATH": "", "CXX": "", "PYTHONPATH": f"{path.parent}{os.pathsep}{toy.site}"}
    code = "import toylib; print(toylib.answer)"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"
    # Nor does this one.
    load_extension("toylib", toy.cache)
    assert importlib.import_module("toylib").answer == 42
    assert sys.modules["toylib_ext"].__file__ == str(path)
    # What is loaded from there is known as that, and not as compiled elsewhere.
    known = find_extension("toylib", extensions_folder(toy.cache), H100)
    assert known is not None
    assert (known.origin, known.path) == ("built", path)
    load_extension("toylib", toy.cache)
    assert extension_environ("toylib", toy.cache)["PYTHONPATH"].split(os.pathsep)[0] == str(path.parent)
    assert toy.runs == 2


@pytest.mark.slow
def test_two_processes_compile_once(toy: Toy) -> None:
    toy.hang.touch()
    first = toy.start()
    wait_for(lambda: toy.runs, "the first never compiled")
    second = toy.start()
    assert second.stdout is not None
    assert "another process compiles it" in second.stdout.readline()
    toy.hang.unlink()
    paths = [process.communicate(timeout=120)[0].splitlines()[-1] for process in (first, second)]
    assert paths[0] == paths[1]
    assert Path(paths[0]).is_file()
    assert toy.runs == 2


@pytest.mark.slow
def test_a_build_that_was_killed_blocks_nothing_and_its_compilers_end(toy: Toy) -> None:
    toy.hang.touch()
    process = toy.start()
    wait_for(lambda: toy.runs, "it never compiled")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: not any(map(is_running, toy.compilers())), "the compiler of a killed build runs on")
    toy.hang.unlink()
    (work,) = (toy.cache / "extensions").glob(".*.building")
    # torch before 2.15 left this file, and waited for it to go away.
    (work / "lock").touch()
    before = toy.runs
    assert toy.build().is_file()
    assert toy.runs <= before + 2


@pytest.mark.slow
def test_a_build_that_failed_goes_on_with_the_objects_that_are_done(toy: Toy) -> None:
    package = toy.site / "toylib"
    (package / "two.cpp").write_text("int two() { return 2 }\n", encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        toy.build()
    assert "toylib could not be compiled: " in str(caught.value)
    assert "two.cpp:1:" in str(caught.value)
    assert "error: expected ‘;’" in str(caught.value) or "error: expected ';'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert toy.runs == 2
    # One that compiles and cannot be imported is not published either.
    (package / "two.cpp").write_text("int absent(); int two() { return absent(); }\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"toylib was compiled, and cannot be imported: .*undefined symbol: "):
        toy.build()
    assert toy.runs == 3
    assert find_extension("toylib", extensions_folder(toy.cache), H100) is None
    (package / "two.cpp").write_text("int two() { return 2; }\n", encoding="utf-8")
    assert toy.build().is_file()
    assert toy.runs == 4


@pytest.mark.slow
def test_a_library_that_compiles_nothing_is_said(toy: Toy) -> None:
    (toy.site / "toylib" / "__init__.py").write_text("answer = 42\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"toylib was imported, and compiled no toylib_ext\.so"):
        toy.build()


def test_a_prebuilt_extension_is_taken_and_nothing_is_compiled(toy: Toy) -> None:
    prebuilt = toy.site / "toylib_ext.so"
    include = sysconfig.get_path("include")
    sources = [str(toy.site / "toylib" / name) for name in ("one.cpp", "two.cpp")]
    subprocess.run(["c++", "-shared", "-fPIC", f"-I{include}", *sources, "-o", str(prebuilt)], check=True)
    found = build_extension("toylib", toy.cache, tools=CXX_ONLY())
    assert (found.origin, found.path, found.architectures) == ("prebuilt", prebuilt, None)
    assert extension_environ("toylib", toy.cache) == {}
    load_extension("toylib", toy.cache)
    assert importlib.import_module("toylib").answer == 42
    assert toy.runs == 0


@pytest.mark.parametrize(("free", "cores", "jobs"), [(0, 4, 4), (10**9, 4, 1), (7 * 10**9, 4, 2), (10**12, 4, 4)])
def test_as_many_compilers_run_as_cores_and_memory_allow(
    free: int, cores: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(building.os, "sched_getaffinity", lambda process: set(range(cores)))
    assert building._jobs() == jobs


# --- What is missing -----------------------------------------------------------------------------------------------


def test_what_compiling_lacks_is_one_line(toy: Toy) -> None:
    lacking = dataclasses.replace(
        CXX_ONLY(), missing=(Missing("there is no nvcc", "get one"), Missing("no g++", "get it"))
    )
    with pytest.raises(
        ModelError, match=r"^toylib has to be compiled, and there is no nvcc: get one; no g\+\+: get it$"
    ):
        build_extension("toylib", toy.cache, architectures=H100, tools=lacking)
    assert toy.runs == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_somebody_has_to_say_for_which_cards(toy: Toy) -> None:
    with pytest.raises(ModelError, match=r"for which cards .* models gpu --build --arch 9\.0`"):
        build_extension("toylib", toy.cache)


def test_a_library_that_is_not_installed_is_said(toy: Toy) -> None:
    with pytest.raises(ModelError, match=r"^exllamav4 is not installed: install el4ner\[gpu\]$"):
        build_extension("exllamav4", toy.cache, architectures=H100)


def test_a_card_that_nvcc_does_not_know_is_said_before_it_compiles(toy: Toy, tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\nprintf 'compute_75\\ncompute_90\\n'\n", encoding="utf-8")
    nvcc.chmod(0o755)
    tools = dataclasses.replace(CXX_ONLY(), compiler=CudaCompiler("system", nvcc, "13.2", (tmp_path,)))
    with pytest.raises(ModelError, match=r"nvcc 13\.2 makes no code for compute capability 7\.0: .* 7\.5, 9\.0$"):
        build_extension("toylib", toy.cache, architectures=parse_architectures("7.0;9.0"), tools=tools)


def test_a_folder_that_cannot_be_written_is_said(toy: Toy) -> None:
    toy.cache.write_text("no folder", encoding="utf-8")
    with pytest.raises(ModelError, match=r"cannot be compiled there: .*: set EL4NER_CACHE_DIR or TORCH_EXTENSIONS_DIR"):
        toy.build()


# --- Which one -----------------------------------------------------------------------------------------------------


def publish(folder: Path, name: str, architectures: str) -> Path:
    path = folder / name / "toylib_ext.so"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x7fELF")
    record = {"architectures": architectures.split(";"), "bytes": path.stat().st_size}
    (path.parent / "build.json").write_text(json.dumps(record))
    return path


def test_the_key_has_everything_that_a_build_depends_on(toy: Toy) -> None:
    key = build_key("toylib", parse_architectures("9.0+PTX;8.6;8.6"))
    assert (key.library, key.version, key.torch) == ("toylib", "1.0", torch.__version__)
    assert key.cuda == (torch.version.cuda or "none")
    assert key.architectures == (Capability(8, 6), Capability(9, 0, ptx=True))
    others = [
        dataclasses.replace(key, version="1.1"),
        dataclasses.replace(key, torch="2.9.0"),
        dataclasses.replace(key, cuda="12.8"),
        dataclasses.replace(key, abi="cpython-312-x86_64-linux-gnu"),
        dataclasses.replace(key, architectures=H100),
        dataclasses.replace(key, architectures=parse_architectures("8.6;9.0")),
        dataclasses.replace(key, architectures=parse_architectures("8.6;9.0a+PTX")),
    ]
    assert len({key.name, *(other.name for other in others)}) == len(others) + 1


def test_a_build_of_another_environment_is_not_taken(toy: Toy) -> None:
    key = build_key("toylib", H100)
    folder = extensions_folder(toy.cache)
    for other in (
        dataclasses.replace(key, version="1.1"),
        dataclasses.replace(key, torch="2.9.0+cu128", cuda="12.8"),
        dataclasses.replace(key, abi="cpython-312-x86_64-linux-gnu"),
    ):
        publish(folder, other.name, "9.0")
    assert find_extension("toylib", folder, H100) is None
    path = publish(folder, key.name, "9.0")
    assert find_extension("toylib", folder, H100) == Extension(path, "built", H100)


def test_a_build_for_more_cards_is_taken_and_one_for_others_is_not(toy: Toy) -> None:
    folder = extensions_folder(toy.cache)
    image = parse_architectures("8.0;8.6;9.0")
    path = publish(folder, build_key("toylib", image).name, "8.0;8.6;9.0")
    for card in ("9.0", "8.6", "8.9", "8.0;9.0"):
        found = find_extension("toylib", folder, parse_architectures(card))
        assert found is not None
        assert found.path == path
    for card in ("7.5", "12.0", "9.0;12.0"):
        assert find_extension("toylib", folder, parse_architectures(card)) is None


def test_half_a_build_is_not_taken(toy: Toy) -> None:
    folder = extensions_folder(toy.cache)
    path = publish(folder, build_key("toylib", H100).name, "9.0")
    for record in ("{", "[]", "{}", '{"architectures": ["sm_90"], "bytes": 4}', '{"architectures": ["9.0"]}'):
        (path.parent / "build.json").write_text(record)
        assert find_extension("toylib", folder, H100) is None


@pytest.mark.slow
def test_an_extension_that_was_cut_short_is_not_taken_and_compiled_anew(toy: Toy) -> None:
    path = toy.build()
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert find_extension("toylib", extensions_folder(toy.cache), H100) is None
    assert toy.build() == path
    assert path.stat().st_size == json.loads((path.parent / "build.json").read_text())["bytes"] == len(whole)


@pytest.mark.parametrize(
    ("compiled", "wanted", "served"),
    [
        ("8.0", "8.9", True),
        ("8.9", "8.0", False),
        ("8.0", "9.0", False),
        ("9.0+PTX", "12.0", False),
        ("9.0+PTX", "9.0", True),
        ("9.0", "9.0+PTX", False),
        ("9.0a", "9.0", True),
        ("9.0", "9.0a", False),
        ("10.0a", "10.3", False),
        ("8.0;9.0", "8.6;9.0", True),
    ],
)
def test_which_code_runs_on_which_card(compiled: str, wanted: str, served: bool) -> None:
    assert covers(parse_architectures(compiled), parse_architectures(wanted)) is served


def test_lists_of_cards_are_read_as_torch_reads_them() -> None:
    assert format_architectures(parse_architectures("9.0 8.6;8.0")) == "8.0;8.6;9.0"
    assert format_architectures(parse_architectures("Ampere;Hopper")) == "8.0;8.6+PTX;9.0+PTX"
    assert format_architectures(parse_architectures("12.0a, 10.3+PTX")) == "10.3+PTX;12.0a"
    for text in ("sm_90", "9", "9.0;", "Fermi"):
        with pytest.raises(ConfigError, match=r"--arch: '.*' is no compute capability"):
            parse_architectures(text, "--arch")


def test_the_cards_are_the_variables_or_else_those_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted_architectures({"TORCH_CUDA_ARCH_LIST": "8.6;9.0"}) == (Capability(8, 6), Capability(9, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: [(9, 0), (8, 9), (9, 0)][index])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "sm_90", "sm_100", "compute_120"])
    assert wanted_architectures({}) == (Capability(8, 9), Capability(9, 0))
    assert wanted_architectures({"TORCH_CUDA_ARCH_LIST": "native"}) == (Capability(8, 9), Capability(9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (12, 1))
    assert wanted_architectures({}) == (Capability(10, 0, ptx=True),)


def test_what_compiles_imports_nothing_of_el4ner() -> None:
    """It runs with the path of whoever started it, in which el4ner may not be."""
    assert "import el4ner" not in (text := Path(compiling.__file__).read_text(encoding="utf-8"))
    assert "from el4ner" not in text
