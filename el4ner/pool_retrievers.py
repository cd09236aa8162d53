"""From the configuration to each pool's retriever, and what its sentences are found by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Final

from el4ner.config import Settings
from el4ner.engines.base import Engine
from el4ner.models.prepare import prepare
from el4ner.models.progress import Progress
from el4ner.participation import asks_models_for_pool_spans, shows_demonstrations
from el4ner.pools import Pool
from el4ner.prompts import PromptSet
from el4ner.retrieval import (
    PoolIndex,
    PoolSurfaces,
    RememberingEmbedder,
    RetrievalCache,
    Retriever,
    SentenceTransformerEmbedder,
    UnshownRetriever,
    make_retriever,
)
from el4ner.stages import StageContext
from el4ner.stages.pool_proposals import MissingMembers, ProposedSurfaces

__all__ = ["INDEX_FOLDER", "make_retrievers", "pool_surfaces", "prepared_embedder", "taught_retrievers"]

INDEX_FOLDER: Final = "index"
"""In the cache folder: where pools' vectors are, and what members propose in their sentences."""


def prepared_embedder(settings: Settings, folder: Path, progress: Progress) -> SentenceTransformerEmbedder:
    """The one that ``retrieval.embedder`` names; it is loaded when it is needed."""
    return SentenceTransformerEmbedder(prepare(settings.retrieval.embedder, folder, progress))


def make_retrievers(
    settings: Settings,
    pools: Mapping[str, Pool],
    embedder: SentenceTransformerEmbedder | None,
    surfaces: Mapping[str, PoolSurfaces],
    folder: Path,
    cache: RetrievalCache | None,
    progress: Progress,
    *,
    retrieves: bool,
) -> dict[str, Retriever]:
    """A retriever for each pool. Without ``retrieves``, and where no prompt shows demonstrations, one that does nothing
    before it is used."""
    retrieval, shown = settings.retrieval, shows_demonstrations(settings)
    if embedder is not None and (retrieves or settings.method.encoder == "embedder"):
        embedder.load()
    chosen = once(lambda: prepared_embedder(settings, folder, progress) if embedder is None else embedder)

    def made(name: str) -> Retriever:
        return make_retriever(
            retrieval.kind,
            pools[name],
            k=retrieval.k,
            seed=retrieval.seed,
            embedder=chosen() if retrieval.kind in ("span", "sentence") else None,
            index_dir=folder / INDEX_FOLDER,
            surfaces=surfaces.get(name),
            cache=cache,
            progress=progress,
            at_first_use=not retrieves,
        )

    return {name: made(name) if shown else UnshownRetriever(partial(made, name)) for name in pools}


def taught_retrievers(
    settings: Settings, embedder: SentenceTransformerEmbedder | None, cache: RetrievalCache | None
) -> Callable[[Pool], Retriever]:
    """Makes the retriever of a pool as it is taught: without a file, and each text is embedded once whatever pool it is
    in. Its sentences are found by what is labelled in them."""
    retrieval = settings.retrieval
    remembering = None if embedder is None else RememberingEmbedder(embedder)

    def made(pool: Pool) -> Retriever:
        return make_retriever(
            retrieval.kind,
            pool,
            k=retrieval.k,
            seed=retrieval.seed,
            embedder=embedder if retrieval.kind in ("span", "sentence") else None,
            cache=cache,
            at_first_use=True,
            build=None if remembering is None else partial(PoolIndex.build, pool, remembering),
        )

    shown = shows_demonstrations(settings)
    return made if shown else lambda pool: UnshownRetriever(partial(made, pool))


def pool_surfaces(
    settings: Settings,
    engines: Mapping[str, Engine],
    hosted: Sequence[str],
    pools: Mapping[str, Pool],
    folder: Path,
    progress: Progress,
) -> Mapping[str, PoolSurfaces]:
    """By which spans each pool's sentences are found, where that is not by the labelled ones: what the members propose
    that this process hosts, as in the input."""
    if not asks_models_for_pool_spans(settings):
        return {}
    if not engines.keys() >= set(hosted):  # they are loaded where extraction runs
        return {name: MissingMembers() for name in pools}
    members = [engines[name] for name in hosted]
    prompts = PromptSet(settings.method.prompt_version)
    return {
        name: ProposedSurfaces(StageContext(pool, prompts, settings.method), members, folder / INDEX_FOLDER, progress)
        for name, pool in pools.items()
    }
