"""Which nvcc is taken, on fabricated trees: a toolkit, PyPI's wheels, both, neither, and ones that do not fit torch."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from el4ner.engines.exllama.toolchain import (
    BuildTools,
    CudaCompiler,
    find_build_tools,
    find_cuda_compiler,
    gpu_architectures,
    link_toolkit,
)

HEADERS = ("cuda_runtime.h", "cublas_v2.h", "cusparse.h", "cusolverDn.h", "curand_kernel.h")
DISTRIBUTIONS = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def nvcc(path: Path, version: str) -> Path:
    return program(
        path,
        f'case "$1" in --list-gpu-arch) printf "compute_75\\ncompute_90\\ncompute_103\\ncompute_120\\n";; '
        f'*) echo "Cuda compilation tools, release {version}, V{version}.86";; esac',
    )


def touch(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@dataclass
class Machine:
    """Folders that stand for a machine's own."""

    root: Path

    @property
    def site(self) -> Path:
        return self.root / "site-packages"

    @property
    def system(self) -> Path:
        return self.root / "usr-local"

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": str(self.root / "bin")}

    def toolkit(self, version: str, name: str = "cuda", headers: tuple[str, ...] = HEADERS) -> Path:
        home = self.system / name
        nvcc(home / "bin" / "nvcc", version)
        for header in headers:
            touch(home / "include" / header)
        touch(home / "include" / "crt" / "host_config.h", "#if __GNUC__ > 15\n")
        return home

    def wheels(self, version: str, site: Path | None = None, **other: str) -> Path:
        """``other``: versions of single distributions, by their names with underscores."""
        site = site or self.site
        folder = site / "nvidia" / f"cu{version.split('.')[0]}"
        nvcc(folder / "bin" / "nvcc", version)
        for part in ("bin/ptxas", "nvvm/bin/cicc", "nvvm/libdevice/libdevice.10.bc", "include/cccl/cub/cub.cuh"):
            touch(folder / part)
        for header in HEADERS:
            touch(folder / "include" / header)
        touch(folder / "include" / "crt" / "host_config.h", "#if __GNUC__ > 15\n")
        touch(folder / "lib" / f"libcudart.so.{version.split('.')[0]}")
        for name in DISTRIBUTIONS:
            of_this = other.get(name.replace("-", "_"), f"{version}.86")
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {of_this}\n"
            touch(site / f"{name.replace('-', '_')}-{of_this}.dist-info" / "METADATA", metadata)
        return folder

    def compiler(self, torch_cuda: str = "13.2", **environ: str) -> tuple[CudaCompiler | None, tuple[str, ...]]:
        return find_cuda_compiler(
            torch_cuda, environ={**self.environ, **environ}, search=[str(self.site)], system=self.system
        )

    def tools(self, torch_cuda: str | None = "13.2", **environ: str) -> BuildTools:
        return find_build_tools(
            torch_cuda, environ={**self.environ, **environ}, search=[str(self.site)], system=self.system
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for name, text in (("c++", "echo 12.2.0"), ("gcc", "echo 12.2.0"), ("ninja", "echo 1.13.0")):
        program(made.root / "bin" / name, text)
    return made


def test_a_toolkit_of_torchs_version_is_taken(machine: Machine) -> None:
    home = machine.toolkit("13.2")
    machine.wheels("13.2")
    assert machine.compiler()[0] == CudaCompiler("system", home / "bin" / "nvcc", "13.2", (home,))


def test_a_toolkit_beside_an_older_one_is_found_by_its_version(machine: Machine) -> None:
    machine.toolkit("12.8")
    home = machine.toolkit("13.2", "cuda-13.2")
    compiler, passed_over = machine.compiler()
    assert compiler is not None
    assert compiler.folders == (home,)
    assert passed_over == (f"{machine.system / 'cuda'} is CUDA 12.8, and torch is of 13.2",)


def test_wheels_of_torchs_version_are_better_than_a_toolkit_of_another_minor_one(machine: Machine) -> None:
    home = machine.toolkit("13.0")
    folder = machine.wheels("13.2")
    compiler, _ = machine.compiler()
    assert compiler == CudaCompiler("wheels", folder / "bin" / "nvcc", "13.2", (folder,))
    # … unless somebody says that it is the one to use.
    named, _ = machine.compiler(CUDA_HOME=str(home))
    assert named == CudaCompiler("system", home / "bin" / "nvcc", "13.0", (home,))


def test_a_toolkit_of_the_same_major_version_does_where_there_is_nothing_else(machine: Machine) -> None:
    home = machine.toolkit("13.0")
    compiler, _ = machine.compiler()
    assert compiler is not None
    assert (compiler.version, compiler.folders) == ("13.0", (home,))


def test_a_toolkit_of_another_major_version_is_passed_over(machine: Machine) -> None:
    home = machine.toolkit("12.8")
    for environ in ({}, {"CUDA_HOME": str(home)}, {"PATH": f"{machine.root / 'bin'}:{home / 'bin'}"}):
        compiler, passed_over = machine.compiler(**environ)
        assert compiler is None
        assert passed_over == (f"{home} is CUDA 12.8, and torch is of 13.2",)
    missing = machine.tools().missing
    assert [item.what for item in missing] == [
        f"there is no nvcc of torch's CUDA version, 13.2 ({home} is CUDA 12.8, and torch is of 13.2)"
    ]
    assert missing[0].mend.startswith("pip install 'cuda-toolkit[curand,nvcc]==13.2.*' nvidia-cuda-cccl, or install")


def test_a_variable_that_names_no_toolkit_is_said(machine: Machine) -> None:
    machine.wheels("13.2")
    compiler, passed_over = machine.compiler(CUDA_HOME="/opt/cuda-13")
    assert compiler is not None
    assert compiler.origin == "wheels"
    assert passed_over == ("CUDA_HOME is /opt/cuda-13, which has no bin/nvcc",)


def test_a_toolkit_without_the_headers_of_its_libraries_is_passed_over(machine: Machine) -> None:
    home = machine.toolkit("13.2", headers=HEADERS[:-1])
    compiler, passed_over = machine.compiler()
    assert compiler is None
    assert passed_over == (f"{home} is CUDA 13.2, without curand_kernel.h",)


@pytest.mark.parametrize(
    ("torch_cuda", "version", "reason"),
    [
        ("13.0", "13.2", "are not of torch's CUDA 13.0: nvidia-cuda-nvcc 13.2.86, nvidia-nvvm 13.2.86, "),
        ("12.8", "13.2", "are for cu13, and torch is of CUDA 12.8"),
    ],
)
def test_wheels_of_another_version_than_torchs_are_refused(
    machine: Machine, torch_cuda: str, version: str, reason: str
) -> None:
    machine.wheels(version)
    compiler, passed_over = machine.compiler(torch_cuda)
    assert compiler is None
    assert reason in passed_over[0]
    assert reason in str(machine.tools(torch_cuda).missing[0])


def test_wheels_that_do_not_belong_together_are_refused(machine: Machine) -> None:
    machine.wheels("13.2", nvidia_nvvm="13.5.37", nvidia_cuda_runtime="13.0.96")
    assert machine.compiler() == (
        None,
        ("the compiler's wheels are not of torch's CUDA 13.2: nvidia-nvvm 13.5.37, nvidia-cuda-runtime 13.0.96",),
    )


def test_a_wheel_that_is_missing_is_named(machine: Machine) -> None:
    folder = machine.wheels("13.2")
    (folder / "nvvm" / "bin" / "cicc").unlink()
    (folder / "include" / "curand_kernel.h").unlink()
    assert machine.compiler() == (None, ("the compiler's wheels lack nvidia-curand, nvidia-nvvm",))


def test_where_there_is_nothing_the_line_says_what_to_install(machine: Machine) -> None:
    assert machine.compiler() == (None, ())
    (missing,) = machine.tools().missing
    assert str(missing) == (
        "there is no nvcc of torch's CUDA version, 13.2: pip install 'cuda-toolkit[curand,nvcc]==13.2.*' "
        "nvidia-cuda-cccl, or install the CUDA toolkit 13.2, with CUDA_HOME set to its folder"
    )
    # Before CUDA 13 the wheels had no nvcc.
    (missing,) = machine.tools("12.8").missing
    assert missing.mend == "install the CUDA toolkit 12.8, with CUDA_HOME set to its folder"


def test_everything_that_is_missing_has_a_line(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme: str(tmp_path / "no-headers"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "alone" / "python"))
    tools = find_build_tools(None, environ={"PATH": str(tmp_path / "empty")}, search=[], system=tmp_path / "none")
    assert [str(item).split(":")[0] for item in tools.missing] == [
        "torch is built without CUDA",
        "there is no C++ compiler",
        "there is no ninja, which runs the compilers",
        f"Python's headers are not there ({tmp_path / 'no-headers' / 'Python.h'})",
    ]
    assert all(item.mend and "\n" not in str(item) for item in tools.missing)


def test_a_compiler_that_nvcc_does_not_take_is_said_before_it_is_tried(machine: Machine) -> None:
    machine.wheels("13.2")
    assert machine.tools().missing == ()
    program(machine.root / "bin" / "c++", "echo 16.1.0")
    (missing,) = machine.tools().missing
    assert missing.what == f"CUDA 13.2 takes no g++ newer than 15, and {machine.root / 'bin' / 'c++'} is 16.1.0"
    assert missing.mend == "install g++-15, and set CXX=g++-15 and CC=gcc-15"
    program(machine.root / "bin" / "g++-15", "echo 15.2.0")
    program(machine.root / "bin" / "gcc-15", "echo 15.2.0")
    assert machine.tools(CXX="g++-15", CC="gcc-15").missing == ()


def test_ninja_beside_python_is_found_although_it_is_not_on_the_path(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.root / "bin" / "ninja").unlink()
    ninja = program(tmp_path / "environment" / "bin" / "ninja", "echo 1.13.0")
    monkeypatch.setattr("sys.executable", str(ninja.parent / "python"))
    assert machine.tools().ninja == ninja


def test_the_wheels_become_a_cuda_home_of_links_and_are_not_written_to(machine: Machine, tmp_path: Path) -> None:
    folder = machine.wheels("13.2")
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    compiler, _ = machine.compiler()
    assert compiler is not None
    home = link_toolkit(compiler, tmp_path / "cache")
    assert home.parent == tmp_path / "cache"
    assert (home / "lib64" / "libcudart.so").resolve() == folder / "lib" / "libcudart.so.13"
    assert (home / "include" / "cccl" / "cub" / "cub.cuh").is_file()
    assert (home / "nvvm" / "bin" / "cicc").is_file()
    assert "release 13.2" in subprocess.run([home / "bin" / "nvcc"], capture_output=True, text=True).stdout
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before
    assert link_toolkit(compiler, tmp_path / "cache") == home
    assert not [path for path in (tmp_path / "cache").iterdir() if "partial" in path.name]


def test_wheels_in_two_places_become_one_cuda_home(machine: Machine, tmp_path: Path) -> None:
    """As with `pip install --user` beside a system's packages."""
    first = machine.wheels("13.2")
    second = tmp_path / "user" / "nvidia" / "cu13"
    touch(second / "include" / "curand_kernel.h")
    (first / "include" / "curand_kernel.h").unlink()
    search = [str(machine.site), str(tmp_path / "user")]
    compiler, _ = find_cuda_compiler("13.2", environ=machine.environ, search=search, system=machine.system)
    assert compiler is not None
    home = link_toolkit(compiler, tmp_path / "cache")
    assert (home / "include" / "curand_kernel.h").resolve() == second / "include" / "curand_kernel.h"
    assert (home / "include" / "cuda_runtime.h").resolve() == first / "include" / "cuda_runtime.h"


def test_other_wheels_get_another_cuda_home(machine: Machine, tmp_path: Path) -> None:
    machine.wheels("13.2")
    machine.wheels("13.2", tmp_path / "other")
    homes = set()
    for site in (machine.site, tmp_path / "other"):
        compiler, _ = find_cuda_compiler("13.2", environ=machine.environ, search=[str(site)], system=machine.system)
        assert compiler is not None
        homes.add(link_toolkit(compiler, tmp_path / "cache"))
    assert len(homes) == 2


def test_a_toolkit_is_its_own_cuda_home(machine: Machine, tmp_path: Path) -> None:
    home = machine.toolkit("13.2")
    compiler, _ = machine.compiler()
    assert compiler is not None
    assert link_toolkit(compiler, tmp_path / "cache") == home
    assert not (tmp_path / "cache").exists()


def test_nvcc_says_which_cards_it_compiles_for(machine: Machine) -> None:
    machine.toolkit("13.2")
    compiler, _ = machine.compiler()
    assert compiler is not None
    assert gpu_architectures(compiler) == {(7, 5), (9, 0), (10, 3), (12, 0)}


def test_this_machine_has_what_compiles_cpp() -> None:
    tools = find_build_tools(None, environ=os.environ)
    assert [item.what for item in tools.missing] == ["torch is built without CUDA"]
    assert tools.cxx_version is not None
