"""From the configuration to a pipeline that is ready to work: models, pools, their indexes and evidence.

Takes seconds, and minutes where weights have to be converted or a pool's evidence has to be read first.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from el4ner.config import Settings
from el4ner.engines.base import Engine, StateEngine
from el4ner.engines.placing import place
from el4ner.engines.registry import load_engine
from el4ner.engines.wrapped import Call
from el4ner.evidence import Evidence, Source
from el4ner.evidence.calibration import FOLDER
from el4ner.evidence.kept_states import last_kept
from el4ner.evidence.prepared import SHIPPED, PreparedEvidence
from el4ner.evidence.reading import NOT_AT_ALL, Meanwhile, PoolReading, UnreadPoolError
from el4ner.members_pipeline import MembersPipeline
from el4ner.models.prepare import default_cache_dir
from el4ner.models.preparing_ahead import prepared_ahead
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.participation import (
    SPLITTABLE,
    STAGES,
    StageName,
    engines_for,
    needs_embedder,
    shows_demonstrations,
    speaks_in_context,
)
from el4ner.pipeline import Pipeline
from el4ner.pool_retrievers import make_retrievers, pool_surfaces, prepared_embedder, taught_retrievers
from el4ner.pools import Pool, load_pools
from el4ner.proposing.boundary_proposer import BoundaryProposer
from el4ner.repeats import AnswerStore
from el4ner.retrieval import (
    RetrievalCache,
    SentenceTransformerEmbedder,
)
from el4ner.stages.hosted_pools import PoolEvidence, ReadPool
from el4ner.stages.pool_boundaries import make_proposers, weighs_boundaries
from el4ner.stages.pool_evidence import make_evidence, make_sources
from el4ner.stages.taught_evidence import TaughtEvidence
from el4ner.stages.teaching import PoolTeacher

__all__ = ["load_members", "load_models", "load_pipeline", "members_from", "pipeline_from"]

log = logging.getLogger(__name__)


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
    at_first_use: bool = False,
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
        at_first_use: a pool that would have to be read is read when its first document comes; ``progress`` is told of
            that too. Only where pools are read by hidden states: otherwise all are read now.

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
            at_first_use=at_first_use,
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
    at_first_use: bool = False,
) -> MembersPipeline:
    """As :func:`load_pipeline`, for the members of the ensemble that this process hosts: the others are elsewhere."""
    folder = cache_dir or default_cache_dir()
    pools, embedder = load_pools(settings.pools), _embedder(settings, folder, progress)
    early: Mapping[str, BoundaryProposer] = {}
    if settings.proposer not in (None, *members) and "classify" in stages and weighs_boundaries(settings, pools):
        # What it proposes in the pools is what this process's members compare with. It is read once, then a file; so
        # it is loaded for that alone, before the members need the memory.
        with _engines(settings, [str(settings.proposer)], folder, progress) as visitors:
            early = _proposers(settings, stages, visitors, pools, folder, PoolReading(progress))
            for engine in visitors.values():
                engine.close()
    with _engines(settings, engines_for(settings, stages, members), folder, progress) as engines:
        return members_from(
            settings,
            engines,
            members,
            pools,
            embedder,
            stages=stages,
            visitors=early,
            cache=cache,
            answers=answers,
            cache_dir=folder,
            progress=progress,
            at_first_use=at_first_use,
        )


def members_from(
    settings: Settings,
    engines: Mapping[str, Engine],
    members: Collection[str],
    pools: Mapping[str, Pool],
    embedder: SentenceTransformerEmbedder | None,
    *,
    stages: Collection[StageName] = STAGES,
    visitors: Mapping[str, BoundaryProposer] = MappingProxyType({}),
    cache: RetrievalCache | None = None,
    answers: AnswerStore | None = None,
    cache_dir: Path,
    progress: Progress = NO_PROGRESS,
    at_first_use: bool = False,
) -> MembersPipeline:
    """As :func:`load_members`, from models and pools that are there already. ``visitors``: who proposes in the pools'
    sentences, by the pool's name, where that is a member of another process."""
    retrieves = "extract" in stages and shows_demonstrations(settings)
    hosted = [name for name in settings.ensemble.members if name in members]
    surfaces = pool_surfaces(settings, engines, hosted, pools, cache_dir, progress)
    retrievers = make_retrievers(settings, pools, embedder, surfaces, cache_dir, cache, progress, retrieves=retrieves)

    def read(name: str, reading: PoolReading) -> PoolEvidence:
        hosted = {name: pools[name]}
        proposers = visitors or _proposers(settings, stages, engines, hosted, cache_dir, reading)
        sources: Mapping[str, Sequence[Source]] = {}
        if "classify" in stages:
            sources = make_sources(
                settings,
                engines,
                hosted,
                retrievers,
                embedder=embedder,
                folder=cache_dir / FOLDER,
                reading=reading,
                proposers=proposers,
            )
        found = proposers.get(name)
        if visitors:  # a visitor proposes nothing here
            return PoolEvidence(sources=sources.get(name, ()), left_out=found)
        return PoolEvidence(found, sources=sources.get(name, ()))

    later = at_first_use and _reads_states_alone(settings, engines)
    made, unread = _read_pools(pools, read, progress, cache_dir / FOLDER, later=later)
    return MembersPipeline(
        settings,
        engines,
        pools,
        retrievers,
        {name: of_pool.sources for name, of_pool in made.items()},
        {name: of_pool.proposer for name, of_pool in made.items() if of_pool.proposer is not None},
        retrieves=retrieves,
        answers=answers,
        unread=unread,
        teachers=_teachers(settings, engines, pools, embedder, cache_dir, cache, apart=True),
        left_out={name: of_pool.left_out for name, of_pool in made.items() if of_pool.left_out is not None},
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
    at_first_use: bool = False,
) -> Pipeline:
    """As :func:`load_pipeline`, from models and pools that are there already: pools' indexes and evidence are read from
    ``cache_dir``, or made. Several pipelines may share engines; ``embedder`` is None where :func:`needs_embedder`
    says so."""
    retrieves = "extract" in stages and shows_demonstrations(settings)
    surfaces = pool_surfaces(settings, engines, settings.ensemble.members, pools, cache_dir, progress)
    retrievers = make_retrievers(settings, pools, embedder, surfaces, cache_dir, cache, progress, retrieves=retrieves)

    def read(name: str, reading: PoolReading) -> PoolEvidence:
        hosted = {name: pools[name]}
        proposers = _proposers(settings, stages, engines, hosted, cache_dir, reading, prepared)
        evidence: Mapping[str, Evidence] = {}
        if "classify" in stages:
            evidence = make_evidence(
                settings,
                engines,
                hosted,
                retrievers,
                embedder=embedder,
                folder=cache_dir / FOLDER,
                reading=reading,
                proposers=proposers,
                fresh=calibrate_anew,
                prepared=prepared,
            )
        return PoolEvidence(proposers.get(name), evidence.get(name))

    later = at_first_use and _reads_states_alone(settings, engines)
    made, unread = _read_pools(pools, read, progress, cache_dir / FOLDER, later=later)
    return Pipeline(
        settings,
        engines,
        pools,
        retrievers,
        {name: of_pool.evidence for name, of_pool in made.items() if of_pool.evidence is not None},
        {name: of_pool.proposer for name, of_pool in made.items() if of_pool.proposer is not None},
        retrieves=retrieves,
        answers=answers,
        unread=unread,
        teachers=_teachers(settings, engines, pools, embedder, cache_dir, cache),
    )


def _teachers(
    settings: Settings,
    engines: Mapping[str, Engine],
    pools: Mapping[str, Pool],
    embedder: SentenceTransformerEmbedder | None,
    cache_dir: Path,
    cache: RetrievalCache | None,
    *,
    apart: bool = False,
) -> dict[str, PoolTeacher]:
    """Who makes of each pool, as it is taught, what the stages need. ``apart``: other members run elsewhere."""
    retriever = taught_retrievers(settings, embedder, cache)
    return {
        name: PoolTeacher(TaughtEvidence(settings, engines, pool, embedder, cache_dir / FOLDER, apart=apart), retriever)
        for name, pool in pools.items()
    }


def _read_pools(
    pools: Mapping[str, Pool],
    read: Callable[[str, PoolReading], PoolEvidence],
    progress: Progress,
    folder: Path,
    *,
    later: bool,
) -> tuple[dict[str, PoolEvidence], dict[str, ReadPool]]:
    """What is read of the pools, and how the others will be. ``later``: what is prepared or kept is used, and nothing
    is read now."""

    def read_now(name: str, call: Call, meanwhile: Meanwhile) -> PoolEvidence:
        return read(name, PoolReading(progress, meanwhile=lambda: meanwhile(last_kept(folder)), call=call))

    made: dict[str, PoolEvidence] = {}
    unread: dict[str, ReadPool] = {}
    for name in pools:
        try:
            made[name] = read(name, NOT_AT_ALL if later else PoolReading(progress))
        except UnreadPoolError:
            unread[name] = partial(read_now, name)
    if unread:
        log.info("pools are read when their first document comes", extra={"pools": list(unread)})
    return made, unread


def _reads_states_alone(settings: Settings, engines: Mapping[str, Engine]) -> bool:
    """Whether what is read of a pool are the members' hidden states."""
    method = settings.method
    shows_states = [isinstance(engine, StateEngine) for engine in engines.values()]
    return method.encoder == "members" and not any(
        speaks_in_context(method, shows_states=each) for each in shows_states
    )


def _embedder(settings: Settings, folder: Path, progress: Progress) -> SentenceTransformerEmbedder | None:
    return prepared_embedder(settings, folder, progress) if needs_embedder(settings) else None


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
    reading: PoolReading,
    prepared: PreparedEvidence = SHIPPED,
) -> Mapping[str, BoundaryProposer]:
    """Those that the stages need: to propose, or to know what would be proposed in the pool."""
    if not set(SPLITTABLE).intersection(stages):
        return {}
    return make_proposers(settings, engines, pools, folder=cache_dir / FOLDER, reading=reading, prepared=prepared)
