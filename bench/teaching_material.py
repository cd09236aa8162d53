"""What bench/teach.py draws from a data set, and what the members read of it: once, into a file."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from el4ner.config import PoolsSettings, Settings
from el4ner.engines.base import Engine, StateEngine
from el4ner.engines.remembered_states import remembering
from el4ner.evaluation import Dataset, load_dataset
from el4ner.evidence.calibration import FOLDER
from el4ner.evidence.kept_states import KeptStates
from el4ner.pools import Pool, PoolSentence
from el4ner.prompts import PromptSet
from el4ner.serialize import fingerprint
from el4ner.stages.context import StageContext
from el4ner.stages.extract import new_proposals
from el4ner.stages.pool_boundaries import make_proposers
from el4ner.stages.pool_evidence import span_readers
from el4ner.types import Span
from workers.cli.progress import TerminalProgress

__all__ = ["BEGINNING", "Material", "for_pool", "kept", "material_of", "read"]

BEGINNING: Final = 50
"""Labelled sentences that a pool begins with."""
BATCH: Final = 16


@dataclass(frozen=True)
class Material:
    """One data set.

    Args:
        dataset: the sentences that F1 is measured on.
        beginnings: by seed the pool before any correction, all from the train split.
        candidates: by seed the sentences that nobody has labelled yet, in the order in which they come.
    """

    dataset: Dataset
    beginnings: tuple[Pool, ...]
    candidates: tuple[tuple[PoolSentence, ...], ...]

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.dataset.name

    def pool(self, seed: int, corrected: Sequence[PoolSentence]) -> Pool:
        """The beginning with sentences that somebody has labelled since."""
        beginning = self.beginnings[seed]
        return replace(beginning, sentences=(*beginning.sentences, *corrected))


def material_of(folder: Path, *, split: str, limit: int, train: int, dev: int, held_out: int, seeds: int) -> Material:
    """What is drawn from ``folder``: candidates are ``train`` sentences of the train split and ``dev`` of the dev
    split. On dev F1 is measured on ``held_out`` others of that split, else on ``limit`` of ``split``."""
    whole = load_dataset(folder, split="dev")
    sentences = list({sentence.text: sentence for sentence in whole.sentences}.values())
    random.Random(0).shuffle(sentences)
    if split == "dev":
        dataset = replace(whole, sentences=tuple(sentences[dev : dev + held_out]))
    else:
        dataset = load_dataset(folder, split=split, limit=limit)
    measured = {sentence.text for sentence in dataset.sentences}
    labelled = list({sentence.text: sentence for sentence in whole.pool.sentences}.values())
    random.Random(1).shuffle(labelled)
    labelled, more = labelled[:train], sentences[:dev]
    beginnings, candidates = [], []
    for seed in range(seeds):
        drawn = random.Random(seed).sample(range(len(labelled)), BEGINNING)
        beginnings.append(replace(whole.pool, sentences=tuple(labelled[place] for place in drawn)))
        known = {labelled[place].text for place in drawn} | measured
        rest = [sentence for sentence in (*labelled, *more) if sentence.text not in known]
        random.Random(seed).shuffle(rest)
        candidates.append(tuple(rest))
    return Material(dataset, tuple(beginnings), tuple(candidates))


def for_pool(settings: Settings, pool: Pool) -> Settings:
    """The settings with this pool alone."""
    return settings.model_copy(update={"pools": PoolsSettings(default=pool.name, paths={pool.name: pool.name})})


def kept(engines: Mapping[str, Engine], folder: Path, dataset: str) -> dict[str, Engine]:
    """Engines that keep what they have read of the data set in files in ``folder``, and in memory."""
    by_name: dict[str, Engine] = {}
    for name, engine in engines.items():
        assert isinstance(engine, StateEngine), f"{name} shows no hidden states"
        by_name[name] = remembering(KeptStates(engine, folder / f"{dataset.replace('/', '-')}-{name}.sqlite"))
    return by_name


def read(
    settings: Settings, engines: Mapping[str, Engine], material: Material, folder: Path, progress: TerminalProgress
) -> None:
    """Have the members read all words, and all spans that pools of these sentences are likely to propose: what pools
    of all sentences and those at the beginning do. What another one proposes besides is read when it does."""
    everything = {sentence.text: sentence for sentence in (*material.candidates[0], *material.beginnings[0].sentences)}
    sentences = sorted({**everything, **{each.text: each for each in material.dataset.sentences}}.values(), key=_length)
    pools = [material.pool(0, ()), *material.beginnings[1:]]
    pools.append(replace(pools[0], sentences=tuple(everything.values())))
    texts = [sentence.text for sentence in sentences]
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"{fingerprint([each.fingerprint for each in (*engines.values(), *pools)], texts)}.done"
    if done.exists():
        return
    members = {name: engine for name, engine in engines.items() if isinstance(engine, StateEngine)}
    prompts = PromptSet(settings.method.prompt_version)
    contexts = []
    for pool in reversed(pools):
        proposers = make_proposers(
            for_pool(settings, pool), engines, {pool.name: pool}, folder=folder / FOLDER / pool.fingerprint
        )
        contexts.append(StageContext(pool, prompts, settings.method, proposer=proposers.get(pool.name)))
    readers = span_readers(settings, members, None, contexts[0])
    progress.start(f"reading {material.name}", len(sentences))
    for first in range(0, len(sentences), BATCH):
        batch = sentences[first : first + BATCH]
        spans: list[set[Span]] = [{span for span, _ in sentence.spans} for sentence in batch]
        for context in contexts:
            for of_sentence, proposed in zip(spans, new_proposals(batch, context), strict=True):
                of_sentence.update(proposed)
        for reader in readers.values():
            reader.encode([sentence.text for sentence in batch], [sorted(each) for each in spans])
        progress.advance(len(batch))
    progress.done()
    done.touch()


def _length(sentence: PoolSentence) -> int:
    return len(sentence.text)
