"""What compiles CUDA sources here: nvcc of a toolkit or of PyPI's wheels, a C++ compiler, ninja, Python's headers."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from el4ner.models.locking import exclusive

__all__ = [
    "BuildTools",
    "CudaCompiler",
    "Missing",
    "find_build_tools",
    "find_cuda_compiler",
    "gpu_architectures",
    "link_toolkit",
]

_PACKAGES: Final[Mapping[str, str]] = {
    "bin/nvcc": "nvidia-cuda-nvcc",
    "bin/ptxas": "nvidia-cuda-nvcc",
    "nvvm/bin/cicc": "nvidia-nvvm",
    "include/crt/host_config.h": "nvidia-cuda-crt",
    "include/cuda_runtime.h": "nvidia-cuda-runtime",
    "include/cccl/cub/cub.cuh": "nvidia-cuda-cccl",
    "include/curand_kernel.h": "nvidia-curand",
    "include/cublas_v2.h": "nvidia-cublas",
    "include/cusparse.h": "nvidia-cusparse",
    "include/cusolverDn.h": "nvidia-cusolver",
}
"""What a compilation opens first of each wheel, and whose it is."""
_SAME_VERSION: Final = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime")
"""Wheels whose version begins with CUDA's, and which do not work with each other otherwise."""
_TOOLKIT_HEADERS: Final = ("cuda_runtime.h", "cublas_v2.h", "cusparse.h", "cusolverDn.h", "curand_kernel.h")
_VARIABLES: Final = ("CUDA_HOME", "CUDA_PATH")
_SYSTEM_FOLDER: Final = Path("/usr/local")
_FIRST_WITH_NVCC: Final = 13
"""The first major version of CUDA whose wheels have nvcc itself."""
_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class CudaCompiler:
    """An nvcc that fits torch.

    ``version`` is ``MAJOR.MINOR``. ``folders``: of a toolkit its one folder; of wheels every ``nvidia/cuN`` that has
    parts of it, which :func:`link_toolkit` makes into one.
    """

    origin: Literal["system", "wheels"]
    nvcc: Path
    version: str
    folders: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that is needed and is not there: ``what`` it is, and how to ``mend`` it."""

    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}: {self.mend}"


@dataclass(frozen=True, slots=True)
class BuildTools:
    """What there is to compile with. Nothing in ``missing``: it can begin.

    ``cxx``: what compiles C++, and its version. ``python_headers``: the folder of Python.h.
    """

    compiler: CudaCompiler | None
    cxx: Path | None
    cxx_version: str | None
    ninja: Path | None
    python_headers: Path | None
    missing: tuple[Missing, ...]
    passed_over: tuple[str, ...]
    """CUDA compilers that do not fit, each with the reason."""


def find_build_tools(
    torch_cuda: str | None,
    *,
    environ: Mapping[str, str] = os.environ,
    search: Sequence[str] = sys.path,
    system: Path = _SYSTEM_FOLDER,
) -> BuildTools:
    """Look for everything that compiling an extension of a torch of this CUDA version needs.

    Args:
        torch_cuda: ``torch.version.cuda``; None for a torch without CUDA.
        environ: CUDA_HOME, CUDA_PATH, CXX and PATH are read.
        search: folders with installed packages.
        system: where ``cuda`` and ``cuda-13.2`` are.
    """
    missing = []
    compiler: CudaCompiler | None = None
    passed_over: tuple[str, ...] = ()
    if torch_cuda is None:
        missing.append(Missing("torch is built without CUDA", "install the torch of PyPI for Linux"))
    else:
        compiler, passed_over = find_cuda_compiler(torch_cuda, environ=environ, search=search, system=system)
        if compiler is None:
            missing.append(_no_compiler(torch_cuda, passed_over))
    cxx = _which(environ.get("CXX") or "c++", environ) or _which("g++", environ)
    cxx_version = None if cxx is None else _output([cxx, "-dumpfullversion", "-dumpversion"])
    if cxx is None:
        missing.append(
            Missing("there is no C++ compiler", "install g++ (apt install g++), or set CXX to the path of one")
        )
    elif compiler is not None and _which(environ.get("CC") or "gcc", environ) is None:
        missing.append(Missing("there is no gcc, which nvcc calls", "install gcc, or set CC to the path of one"))
    elif compiler is not None and cxx_version is not None:
        newest = _newest_gcc(compiler)
        if newest is not None and "clang" not in cxx.name and int(cxx_version.split(".")[0]) > newest:
            missing.append(
                Missing(
                    f"CUDA {compiler.version} takes no g++ newer than {newest}, and {cxx} is {cxx_version}",
                    f"install g++-{newest}, and set CXX=g++-{newest} and CC=gcc-{newest}",
                )
            )
    ninja = _which("ninja", environ) or _executable(Path(sys.executable).parent / "ninja")
    if ninja is None:
        missing.append(Missing("there is no ninja, which runs the compilers", "pip install ninja"))
    include = Path(sysconfig.get_path("include", scheme="posix_prefix"))
    headers = include if (include / "Python.h").is_file() else None
    if headers is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        missing.append(
            Missing(f"Python's headers are not there ({include / 'Python.h'})", f"apt install python{version}-dev")
        )
    return BuildTools(compiler, cxx, cxx_version, ninja, headers, tuple(missing), passed_over)


def find_cuda_compiler(
    torch_cuda: str,
    *,
    environ: Mapping[str, str] = os.environ,
    search: Sequence[str] = sys.path,
    system: Path = _SYSTEM_FOLDER,
) -> tuple[CudaCompiler | None, tuple[str, ...]]:
    """The nvcc to use with a torch of this CUDA version, and those that were passed over, with the reason.

    torch takes any nvcc of its own major version. First what CUDA_HOME or CUDA_PATH name; then a toolkit of exactly
    torch's version; then the wheels, which have to be of exactly that version; then another toolkit of the same major.
    """
    major = torch_cuda.split(".")[0]
    passed_over: list[str] = []
    fitting: list[tuple[int, CudaCompiler]] = []
    for name in _VARIABLES:
        named = environ.get(name)
        if named and _executable(Path(named) / "bin" / "nvcc") is None:
            passed_over.append(f"{name} is {named}, which has no bin/nvcc")
    for home, by_variable in _toolkits(torch_cuda, environ, system):
        version = _nvcc_version(home / "bin" / "nvcc")
        lacks = [header for header in _TOOLKIT_HEADERS if not _has_header(home, header)]
        if version is None:
            passed_over.append(f"{home / 'bin' / 'nvcc'} does not say its version")
        elif version.split(".")[0] != major:
            passed_over.append(f"{home} is CUDA {version}, and torch is of {torch_cuda}")
        elif lacks:
            passed_over.append(f"{home} is CUDA {version}, without {', '.join(lacks)}")
        else:
            rank = 0 if by_variable else 1 if version == torch_cuda else 3
            fitting.append((rank, CudaCompiler("system", home / "bin" / "nvcc", version, (home,))))
    wheels, reason = _wheels(torch_cuda, search)
    if wheels is not None:
        fitting.append((2, wheels))
    elif reason is not None:
        passed_over.append(reason)
    best = min(fitting, key=lambda ranked: ranked[0], default=None)
    return (None if best is None else best[1]), tuple(passed_over)


def gpu_architectures(compiler: CudaCompiler) -> frozenset[tuple[int, int]]:
    """The compute capabilities that it makes code for; empty where it does not say."""
    listed = re.findall(r"compute_(\d+)(\d)\b", _output([compiler.nvcc, "--list-gpu-arch"]) or "")
    return frozenset((int(major), int(minor)) for major, minor in listed)


def link_toolkit(compiler: CudaCompiler, folder: Path) -> Path:
    """A CUDA_HOME for torch: the toolkit itself, or for wheels a tree of links in ``folder``, made once.

    Wheels lack what a linker looks for (``lib64``, ``libcudart.so`` without a number), and their own folder may be
    read-only, so that nothing is written there.
    """
    if compiler.origin == "system":
        return compiler.folders[0]
    links = dict(_links(compiler.folders))
    digest = hashlib.sha256("\n".join(f"{name} {to}" for name, to in sorted(links.items())).encode()).hexdigest()[:12]
    home = folder / f"cuda-{compiler.version}-{digest}"
    if home.is_dir():
        return home
    with exclusive(folder / f"{home.name}.lock"):
        if home.is_dir():
            return home
        partial = folder / f".{home.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for name, target in links.items():
            link = partial / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
        (partial / "lib64").symlink_to("lib")
        partial.rename(home)
    return home


def _links(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Names in a CUDA_HOME, and what each leads to. nvcc finds the rest from the path that it is called by."""
    seen: set[str] = set()
    for folder in folders:
        for part in ("bin", "include", "lib", "nvvm/bin", "nvvm/libdevice"):
            for entry in sorted(folder.glob(f"{part}/*")):
                names = [entry.name]
                if entry.name.startswith("libcudart.so."):
                    names.append("libcudart.so")
                for name in names:
                    if f"{part}/{name}" not in seen:
                        seen.add(f"{part}/{name}")
                        yield f"{part}/{name}", entry


def _toolkits(torch_cuda: str, environ: Mapping[str, str], system: Path) -> Iterator[tuple[Path, bool]]:
    """Folders with ``bin/nvcc``, each once, and whether a variable names it."""
    on_path = _which("nvcc", environ)
    candidates = [(environ.get(name), True) for name in _VARIABLES]
    candidates += [
        (None if on_path is None else str(on_path.parent.parent), False),
        (str(system / f"cuda-{torch_cuda}"), False),
        (str(system / "cuda"), False),
    ]
    seen = set()
    for text, by_variable in candidates:
        if text and (home := Path(text)) not in seen and _executable(home / "bin" / "nvcc"):
            seen.add(home)
            yield home, by_variable


def _wheels(torch_cuda: str, search: Sequence[str]) -> tuple[CudaCompiler | None, str | None]:
    """The compiler in PyPI's wheels, or why what there is of it cannot be used; neither where there is nothing."""
    major = torch_cuda.split(".")[0]
    folders = tuple(
        dict.fromkeys(
            folder for entry in search if (folder := Path(entry or ".").absolute() / "nvidia" / f"cu{major}").is_dir()
        )
    )
    others = sorted(
        {
            nvcc.parents[1].name
            for entry in search
            for nvcc in (Path(entry or ".").absolute() / "nvidia").glob("cu*/bin/nvcc")
            if nvcc.parents[1].name != f"cu{major}"
        }
    )
    nvcc = next((path for folder in folders if (path := _executable(folder / "bin" / "nvcc"))), None)
    if nvcc is None:
        return None, f"the compiler's wheels are for {others[0]}, and torch is of CUDA {torch_cuda}" if others else None
    lacks = sorted(
        {package for name, package in _PACKAGES.items() if not any((folder / name).exists() for folder in folders)}
    )
    if not any(folder.glob("lib/libcudart.so.*") for folder in folders):
        lacks = sorted({*lacks, "nvidia-cuda-runtime"})
    if lacks:
        return None, f"the compiler's wheels lack {', '.join(lacks)}"
    version = _nvcc_version(nvcc)
    if version is None:
        return None, f"{nvcc} does not say its version"
    versions = {"nvidia-cuda-nvcc": version, **_distribution_versions(search)}
    differing = [
        f"{name} {versions[name]}"
        for name in _SAME_VERSION
        if name in versions and ".".join(versions[name].split(".")[:2]) != torch_cuda
    ]
    if version != torch_cuda or differing:
        which = ", ".join(differing) or f"nvcc {version}"
        return None, f"the compiler's wheels are not of torch's CUDA {torch_cuda}: {which}"
    return CudaCompiler("wheels", nvcc, version, folders), None


def _distribution_versions(search: Sequence[str]) -> dict[str, str]:
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=list(search)):
        name = distribution.metadata["Name"] or ""
        if name.lower().replace("_", "-") in _SAME_VERSION:
            versions.setdefault(name.lower().replace("_", "-"), distribution.version)
    return versions


def _no_compiler(torch_cuda: str, passed_over: Sequence[str]) -> Missing:
    what = f"there is no nvcc of torch's CUDA version, {torch_cuda}"
    if passed_over:
        what += f" ({'; '.join(passed_over)})"
    toolkit = f"the CUDA toolkit {torch_cuda}, with CUDA_HOME set to its folder"
    if int(torch_cuda.split(".")[0]) < _FIRST_WITH_NVCC:
        return Missing(what, f"install {toolkit}")
    return Missing(
        what, f"pip install 'cuda-toolkit[curand,nvcc]=={torch_cuda}.*' nvidia-cuda-cccl, or install {toolkit}"
    )


def _newest_gcc(compiler: CudaCompiler) -> int | None:
    """The newest major version of gcc that this nvcc takes, as its header says."""
    for folder in compiler.folders:
        headers = folder / "include" / "crt" / "host_config.h", *folder.glob("targets/*/include/crt/host_config.h")
        for header in headers:
            if header.is_file():
                match = re.search(r"#if __GNUC__ > (\d+)", header.read_text(encoding="utf-8", errors="replace"))
                if match is not None:
                    return int(match[1])
    return None


def _has_header(home: Path, header: str) -> bool:
    return (home / "include" / header).exists() or any(home.glob(f"targets/*/include/{header}"))


def _nvcc_version(nvcc: Path) -> str | None:
    match = re.search(r"release (\d+\.\d+)", _output([nvcc, "--version"]) or "")
    return None if match is None else match[1]


def _output(command: Sequence[str | Path]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None


def _which(name: str, environ: Mapping[str, str]) -> Path | None:
    path = shutil.which(name, path=environ.get("PATH", os.defpath))
    return None if path is None else Path(path)


def _executable(path: Path) -> Path | None:
    return path if path.is_file() and os.access(path, os.X_OK) else None
