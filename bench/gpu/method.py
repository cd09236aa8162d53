"""Sentences a second of the whole method: the pipeline over sentences of the shipped labelled pool, at batch sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gpu.engines import AS_BEFORE, Deadline, in_turns, spread
from gpu.record import Record

if TYPE_CHECKING:
    from el4ner.engines.base import Engine
    from el4ner.pipeline import Pipeline

__all__ = ["CARD", "CPU", "GOAL", "JOBS", "MODES", "jobs", "measure"]

POOL: Final = "news"
MEMBER: Final = "member"
MODES: Final[Mapping[str, Mapping[str, Any]]] = {
    # Nothing of the pool is read by the models: for one of 7B that would take longer than what is measured.
    "in context": {
        "mode": "scored",
        "evidence": ("in_context",),
        "weights": "even",
        "proposals": ("chunks", "lexicon"),
    },
    "paper": {"mode": "paper"},
    "default": {"mode": "scored"},
}
CARD: Final = {1: 4, 8: 16, 32: 64, 128: 128}
"""Batch size → sentences."""
CPU: Final = {1: 1, 2: 2}
GOAL: Final = ("in context", 32)
"""What the goal is about: asked first, and of the transformers engine as it was before as well."""
GOAL_SHARE: Final = 0.6
"""Of a phase's time, at most."""
JOBS: Final = (
    GOAL,
    ("default", 128),
    ("in context", 128),
    ("paper", 128),
    ("default", 32),
    ("paper", 32),
    ("in context", 8),
    ("in context", 1),
    ("default", 8),
    ("default", 1),
    ("paper", 8),
    ("paper", 1),
)
"""What is measured, in the order of what matters most."""


def jobs(counts: Mapping[int, int]) -> Iterator[tuple[str, int, int]]:
    """(mode, batch, sentences) of the batch sizes that ``counts`` has, each mode's at least once."""
    for mode, batch in JOBS:
        if batch in counts:
            yield mode, batch, counts[batch]
    for batch in counts:
        if batch not in dict.fromkeys(batch for _, batch in JOBS):
            for mode in MODES:
                yield mode, batch, counts[batch]


def sentences_of_the_pool(count: int) -> list[str]:
    """Different ones as far as there are, from the last one on: demonstrations are drawn from all."""
    from el4ner.pools import load_pool

    texts = [sentence.text for sentence in load_pool(f"shipped:{POOL}", name=POOL).sentences][::-1]
    return [texts[number % len(texts)] for number in range(count)]


def pipeline_of(engine: Engine, mode: str, cache_dir: Path, *, embedder: bool) -> Pipeline:
    from el4ner.config import Settings, load_settings
    from el4ner.loader import pipeline_from
    from el4ner.models.prepare import prepare
    from el4ner.pools import load_pool
    from el4ner.retrieval import SentenceTransformerEmbedder

    overrides = {
        "ensemble": {"members": [MEMBER]},
        "models": {MEMBER: {"source": "./given", "engine": "transformers"}},
        "pools": {"default": POOL, "paths": {POOL: f"shipped:{POOL}"}},
        "retrieval": {"kind": "span" if embedder else "random", "query_spans": "chunks"},
        "method": {"repeats": "off", **MODES[mode]},
    }
    settings = load_settings(Settings, environ={}, overrides=overrides)
    spans = SentenceTransformerEmbedder(prepare(settings.retrieval.embedder, cache_dir)) if embedder else None
    pools = {POOL: load_pool(f"shipped:{POOL}", name=POOL)}
    return pipeline_from(settings, {MEMBER: engine}, pools, spans, cache_dir=cache_dir)


def measure(
    engines: dict[str, Any],
    record: Record,
    counts: Mapping[int, int],
    deadline: Deadline,
    *,
    cache_dir: Path,
    embedder: bool,
    repeats: int,
) -> None:
    """Rows ``method``: one for each engine, mode and batch size. Loading and weighing evidence are in no row."""
    from tag import forget_prompts
    from tag import measure as pass_over

    texts = sentences_of_the_pool(max(counts.values()))
    pipelines: dict[tuple[str, str], Any] = {}
    record.put(retrieval="span" if embedder else "random")

    def once(labelled: tuple[str, Any], mode: str, batch: int, sentences: Sequence[str]) -> dict[str, float]:
        label, engine = labelled
        if (label, mode) not in pipelines:
            pipelines[label, mode] = pipeline_of(engine, mode, cache_dir, embedder=embedder)
        forget_prompts([engine])
        result = pass_over(pipelines[label, mode], list(sentences), batch)
        seconds = sum(result["seconds"].values())
        (member,) = result["members"].values()
        return {
            "rate": len(sentences) / seconds,
            "tokens": member["tokens"] / len(sentences),
            "new_tokens": result["new"] / len(sentences),
            "prompt_tokens": result["prompt"] / len(sentences),
            "in_model": member["model_seconds"] / seconds,
        }

    labelled = {label: (label, engine) for label, engine in engines.items()}
    every = list(jobs(counts))
    for number, (mode, batch, count) in enumerate(every):
        if deadline.left <= 0:
            record.put(cut_short=True)
            break
        # None takes more than twice its share: fewer rounds of this one rather than none of the others.
        share = GOAL_SHARE if number == 0 else 2 / (len(every) - number)
        own = Deadline.within(deadline.left * min(1.0, share))
        few = texts[: min(count, batch)]
        if number == 1 and labelled.pop(AS_BEFORE, None) is not None:
            for key in [key for key in pipelines if key[0] == AS_BEFORE]:
                del pipelines[key]
            engines.pop(AS_BEFORE).close()  # its weights and prompts make room

        def write(label: str, results: list[dict[str, float]], mode: str = mode, batch: int = batch) -> None:
            record.replace(
                "method",
                ("engine", "mode", "batch"),
                engine=label,
                mode=mode,
                batch=batch,
                sentences=counts[batch],
                **{name: results[-1][name] for name in ("tokens", "new_tokens", "prompt_tokens", "in_model")},
                **spread([result["rate"] for result in results]),
            )

        in_turns(
            labelled,
            lambda pair, mode=mode, batch=batch, few=few: once(pair, mode, batch, few),  # type: ignore[misc]
            record,
            own,
            what=f"method, {mode}",
            repeats=0,
        )
        in_turns(
            labelled,
            lambda pair, mode=mode, batch=batch, count=count: once(pair, mode, batch, texts[:count]),  # type: ignore[misc]
            record,
            own,
            what=f"method, {mode}",
            repeats=repeats,
            warm=0,
            each=write,
        )
