"""Progress and the first error, from what ninja and the compilers really print."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from el4ner.engines.exllama.ninja_output import NinjaOutput, first_error

FAILED = """\
[1/48] c++ -MMD -MF ext_cache.o.d -DTORCH_EXTENSION_NAME=exllamav2_ext -Werror=format -c ext_cache.cpp -o ext_cache.o
[2/48] /cuda/bin/nvcc --generate-dependencies-with-compile -c quantize.cu -o quantize.cuda.o
FAILED: [code=1] quantize.cuda.o
/cuda/bin/nvcc --generate-dependencies-with-compile -Xcompiler -Werror -c quantize.cu -o quantize.cuda.o
quantize.cu:3:10: fatal error: curand_kernel.h: No such file or directory
    3 | #include <curand_kernel.h>
      |          ^~~~~~~~~~~~~~~~~
compilation terminated.
ninja: build stopped: subcommand failed.
Traceback (most recent call last):
  File "cpp_extension.py", line 2970, in _run_ninja_build
    subprocess.run(
subprocess.CalledProcessError: Command '['ninja', '-v']' returned non-zero exit status 1.

RuntimeError: Error building extension 'exllamav2_ext'
"""


class Recorded:
    """Progress, as calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def start(self, label: str, total: int) -> None:
        self.calls.append((label, total))

    def advance(self, steps: int) -> None:
        self.calls.append(("advance", steps))

    def done(self) -> None:
        self.calls.append(("done", 0))


def test_steps_are_counted_and_other_lines_passed_over() -> None:
    progress = Recorded()
    output = NinjaOutput("compiling", progress)
    for line in ("Loading exllamav2_ext extension (JIT)...\n", *FAILED.splitlines(keepends=True)):
        output.read(line)
    assert (output.done, output.total) == (2, 48)
    output.close()
    assert progress.calls == [("done", 0), ("compiling", 48), ("advance", 1), ("advance", 1), ("done", 0)]


@pytest.mark.skipif(shutil.which("ninja") is None, reason="needs ninja")
def test_ninja_itself_is_understood(tmp_path: Path) -> None:
    builds = "".join(f"build o{number}: touch\n" for number in range(5))
    (tmp_path / "build.ninja").write_text(f"rule touch\n  command = touch $out\n{builds}", encoding="utf-8")
    done = subprocess.run(["ninja", "-v"], cwd=tmp_path, capture_output=True, text=True, check=True)
    progress = Recorded()
    output = NinjaOutput("touching", progress)
    for line in done.stdout.splitlines(keepends=True):
        output.read(line)
    assert (output.done, output.total) == (5, 5)
    assert sum(steps for name, steps in progress.calls if name == "advance") == 5


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FAILED, "quantize.cu:3:10: fatal error: curand_kernel.h: No such file or directory"),
        ('[1/2] nvcc a.cu\na.cu(12): error: identifier "x" is undefined\n', 'a.cu(12): error: identifier "x" is '),
        ("nvcc fatal   : Unsupported gpu architecture 'compute_70'\n", "nvcc fatal   : Unsupported gpu architecture "),
        ("[3/48] nvcc -c a.cu\nnvcc error   : 'cicc' died due to signal 9 (Kill signal)\n", "a compiler was killed, "),
        ("c++: fatal error: Killed signal terminated program cc1plus\n", "a compiler was killed, which happens where"),
        (
            "/usr/bin/ld: cannot find -lcudart: No such\ncollect2: error: ld returned 1",
            "/usr/bin/ld: cannot find -lcudart",
        ),
        ("ValueError: Unknown CUDA arch (8.8) or GPU not supported", "ValueError: Unknown CUDA arch (8.8)"),
        ("", "it said nothing"),
        ("only this\n", "only this"),
    ],
)
def test_the_first_error_is_a_line(text: str, line: str) -> None:
    assert first_error(text).startswith(line)
    assert "\n" not in first_error(text)
