"""From the configuration to a pipeline that is ready to work: models, pools, their indexes and evidence.

Takes seconds, and minutes where weights have to be converted or a pool's evidence has to be read first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Final

from el4ner.config import Settings
from el4ner.engines.base import Engine
from el4ner.engines.placing import place
from el4ner.engines.registry import load_engine
from el4ner.evidence.calibration import FOLDER
from el4ner.evidence.prepared import SHIPPED, PreparedEvidence
from el4ner.members_pipeline import MembersPipeline
from el4ner.models.prepare import default_cache_dir, prepare
from el4ner.models.preparing_ahead import prepared_ahead
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.participation import (
    SPLITTABLE,
    STAGES,
    StageName,
    asks_models_for_pool_spans,
    engines_for,
    needs_embedder,
    shows_demonstrations,
)
from el4ner.pipeline import Pipeline
from el4ner.pools import Pool, load_pools
from el4ner.prompts import PromptSet
from el4ner.proposing.boundary_proposer import BoundaryProposer
from el4ner.repeats import AnswerStore
from el4ner.retrieval import (
    PoolSurfaces,
    RetrievalCache,
    Retriever,
    SentenceTransformerEmbedder,
    UnshownRetriever,
    make_retriever,
)
from el4ner.stages import StageContext
from el4ner.stages.pool_evidence import (
    make_evidence,
    make_proposers,
    make_sources,
    weighs_boundaries,
)
from el4ner.stages.pool_proposals import MissingMembers, ProposedSurfaces

__all__ = ["load_members", "load_models", "load_pipeline", "pipeline_from"]

INDEX_FOLDER: Final = "index"
"""In the cache folder: where pools' vectors are, and what members propose in their sentences."""


def load_pipeline(
    settings: Settings,
    *,
    stages: Collection[StageName] = STAGES,
    calibrate_anew: bool = False,
    cache: RetrievalCache | None = None,
    answers: AnswerStore | None = None,
    cache_dir: Path | None = None,
    progress: Progress = NO_PROGRESS,
    prepared: PreparedEvidence = SHIPPED,
) -> Pipeline:
    """Load everything that ``settings`` names; models are prepared where they are not yet.

    Args:
        settings: what to load.
        stages: those that will be asked for. Models that they do not need are not loaded, and without ``classify`` no
            evidence is read.
        calibrate_anew: the evidence is weighed in any case.
        cache: of retrieval, which happens only where some stage's prompts show demonstrations.
        answers: what other processes were asked before.
        cache_dir: where models, indexes and evidence are kept.
        progress: is told of what takes long.
        prepared: what need not be read.

    Raises:
        ConfigError, ModelError, PoolError: what cannot be loaded, and how to mend it.
    """
    folder = cache_dir or default_cache_dir()
    pools, embedder = load_pools(settings.pools), _embedder(settings, folder, progress)
    with _engines(settings, engines_for(settings, stages, None), folder, progress) as engines:
        return pipeline_from(
            settings,
            engines,
            pools,
            embedder,
            stages=stages,
            calibrate_anew=calibrate_anew,
            cache=cache,
            answers=answers,
            cache_dir=folder,
            progress=progress,
            prepared=prepared,
        )


@contextlib.contextmanager
def load_models(
    settings: Settings, *, cache_dir: Path, progress: Progress = NO_PROGRESS
) -> Iterator[tuple[Mapping[str, Engine], SentenceTransformerEmbedder | None]]:
    """Engines and embedder alone, for several pipelines that share them by :func:`pipeline_from`. The engines are
    closed at the end of the block. Raises as :func:`load_pipeline`."""
    embedder = _embedder(settings, cache_dir, progress)
    with _engines(settings, engines_for(settings, STAGES, None), cache_dir, progress) as engines:
        try:
            yield engines, embedder
        finally:
            for engine in engines.values():
                engine.close()


def load_members(
    settings: Settings,
    members: Collection[str],
    *,
    stages: Collection[StageName] = STAGES,
    cache: RetrievalCache | None = None,
    answers: AnswerStore | None = None,
    cache_dir: Path | None = None,
    progress: Progress = NO_PROGRESS,
) -> MembersPipeline:
    """As :func:`load_pipeline`, for the members of the ensemble that this process hosts: the others are elsewhere."""
    folder = cache_dir or default_cache_dir()
    pools, embedder = load_pools(settings.pools), _embedder(settings, folder, progress)
    early: Mapping[str, BoundaryProposer] = {}
    if settings.proposer not in (None, *members) and "classify" in stages and weighs_boundaries(settings, pools):
        # What it proposes in the pools is what this process's members compare with. It is read once, then a file; so
        # it is loaded for that alone, before the members need the memory.
        with _engines(settings, [str(settings.proposer)], folder, progress) as visitors:
            early = _proposers(settings, stages, visitors, pools, folder, progress)
            for engine in visitors.values():
                engine.close()
    with _engines(settings, engines_for(settings, stages, members), folder, progress) as engines:
        retrieves = "extract" in stages and shows_demonstrations(settings)
        hosted = [name for name in settings.ensemble.members if name in members]
        surfaces = _surfaces(settings, engines, hosted, pools, folder, progress)
        retrievers = _retrievers(settings, pools, embedder, surfaces, folder, cache, progress, retrieves=retrieves)
        sources = {}
        proposers = early or _proposers(settings, stages, engines, pools, folder, progress)
        if "classify" in stages:
            sources = make_sources(
                settings,
                engines,
                pools,
                retrievers,
                embedder=embedder,
                folder=folder / FOLDER,
                progress=progress,
                proposers=proposers,
            )
        hosted_proposers = {} if early else proposers
        return MembersPipeline(
            settings, engines, pools, retrievers, sources, hosted_proposers, retrieves=retrieves, answers=answers
        )


def pipeline_from(
    settings: Settings,
    engines: Mapping[str, Engine],
    pools: Mapping[str, Pool],
    embedder: SentenceTransformerEmbedder | None,
    *,
    stages: Collection[StageName] = STAGES,
    calibrate_anew: bool = False,
    cache: RetrievalCache | None = None,
    answers: AnswerStore | None = None,
    cache_dir: Path,
    progress: Progress = NO_PROGRESS,
    prepared: PreparedEvidence = SHIPPED,
) -> Pipeline:
    """As :func:`load_pipeline`, from models and pools that are there already: pools' indexes and evidence are read from
    ``cache_dir``, or made. Several pipelines may share engines; ``embedder`` is None where :func:`needs_embedder`
    says so."""
    retrieves = "extract" in stages and shows_demonstrations(settings)
    surfaces = _surfaces(settings, engines, settings.ensemble.members, pools, cache_dir, progress)
    retrievers = _retrievers(settings, pools, embedder, surfaces, cache_dir, cache, progress, retrieves=retrieves)
    evidence = {}
    proposers = _proposers(settings, stages, engines, pools, cache_dir, progress, prepared)
    if "classify" in stages:
        evidence = make_evidence(
            settings,
            engines,
            pools,
            retrievers,
            embedder=embedder,
            folder=cache_dir / FOLDER,
            progress=progress,
            proposers=proposers,
            fresh=calibrate_anew,
            prepared=prepared,
        )
    return Pipeline(settings, engines, pools, retrievers, evidence, proposers, retrieves=retrieves, answers=answers)


def _embedder(settings: Settings, folder: Path, progress: Progress) -> SentenceTransformerEmbedder | None:
    return _prepared(settings, folder, progress) if needs_embedder(settings) else None


def _prepared(settings: Settings, folder: Path, progress: Progress) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(prepare(settings.retrieval.embedder, folder, progress))


@contextlib.contextmanager
def _engines(
    settings: Settings, names: Collection[str], folder: Path, progress: Progress
) -> Iterator[Mapping[str, Engine]]:
    """The members' engines; they are closed where the block fails."""
    engines: dict[str, Engine] = {}
    try:
        wanted = {name: settings.models[name] for name in names}
        with prepared_ahead((model.source for model in wanted.values() if model.engine != "instant"), folder):
            for name, placed in place(wanted, cache_dir=folder, progress=progress).items():
                engines[name] = load_engine(name, placed, cache_dir=folder, progress=progress)
        yield engines
    except BaseException:
        for engine in engines.values():
            engine.close()
        raise


def _proposers(
    settings: Settings,
    stages: Collection[StageName],
    engines: Mapping[str, Engine],
    pools: Mapping[str, Pool],
    cache_dir: Path,
    progress: Progress,
    prepared: PreparedEvidence = SHIPPED,
) -> Mapping[str, BoundaryProposer]:
    """Those that the stages need: to propose, or to know what would be proposed in the pool."""
    if not set(SPLITTABLE).intersection(stages):
        return {}
    return make_proposers(settings, engines, pools, folder=cache_dir / FOLDER, progress=progress, prepared=prepared)


def _retrievers(
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
    chosen = once(lambda: _prepared(settings, folder, progress) if embedder is None else embedder)

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


def _surfaces(
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
