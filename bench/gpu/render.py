"""Results as Markdown: what was run, the tables, and the goals. Pure, and of the standard library alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from gpu.shapes import Shape

__all__ = ["GOALS", "goals", "markdown"]

GOALS: Final = {"sentences": 4.0, "prefill": 0.5}
"""Times the reference's sentences a second; share of the measured matrix products, for prefill of the large model."""
REFERENCE: Final = "transformers"
AS_BEFORE: Final = "transformers, as before"
"""The same engine as it was when the goal was set: the goal is about this one, where it was measured."""
LIBRARIES: Final = ("torch", "transformers", "exllamav2", "exllamav3")
PROMPT_TOKENS: Final = 1000
WRITTEN_BEHIND: Final = 80
"""Tokens in the cache for each answer, about, while decoding is measured."""
Results = Mapping[str, Mapping[str, Any]]


def markdown(results: Results, *, about: str = "") -> str:
    """The whole report; sections without any row are left out."""
    parts = [_head(results, about), _phases(results)]
    parts += [
        section
        for section in (
            _ceilings(results),
            _tests(results),
            _prefill(results),
            _decode(results),
            _method(results),
            _sharing(results),
            _goals(results),
        )
        if section
    ]
    return "\n\n".join(parts) + "\n"


def goals(results: Results) -> list[tuple[str, float | None, float]]:
    """(what, best value measured or None, goal)."""
    every = _rows(results, "method")
    before = any(row["engine"] == AS_BEFORE for row in every)
    reference = AS_BEFORE if before else REFERENCE
    lines: list[tuple[str, float | None, float]] = []
    for model in ("small", "large"):
        ratios = [
            ratio
            for row in every
            if row.get("model") == model
            and row["engine"].startswith("exllama")
            and (ratio := _ratio(row, every, reference)) is not None
        ]
        what = f"sentences/s of the whole method against {reference}, {model} model"
        lines.append((what, max(ratios, default=None), GOALS["sentences"]))
    shares = [
        share
        for row in _rows(results, "prefill")
        if row.get("model") == "large"
        and row["engine"].startswith("exllama")
        and (share := _prefill_share(row, results)) is not None
    ]
    what = "share of the measured matrix products, prefill, large model"
    return [*lines, (what, max(shares, default=None), GOALS["prefill"])]


def _head(results: Results, about: str) -> str:
    values = _values(results, "environment")
    packages = values.get("packages", {})
    facts = [
        values.get("gpu"),
        f"{values['gpu_memory_gb']} GB" if values.get("gpu_memory_gb") else None,
        f"driver {values['driver']}" if values.get("driver") else None,
        *(f"{name} {packages[name]}" for name in LIBRARIES if name in packages),
        f"CUDA {values['cuda_of_torch']}" if values.get("cuda_of_torch") else None,
        None if values.get("flash_attn", True) else "no flash-attn",
        f"Python {values['python']}, {values['cores']} cores" if values.get("python") else None,
    ]
    built = _values(results, "build-exllamav2").get("built")
    facts.append(f"ExLlamaV2's extension {built}" if built else None)
    said = "; ".join(str(fact) for fact in facts if fact) or "nothing is known of the machine"
    return f"{said}.{f' {about}' if about else ''}"


def _phases(results: Results) -> str:
    rows = []
    for name, outcome in results.items():
        why = " ".join(str(outcome.get("why", "")).split())[:200]
        rows.append((name, outcome.get("state", "?"), f"{outcome.get('seconds', 0):.0f}", _cell(why)))
    lines = _table(("phase", "came to", "seconds", "why"), rows)
    problems = [
        f"- {name}, {problem['what']}: `{_cell(' '.join(str(problem['error']).split())[:300])}`"
        for name, outcome in results.items()
        for problem in outcome.get("problems", ())
    ]
    return "\n".join([lines, *(["", *problems] if problems else [])])


def _ceilings(results: Results) -> str:
    rows = [
        (row["what"], row["kind"], f"{row['tflops']:.3g}", f"{row['least']:.3g} – {row['most']:.3g}")
        for row in _rows(results, "products")
    ]
    if not rows:
        return ""
    bandwidth = _values(results, "ceilings").get("gigabytes_per_second")
    said = f"\n\nCopying memory: {bandwidth:.0f} GB/s, read and written." if bandwidth else ""
    return "### Ceilings\n\n" + _table(("product", "type", "TFLOP/s", "from – to"), rows) + said


def _tests(results: Results) -> str:
    parts = [_of_phase(results, name) for name in ("tests", "tests-exl2")]
    return "\n\n".join(part for part in parts if part)


def _of_phase(results: Results, phase: str) -> str:
    values = _values(results, phase)
    if "passed" not in values:
        return ""
    which = "what needs EXL2 weights" if phase == "tests-exl2" else "all others"
    lines = [
        f"### Tests (`pytest -m gpu`): {which}\n",
        f"{values['passed']} passed, {values['failed']} failed, {values['skipped']} skipped.\n",
    ]
    lines += [
        f"- process {_cell(name)}: {facts['ended']}, after {facts['seconds']:.0f} s"
        for name, facts in values.get("processes", {}).items()
    ]
    lines += [f"- not run, its engine is not there: {_cell(test)}" for test in values.get("left_out", ())]
    lines += [f"- failed: {name}: `{_cell(why)}`" for name, why in values.get("failures", ())]
    reasons = Counter(why for _, why in values.get("reasons", ()))
    lines += [f"- {count} skipped: {_cell(why)}" for why, count in reasons.most_common()]
    return "\n".join(lines)


def _prefill(results: Results) -> str:
    rows = []
    for row in _rows(results, "prefill"):
        share = _prefill_share(row, results)
        rows.append(
            (
                row.get("model", ""),
                row["engine"],
                str(row["prompts"]),
                _number(row["median"]),
                f"{_number(row['least'])} – {_number(row['most'])}",
                "" if share is None else f"{share:.0%}",
                _times(_ratio(row, _rows(results, "prefill"))),
            )
        )
    header = ("model", "engine", "prompts", "tokens/s", "from – to", "of the ceiling", f"× {REFERENCE}")
    return "### Prefill\n\n" + _table(header, rows) if rows else ""


def _decode(results: Results) -> str:
    rows = []
    for row in sorted(_rows(results, "decode"), key=lambda row: (row.get("model", ""), row["engine"], row["batch"])):
        share = _decode_share(row, results)
        rows.append(
            (
                row.get("model", ""),
                row["engine"],
                str(row["batch"]),
                _number(row["median"]),
                f"{_number(row['least'])} – {_number(row['most'])}",
                "" if share is None else f"{share:.0%}",
                _times(_ratio(row, _rows(results, "decode"))),
            )
        )
    header = ("model", "engine", "batch", "tokens/s", "from – to", "of the memory's speed", f"× {REFERENCE}")
    return "### Decoding\n\n" + _table(header, rows) if rows else ""


def _method(results: Results) -> str:
    rows = []
    every = _rows(results, "method")
    order = sorted(every, key=lambda row: (row.get("model", ""), row["mode"], row["engine"], row["batch"]))
    for row in order:
        share = _method_share(row, results)
        rows.append(
            (
                row.get("model", ""),
                row["mode"],
                row["engine"],
                str(row["batch"]),
                _number(row["median"]),
                f"{_number(row['least'])} – {_number(row['most'])}",
                f"{row['tokens']:.0f} + {row['new_tokens']:.0f}",
                f"{row['in_model']:.0%}",
                "" if share is None else f"{share:.1%}",
                _times(_ratio(row, every, AS_BEFORE)),
                _times(_ratio(row, every)),
            )
        )
    header = (
        "model",
        "mode",
        "engine",
        "batch",
        "sentences/s",
        "from – to",
        "tokens read + written a sentence",
        "time in the model",
        "of the ceiling",
        "× as before",
        f"× {REFERENCE}",
    )
    return "### The whole method\n\n" + _table(header, rows) if rows else ""


def _sharing(results: Results) -> str:
    rows = [
        (
            row.get("model", ""),
            row["engine"],
            str(row["questions"]),
            f"{row['seconds_shared']['median']:.3f}",
            f"{row['seconds_apart']['median']:.3f}",
            f"{row['median']:.1f}× ({row['least']:.1f} – {row['most']:.1f})",
        )
        for row in _rows(results, "sharing")
    ]
    header = ("model", "engine", "questions", "s, prompts shared", "s, each its own prompt", "gain")
    return "### Shared prompts\n\n" + _table(header, rows) if rows else ""


def _goals(results: Results) -> str:
    lines = []
    for what, value, goal in goals(results):
        said = f"at least {goal:.0%}" if goal < 1 else f"at least {goal:g}×"
        got = "not measured" if value is None else f"{value:.0%} at best" if goal < 1 else f"{value:.1f}× at best"
        met = "" if value is None else ": met" if value >= goal else ": missed"
        lines.append(f"- {what}: {got} ({said}{met})")
    return "### Goals\n\n" + "\n".join(lines)


def _shape(results: Results, model: str) -> tuple[Shape, dict[str, Any]] | None:
    for row in _rows(results, "models"):
        if row["name"] == model:
            facts = row["shape"]
            tied = facts["parameters"] < facts["in_layers"] + 2 * facts["vocabulary"] * facts["hidden"]
            names = ("hidden", "intermediate", "layers", "heads", "kv_heads", "head_dim", "vocabulary")
            return Shape(*(facts[name] for name in names), tied=tied, bias=False), row
    return None


def _product(results: Results) -> float | None:
    """TFLOP/s: the best of the large products, the roof of everything that multiplies."""
    found = [row["tflops"] for row in _rows(results, "products") if row.get("model") is None]
    return max(found, default=None)


def _prefill_share(row: Mapping[str, Any], results: Results) -> float | None:
    known, roof = _shape(results, row.get("model", "")), _product(results)
    if known is None or roof is None:
        return None
    length = row["tokens"] / max(1, row["prompts"])
    return float(row["median"] * known[0].flop_per_token(int(length)) / (roof * 1e12))


def _decode_share(row: Mapping[str, Any], results: Results) -> float | None:
    """Of what the memory allows: each step reads the weights once, and every answer's cache."""
    bandwidth = _values(results, "ceilings").get("gigabytes_per_second")
    label = row["engine"].partition(" ")[2] if row["engine"] != AS_BEFORE else ""
    name = f"{row.get('model', '')}-{label}" if label else row.get("model", "")
    known = _shape(results, name)
    if known is None or not bandwidth:
        return None
    shape, facts = known
    step = shape.read_bytes(facts["bits"]) + row["batch"] * WRITTEN_BEHIND * shape.cache_bytes_per_token()
    return float(row["median"] / row["batch"] * step / (bandwidth * 1e9))


def _method_share(row: Mapping[str, Any], results: Results) -> float | None:
    """Of the matrix products: what the tokens that were read and written need at least."""
    known, roof = _shape(results, row.get("model", "")), _product(results)
    if known is None or roof is None:
        return None
    tokens = row["tokens"] or row["prompt_tokens"] + row["new_tokens"]
    return float(row["median"] * tokens * known[0].flop_per_token(PROMPT_TOKENS) / (roof * 1e12))


def _ratio(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], reference: str = REFERENCE) -> float | None:
    """How many times the reference's, of the same model and question; None where it was not asked."""
    if row["engine"] in (reference, AS_BEFORE):
        return None
    same = [
        other
        for other in rows
        if other["engine"] == reference
        and all(other.get(key) == row.get(key) for key in ("model", "mode", "batch", "prompts"))
    ]
    return float(row["median"] / same[0]["median"]) if same and same[0]["median"] else None


def _rows(results: Results, table: str) -> list[Mapping[str, Any]]:
    return [row for outcome in results.values() for row in outcome.get("rows", {}).get(table, ())]


def _values(results: Results, phase: str) -> Mapping[str, Any]:
    values: Mapping[str, Any] = results.get(phase, {}).get("values", {})
    return values


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}×"
