"""`tag` on 50 sentences: sentences and tokens per second, and how much of the time is work that only the model can do.

    python bench/tag.py [--json OUT] [--sentences N] [--ensemble NAME] [--mode scored|paper]

Every sentence is asked about (`method.repeats = "off"`). Raw prefill is the model alone, reading batches of prompts of
the same mean length, one pass after the other, measured in the same run; a member that is asked about some sentences
only reads no others. "model-bound" is the time that raw prefill would need for the tokens that the stages made the
model read, as a share of the stages' whole time: retrieval, prompts, tokenising, packing, scoring and everything else
is the rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from logs import Asked

from el4ner.config import Settings, load_settings
from el4ner.loader import load_pipeline
from el4ner.participation import STAGES
from el4ner.pipeline import Pipeline
from el4ner.text.segment import segment
from el4ner.types import Document

RAW_PASSES = 5
POOL = "news"


def sample(count: int) -> list[str]:
    """Sentences of the shipped sample's news, again from the start if there are too few."""
    lines = (resources.files("el4ner") / "samples" / "demo.jsonl").read_text(encoding="utf-8").splitlines()
    news = [record["text"] for record in map(json.loads, lines) if record["pool"] == POOL]
    sentences = [sentence.text for text in news for sentence in segment(text)]
    return [sentences[i % len(sentences)] for i in range(count)]


def measure(pipeline: Pipeline, sentences: list[str], batch: int) -> dict[str, Any]:
    """One pass over the sentences, each a document; seconds by stage."""
    seconds = dict.fromkeys(STAGES, 0.0)
    asked = {name: Asked(engine) for name, engine in pipeline.engines.items()}
    before = {name: _spent(engine) for name, engine in pipeline.engines.items()}
    prompt = cached = new = 0
    for start in range(0, len(sentences), batch):
        documents = [Document(f"{start + i}", text, POOL) for i, text in enumerate(sentences[start : start + batch])]
        clock = time.perf_counter()
        found = pipeline.extract(documents)
        seconds["extract"] += time.perf_counter() - clock
        clock = time.perf_counter()
        typed = pipeline.classify(found)
        seconds["classify"] += time.perf_counter() - clock
        clock = time.perf_counter()
        judged = pipeline.validate(typed)
        seconds["validate"] += time.perf_counter() - clock
        for result in (*found, *typed, *judged):
            prompt += result.usage.prompt_tokens
            cached += result.usage.cached_tokens
            new += result.usage.new_tokens
    members = {
        name: {
            "model_seconds": _spent(engine)[0] - before[name][0],
            "tokens": _spent(engine)[1] - before[name][1],
            "requests": asked[name].questions,
        }
        for name, engine in pipeline.engines.items()
    }
    return {"seconds": seconds, "members": members, "prompt": prompt, "cached": cached, "new": new}


def forget_prompts(engines: Iterable[Any]) -> None:
    """No measurement finds prompts that one before it has left in the engines' caches."""
    for engine in engines:
        if hasattr(engine, "forget_prompts"):
            engine.forget_prompts()


def _spent(engine: Any) -> tuple[float, int]:
    """Seconds inside the model and tokens read since it was loaded; nothing where there is no model."""
    return getattr(engine, "model_seconds", 0.0), getattr(engine, "forward_tokens", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ensemble", default="default")
    parser.add_argument("--mode", default="scored", choices=["scored", "paper"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    overrides = {
        "ensemble": {"preset": options.ensemble},
        "method": {"mode": options.mode, "repeats": "off"},
        "pools": {"default": POOL, "paths": {POOL: f"shipped:{POOL}"}},
    }
    settings = load_settings(Settings, overrides=overrides)
    sentences = sample(options.sentences)
    with load_pipeline(settings) as pipeline:
        measure(pipeline, sentences[:2], 2)  # warm: the first pass of a shape pays for its kernels
        raw = dict.fromkeys(pipeline.engines, 0.0)
        result = measure(pipeline, sentences, options.batch)
        total = sum(result["seconds"].values())
        bound = 0.0
        for name, engine in pipeline.engines.items():
            member = result["members"][name]
            length = max(32, round(member["tokens"] / max(1, member["requests"])))
            rows = max(1, min(options.batch, (settings.models[name].max_batch_tokens or 4096) // length))
            raw[name] = statistics.median(length * rows / engine.raw_prefill(length, rows) for _ in range(RAW_PASSES))
            member["raw_prefill_tokens_per_second"] = raw[name]
            member["tokens_per_second_in_model"] = member["tokens"] / max(1e-9, member["model_seconds"])
            bound += member["tokens"] / raw[name]
    summary = {
        "sentences": len(sentences),
        "seconds": total,
        "sentences_per_second": len(sentences) / total,
        "seconds_by_stage": result["seconds"],
        "tokens_read_per_sentence": sum(m["tokens"] for m in result["members"].values()) / len(sentences),
        "tokens_per_second": sum(m["tokens"] for m in result["members"].values()) / total,
        "in_model_share": sum(m["model_seconds"] for m in result["members"].values()) / total,
        "model_bound_share": bound / total,
        "cached_tokens": result["cached"],
        "members": result["members"],
    }
    print(f"{len(sentences)} sentences, ensemble {options.ensemble}, {options.mode} mode")
    print(
        f"  {summary['sentences_per_second']:.2f} sentences/s, {summary['tokens_per_second']:.0f} tokens/s, "
        f"{summary['tokens_read_per_sentence']:.0f} tokens read a sentence"
    )
    print("  seconds: " + ", ".join(f"{stage} {s:.1f}" for stage, s in result["seconds"].items()))
    for name, member in result["members"].items():
        print(
            f"  {name}: {member['requests']} requests, "
            f"{member['tokens_per_second_in_model']:.0f} tokens/s in the model, "
            f"raw prefill {member['raw_prefill_tokens_per_second']:.0f} tokens/s"
        )
    print(
        f"  inside the model: {summary['in_model_share']:.0%} of stage time; "
        f"raw-prefill-bound: {summary['model_bound_share']:.0%}"
    )
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
