"""How good the tags are in languages other than English, on small pools that were written for it (language_pools/).

    python bench/languages.py [--language NAME …] [--folds 5] [--ensemble NAME] [--json OUT]
    python bench/languages.py --candidates

Each pool has 40 invented news sentences with persons, organisations and locations. They are dealt into folds in turn;
the sentences of a fold are tagged with the other folds as the pool. Figures are of all folds together: candidate recall
(gold entities whose boundaries were proposed), precision, recall and strict F1, candidates and seconds a sentence. Some
60 entities a language tell what works from what does not, and no more. `--candidates` measures proposals alone, without
a model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from el4ner.config import Settings, load_settings
from el4ner.engines.base import Engine
from el4ner.engines.registry import load_engine
from el4ner.evaluation.scoring import score
from el4ner.loader import pipeline_from
from el4ner.models.prepare import default_cache_dir, prepare
from el4ner.participation import needs_embedder
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool, PoolSentence, load_pool
from el4ner.prompts import PromptSet
from el4ner.retrieval import SentenceTransformerEmbedder
from el4ner.stages import StageContext
from el4ner.stages.extract import pool_proposals
from el4ner.tagger import Tagger
from el4ner.types import Document

POOLS = Path(__file__).parent / "language_pools"
Labelled = tuple[int, int, str]


@dataclass
class Answers:
    """Sentence by sentence what is labelled and what is tagged; and how many gold boundaries were proposed."""

    gold: list[list[Labelled]] = field(default_factory=list)
    predicted: list[list[Labelled]] = field(default_factory=list)
    proposed: int = 0
    candidates: int = 0
    seconds: float = 0.0

    def figures(self, types: Sequence[str]) -> dict[str, Any]:
        scores = score(self.gold, self.predicted, types).strict
        entities = sum(map(len, self.gold))
        return {
            "sentences": len(self.gold),
            "entities": entities,
            "candidate_recall": self.proposed / entities,
            "precision": scores.precision,
            "recall": scores.recall,
            "f1": scores.f1,
            "candidates_per_sentence": self.candidates / len(self.gold),
            "seconds_per_sentence": self.seconds / len(self.gold),
        }


def labels_of(sentence: PoolSentence) -> list[Labelled]:
    return [(span.start, span.end, label) for span, label in sentence.spans]


def dealt(pool: Pool, folds: int) -> Iterator[tuple[list[PoolSentence], Pool]]:
    """Each fold, and the pool of all others."""
    for fold in range(folds):
        held_out = [sentence for number, sentence in enumerate(pool.sentences) if number % folds == fold]
        others = tuple(sentence for number, sentence in enumerate(pool.sentences) if number % folds != fold)
        yield held_out, Pool(pool.name, pool.types, others, pool.text_kind)


def tag(held_out: Sequence[PoolSentence], pipeline: Pipeline, into: Answers) -> None:
    documents = [Document(str(number), sentence.text) for number, sentence in enumerate(held_out)]
    found = pipeline.extract(documents)
    began = time.perf_counter()
    tagged = list(Tagger(pipeline).tag(documents))
    into.seconds += time.perf_counter() - began
    for sentence, candidates, document in zip(held_out, found, tagged, strict=True):
        gold = labels_of(sentence)
        spans = {(one.span.start, one.span.end) for part in candidates.sentences for one in part.candidates}
        into.gold.append(gold)
        into.predicted.append([(entity.start, entity.end, entity.type) for entity in document.entities])
        into.proposed += sum((start, end) in spans for start, end, _ in gold)
        into.candidates += len(spans)


def measure(pool: Pool, folds: int, settings: Settings, engines: dict[str, Engine], models: Path) -> dict[str, Any]:
    answers = Answers()
    embedder = None
    if needs_embedder(settings):
        embedder = SentenceTransformerEmbedder(prepare(settings.retrieval.embedder, models))
    for held_out, others in dealt(pool, folds):
        with tempfile.TemporaryDirectory() as folder:
            pipeline = pipeline_from(settings, engines, {pool.name: others}, embedder, cache_dir=Path(folder))
            tag(held_out, pipeline, answers)
    return answers.figures(list(pool.types))


def proposals(pool: Pool, settings: Settings) -> dict[str, Any]:
    """Without a model: by the chunker, and by surfaces that other sentences of the pool have."""
    propose = pool_proposals(StageContext(pool, PromptSet(settings.method.prompt_version), settings.method))
    entities = proposed = candidates = 0
    for sentence in pool.sentences:
        spans = {(span.start, span.end) for span in propose(sentence)}
        gold = labels_of(sentence)
        entities += len(gold)
        proposed += sum((start, end) in spans for start, end, _ in gold)
        candidates += len(spans)
    return {
        "sentences": len(pool.sentences),
        "entities": entities,
        "candidate_recall": proposed / entities,
        "candidates_per_sentence": candidates / len(pool.sentences),
    }


def main() -> None:
    names = sorted(folder.name for folder in POOLS.iterdir() if folder.is_dir())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", action="append", choices=names, help="one of them; all are measured else")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--ensemble", default="default")
    parser.add_argument("--candidates", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not 2 <= options.folds <= 40:
        parser.error("--folds must be from 2 to 40")
    chosen = options.language or names
    pools = {name: load_pool(POOLS / name, name=name) for name in chosen}

    def settings_for(name: str) -> Settings:
        hosted = {"default": name, "paths": {name: str(POOLS / name)}}
        return load_settings(Settings, overrides={"ensemble": {"preset": options.ensemble}, "pools": hosted})

    results: dict[str, Any] = {}
    engines: dict[str, Engine] = {}
    models = default_cache_dir()
    try:
        if not options.candidates:
            settings = settings_for(chosen[0])
            for name in settings.ensemble.members:
                engines[name] = load_engine(name, settings.models[name], cache_dir=models)
        for name, pool in pools.items():
            settings = settings_for(name)
            if options.candidates:
                results[name] = proposals(pool, settings)
            else:
                results[name] = measure(pool, options.folds, settings, engines, models)
            figures = ", ".join(
                f"{key.replace('_', ' ')} {value:.3f}" if isinstance(value, float) else f"{value} {key}"
                for key, value in results[name].items()
            )
            print(f"{name}: {figures}", flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    finally:
        for engine in engines.values():
            engine.close()


if __name__ == "__main__":
    main()
