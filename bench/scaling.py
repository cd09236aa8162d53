"""Cost as work grows: batches of the default ensemble, numbers of types, and pools of up to 100,000 sentences.

    python bench/scaling.py [--json OUT] [--batches 1,4,16,64] [--types 6,24,96] [--pools 100,1000,10000,100000]
                            [--sentences N] [--ensemble NAME] [--without-evidence]

Seconds are those on the wall and, beside them, those of the processor, summed over its cores: on a machine that is
shared the latter say more.

The sentences are the shipped sample's news, each asked about once (`method.repeats = "off"`). Memory is that of the
whole process, at its peak so far and now: batches and pools grow, so that the peak says something about the latest.

More types are those of the shipped news pool, divided. A larger pool is made of its sentences: each entity is replaced
by another one of its type, or by the beginning of one and the end of another. So all sentences differ and most surfaces
do, and nothing about quality can be learned from them. "first" is the time until a new pool can be used, "again" that
with its files there. Sentences are then tagged by that pool with the default method, which retrieves nothing.
Retrieval, for the modes that need it, is measured with the chunks as the input's spans; its share is of retrieval and
the rest of a sentence's time, which is measured once, with the shipped pool. Reading a pool's evidence takes as long
for any pool of more than 1,000 sentences; `--without-evidence` leaves it out, and tagging.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from workers.cli.settings import prepare_process

prepare_process()  # as the command line does

from synthetic import divided, synthetic  # noqa: E402
from tag import POOL, forget_prompts, measure, sample  # noqa: E402

from el4ner.config import Settings, load_settings  # noqa: E402
from el4ner.errors import El4nerError  # noqa: E402
from el4ner.loader import load_pipeline, pipeline_from  # noqa: E402
from el4ner.models.prepare import default_cache_dir, prepare  # noqa: E402
from el4ner.models.progress import Progress  # noqa: E402
from el4ner.pipeline import Pipeline  # noqa: E402
from el4ner.pools import Pool, load_pool  # noqa: E402
from el4ner.prompts import PromptSet  # noqa: E402
from el4ner.retrieval import Retriever, SentenceTransformerEmbedder, make_retriever  # noqa: E402
from el4ner.stages import StageContext  # noqa: E402
from el4ner.stages.pool_evidence import pool_spans  # noqa: E402
from el4ner.text.chunks import chunks, outermost  # noqa: E402
from workers.cli.progress import TerminalProgress  # noqa: E402
from workers.cli.settings import work_offline_if_local  # noqa: E402

BATCH: Final = 16
MOST_SHARE: Final = 0.05
MOST_SECONDS: Final = 600.0
T = TypeVar("T")


def memory() -> dict[str, float]:
    """Resident megabytes, at the peak so far and now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text(encoding="ascii").split()[1]) if statm.exists() else 0
    return {"peak_mb": peak, "now_mb": pages * resource.getpagesize() / (1 << 20)}


def timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def retrieval(retriever: Retriever, sentences: Sequence[str], pool: Pool) -> float:
    """Seconds a sentence: chunks, their embeddings and the search, in batches."""

    def work() -> None:
        for start in range(0, len(sentences), BATCH):
            part = list(sentences[start : start + BATCH])
            retriever.retrieve(part, [[s.text for s in outermost(chunks(text, pool.text_kind))] for text in part])

    retriever.retrieve([sentences[0]], [[sentences[0]]])  # warm
    return timed(work)[1] / len(sentences)


def by_batch(pipeline: Pipeline, sentences: list[str], batches: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    for batch in sorted(batches):
        row = {"batch": batch, **tagging(pipeline, sentences, batch), **memory()}
        rows.append(row)
        print(
            f"  batch {batch:3}: {row['sentences_per_second']:6.2f} sentences/s, {_a_sentence(row)}, "
            f"{row['peak_mb']:.0f} MB at the peak so far, {row['now_mb']:.0f} MB now"
        )
    return rows


def tagging(pipeline: Pipeline, sentences: list[str], batch: int) -> dict[str, float]:
    """What the sentences take: by the wall's clock and by the processor's."""
    forget_prompts(pipeline.engines.values())
    processor = time.process_time()
    seconds = sum(measure(pipeline, sentences, batch)["seconds"].values())
    return {
        "sentences_per_second": len(sentences) / seconds,
        "processor_seconds_per_sentence": (time.process_time() - processor) / len(sentences),
    }


def _a_sentence(row: dict[str, Any]) -> str:
    return f"{row['processor_seconds_per_sentence']:.3f} s of the processor a sentence"


def with_pool(pool: Pool, pipeline: Pipeline, sentences: list[str], cache: Path, progress: Progress) -> dict[str, Any]:
    """The default method with one pool: seconds until it can be used, first and again, and what a sentence takes."""
    pools = {POOL: replace(pool, name=POOL)}
    row: dict[str, Any] = {}
    for when in ("first", "again"):
        processor = time.process_time()
        tagger, row[f"ready_{when}_seconds"] = timed(
            lambda: pipeline_from(pipeline.settings, pipeline.engines, pools, None, cache_dir=cache, progress=progress)
        )
        row[f"ready_{when}_processor_seconds"] = time.process_time() - processor
    return row | tagging(tagger, sentences, BATCH)


def by_types(pipeline: Pipeline, sentences: list[str], counts: Sequence[int]) -> list[dict[str, Any]]:
    shipped, rows = load_pool(f"shipped:{POOL}", name=POOL), []
    with tempfile.TemporaryDirectory(prefix="el4ner-scaling-") as scratch, TerminalProgress() as progress:
        for count in sorted(counts):
            row = {"types": count} | with_pool(divided(shipped, count), pipeline, sentences, Path(scratch), progress)
            rows.append(row)
            print(f"  {count:4} types: {row['sentences_per_second']:6.2f} sentences/s, {_a_sentence(row)}")
    return rows


def by_pool(
    pool: Pool, pipeline: Pipeline, embedder: SentenceTransformerEmbedder, sentences: list[str], *, evidence: bool
) -> dict[str, Any]:
    """One pool: what it takes to make it ready, first and again, and to search it."""
    settings = pipeline.settings
    row: dict[str, Any] = {
        "sentences": len(pool.sentences),
        "surfaces": len({span.text for sentence in pool.sentences for span, _ in sentence.spans}),
    }
    context = StageContext(pool, PromptSet(settings.method.prompt_version), settings.method)
    lexicon, row["lexicon_seconds"] = timed(lambda: pool.lexicon)
    row["lexicon_seconds_per_sentence"] = timed(lambda: [lexicon.find(text) for text in sentences])[1] / len(sentences)
    spans, row["pool_spans_seconds"] = timed(lambda: pool_spans(context))
    row["pool_spans"] = len(spans.labels)
    with tempfile.TemporaryDirectory(prefix="el4ner-scaling-") as scratch, TerminalProgress() as progress:
        folder = Path(scratch)

        def index() -> Retriever:
            return make_retriever(
                "span", pool, k=settings.retrieval.k, embedder=embedder, index_dir=folder / "index", progress=progress
            )

        retriever, row["index_first_seconds"] = timed(index)
        row["retrieval_seconds_per_sentence"] = retrieval(retriever, sentences, pool)
        del retriever
        row["index_again_seconds"] = timed(index)[1]
        row["index_mb"] = _megabytes(folder / "index")

        if evidence:
            row |= with_pool(pool, pipeline, sentences, folder / "cache", progress)
            row["evidence_mb"] = _megabytes(folder / "cache")
    return row | memory()


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def show(row: dict[str, Any]) -> None:
    print(
        f"  {row['sentences']:,} sentences, {row['surfaces']:,} surfaces: made in {row['made_seconds']:.1f} s, "
        f"lexicon {row['lexicon_seconds']:.2f} s ({row['lexicon_seconds_per_sentence'] * 1000:.2f} ms a sentence), "
        f"spans of the pool {row['pool_spans_seconds']:.2f} s ({row['pool_spans']:,})"
    )
    print(
        f"    index first {row['index_first_seconds']:.1f} s, again {row['index_again_seconds']:.2f} s, "
        f"{row['index_mb']:.1f} MB"
    )
    if "ready_first_seconds" in row:
        print(
            f"    ready first {row['ready_first_seconds']:.1f} s, again {row['ready_again_seconds']:.2f} s, "
            f"{row['evidence_mb']:.1f} MB; {row['sentences_per_second']:.2f} sentences/s, {_a_sentence(row)}"
        )
    print(
        f"    retrieval {row['retrieval_seconds_per_sentence'] * 1000:.1f} ms a sentence: "
        f"{row['retrieval_share']:.1%} of its time; {row['peak_mb']:.0f} MB at the peak so far, "
        f"{row['now_mb']:.0f} MB now"
    )


def numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",") if part.strip()]
    if any(number < 1 for number in found):
        raise argparse.ArgumentTypeError("needs positive numbers with commas between")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=numbers, default=[1, 4, 16, 64])
    parser.add_argument("--pools", type=numbers, default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--types", type=numbers, default=[6, 24, 96])
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--ensemble", default="default")
    parser.add_argument("--without-evidence", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.sentences < 1:
        parser.error("--sentences must be at least 1")
    overrides = {
        "ensemble": {"preset": options.ensemble},
        "retrieval": {"kind": "span"},
        "method": {"repeats": "off"},
        "pools": {"default": POOL, "paths": {POOL: f"shipped:{POOL}"}},
    }
    try:
        settings = load_settings(Settings, environ={}, overrides=overrides)
        work_offline_if_local(settings)
        with TerminalProgress() as progress:
            pipeline = load_pipeline(settings, progress=progress)
        with pipeline:
            run(pipeline, options)
    except El4nerError as error:
        sys.exit(f"error: {error}")


def run(pipeline: Pipeline, options: argparse.Namespace) -> None:
    sentences = sample(options.sentences)
    if len(set(sentences)) < len(sentences):
        sentences = list(dict.fromkeys(sentences))
        print(f"the sample has no more than {len(sentences)} different sentences")
    measure(pipeline, sentences[:2], 2)  # warm: the first pass of a shape pays for its kernels
    summary: dict[str, Any] = {"sentences": len(sentences), "ensemble": options.ensemble, "pools": []}
    print(f"{len(sentences)} sentences, ensemble {options.ensemble}")
    summary["batches"] = by_batch(pipeline, sentences, options.batches)
    _write(options.json, summary)
    if options.types:
        print("types; the same sentences, batches of 16")
        summary["types"] = by_types(pipeline, sentences, options.types)
        _write(options.json, summary)
    if not options.pools:
        return
    embedder = SentenceTransformerEmbedder(prepare(pipeline.settings.retrieval.embedder, default_cache_dir()))
    shipped = load_pool(f"shipped:{POOL}", name=POOL)
    with tempfile.TemporaryDirectory(prefix="el4ner-scaling-") as scratch:
        own = make_retriever("span", shipped, k=5, embedder=embedder, index_dir=Path(scratch))
        own_retrieval = retrieval(own, sentences, shipped)
    (once,) = by_batch(pipeline, sentences, [BATCH])
    rest = max(0.0, 1 / once["sentences_per_second"] - own_retrieval)
    summary["seconds_per_sentence_without_retrieval"] = rest
    print(f"pools; with the shipped one retrieval takes {own_retrieval:.4f} s a sentence, everything else {rest:.3f} s")
    for size in sorted(options.pools):
        pool, seconds = timed(lambda size=size: synthetic(shipped, size))  # type: ignore[misc]
        row = {"made_seconds": seconds} | by_pool(
            pool, pipeline, embedder, sentences, evidence=not options.without_evidence
        )
        row["retrieval_share"] = row["retrieval_seconds_per_sentence"] / (row["retrieval_seconds_per_sentence"] + rest)
        summary["pools"].append(row)
        show(row)
        _write(options.json, summary)
        del pool
        gc.collect()
    largest = summary["pools"][-1]
    print(
        f"targets, at {largest['sentences']:,} sentences: retrieval {largest['retrieval_share']:.1%} of the time "
        f"(at most {MOST_SHARE:.0%}: {_met(largest['retrieval_share'] <= MOST_SHARE)}), index "
        f"{largest['index_first_seconds']:.0f} s (at most {MOST_SECONDS:.0f}: "
        f"{_met(largest['index_first_seconds'] <= MOST_SECONDS)})"
    )


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def _write(path: Path | None, summary: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
