"""Pools that are taught while a pipeline works: what their files have, what they were taught, what comes of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from el4ner.engines.wrapped import Call
from el4ner.pools import Pool
from el4ner.pools.taught import TaughtPool, taught_pool
from el4ner.retrieval import Retriever
from el4ner.stages.hosted_pools import PoolEvidence
from el4ner.stages.taught_evidence import TaughtEvidence

__all__ = ["PoolReadBeside", "PoolTeacher", "PoolTeaching", "PreparedPool"]


@dataclass(frozen=True, slots=True)
class PoolTeacher:
    """What makes of a taught pool what the stages need. ``retriever``: of a pool, without a file."""

    evidence: TaughtEvidence
    retriever: Callable[[Pool], Retriever]


@dataclass(frozen=True, slots=True)
class PreparedPool:
    """A taught pool that stages can go by. ``made`` None: its files were not read when it was prepared."""

    taught: TaughtPool
    retriever: Retriever
    made: PoolEvidence | None


@dataclass(frozen=True, slots=True)
class PoolReadBeside:
    """A pool that was read beside the work on others. ``files``: what came of its files; ``made``: and of what it was
    taught."""

    taught: TaughtPool
    files: PoolEvidence
    made: PoolEvidence


class PoolTeaching:
    """The hosted pools. One thread at a time prepares, and one renews; :meth:`read` and :meth:`use` are the pipeline's.

    Args:
        base: the pools' files, by name.
        teachers: by the pool's name.
    """

    def __init__(self, base: Mapping[str, Pool], teachers: Mapping[str, PoolTeacher]) -> None:
        self.base = dict(base)
        self._teachers = dict(teachers)
        self._made: dict[str, PoolEvidence] = {}
        self._in_use = {name: taught_pool(pool, ()) for name, pool in base.items()}

    def in_use(self, name: str) -> TaughtPool:
        """What documents of the pool are tagged by now. From any thread."""
        return self._in_use[name]

    def read(self, name: str, made: PoolEvidence, call: Call) -> PoolEvidence:
        """The files of a pool were read, with this evidence: the evidence of what it was taught."""
        self._made[name] = made
        return self._of(name, self._in_use[name], made, call)

    def _of(self, name: str, taught: TaughtPool, made: PoolEvidence, call: Call) -> PoolEvidence:
        if taught.pool is taught.base:
            return made
        teacher = self._teachers[name]
        return teacher.evidence.of(taught, made, teacher.retriever(taught.pool), call)

    def read_beside(self, name: str, files: PoolEvidence, call: Call) -> PoolReadBeside:
        """As :meth:`read`, from any thread, and for :meth:`first_use`: ``call`` makes every call of a model."""
        taught = self._in_use[name]
        return PoolReadBeside(taught, files, self._of(name, taught, files, call))

    def first_use(self, name: str, read: PoolReadBeside) -> bool:
        """Go by it from now on. False: the pool was taught something since, and :meth:`read_beside` has to be asked
        again."""
        if self._in_use[name] is not read.taught:
            return False
        self._made[name] = read.files
        return True

    def prepare(self, name: str, taught: TaughtPool, call: Call) -> PreparedPool:
        """What the stages need of the pool ``name`` as it is taught. From any thread: ``call`` makes every call of a
        model."""
        teacher, made = self._teachers[name], self._made.get(name)
        retriever = teacher.retriever(taught.pool)
        if made is not None and taught.pool is not taught.base:
            made = teacher.evidence.of(taught, made, retriever, call)
        return PreparedPool(taught, retriever, made)

    def is_due(self, name: str, taught: TaughtPool) -> bool:
        """Whether weights and boundaries of the pool are to be estimated anew."""
        made = self._made.get(name)
        return made is not None and self._teachers[name].evidence.is_due(taught, made)

    def renew(self, name: str, taught: TaughtPool, call: Call) -> None:
        """Estimate them, for whoever prepares the pool afterwards. May take long: beside what else is prepared."""
        teacher, made = self._teachers[name], self._made[name]
        teacher.evidence.renew(taught, made, teacher.retriever(taught.pool), call)

    def use(self, name: str, prepared: PreparedPool) -> bool:
        """Go by it from now on. False: the pool's files were read since it was prepared, which has to be done again."""
        if prepared.made is None and name in self._made:
            return False
        self._in_use[name] = prepared.taught
        return True
