"""The pools that a process hosts: those that are read, and those that will be when a document needs them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from typing_extensions import override

from el4ner.engines.wrapped import Call
from el4ner.errors import PoolReadingError
from el4ner.evidence import Evidence, Source
from el4ner.evidence.corrections_apart import NearSource
from el4ner.evidence.reading import Meanwhile
from el4ner.proposing.boundary_proposer import BoundaryProposer
from el4ner.stages.context import StageContext
from el4ner.text.lexicon import Lexicon
from el4ner.types import Speaker

__all__ = ["HostedPools", "PoolEvidence", "ReadPool"]


@dataclass(frozen=True, slots=True)
class PoolEvidence:
    """What comes of reading a pool. ``taught``: the entities of what it was taught.

    Of members whose process does not decide: ``sources``, by which they answer; ``speakers``: how those of the files
    describe themselves, by which they are weighed; ``left_out``: who found what is proposed in the pool's sentences,
    if that is not ``proposer``; ``near``: says what was taught and is like a candidate.
    """

    proposer: BoundaryProposer | None = None
    evidence: Evidence | None = None
    sources: Sequence[Source] = ()
    taught: Lexicon | None = None
    speakers: Sequence[Speaker] = ()
    left_out: BoundaryProposer | None = None
    near: NearSource | None = None


ReadPool = Callable[[Call, Meanwhile], PoolEvidence]
"""Reads a pool: the first argument makes the calls that ask a member, one for each slice of it. The second is called
now and then while another process reads it."""


class HostedPools(Mapping[str, StageContext]):
    """What stages need of each pool, by its name. Whoever asks for a pool that is not read waits until it is; what is
    read beside them they cannot wait for, and must not ask for.

    Args:
        ready: of pools that are read.
        unread: names of the others.
        read: reads one of them.
    """

    def __init__(
        self, ready: Mapping[str, StageContext], unread: Sequence[str], read: Callable[[str], StageContext]
    ) -> None:
        self._ready = dict(ready)
        self._names = (*ready, *unread)
        self._read = read
        self._beside: set[str] = set()

    @property
    def ready(self) -> Mapping[str, StageContext]:
        """Of the pools that are read. From any thread."""
        return self._ready.copy()

    @property
    def unread(self) -> list[str]:
        """The pools that nobody has needed so far. From any thread."""
        return [name for name in self._names if name not in self._ready]

    def replace(self, name: str, context: StageContext) -> None:
        """From now on the pool is this one."""
        self._ready[name] = context

    @contextmanager
    def read_beside(self, name: str) -> Iterator[None]:
        """A block in which another thread reads the pool. It needs the thread that would wait for it."""
        self._beside.add(name)
        try:
            yield
        finally:
            self._beside.discard(name)

    @property
    def beside(self) -> Collection[str]:
        """The pools that another thread reads."""
        return self._beside

    @override
    def __getitem__(self, name: str) -> StageContext:
        context = self._ready.get(name)
        if context is None:
            if name not in self._names:
                raise KeyError(name)
            if name in self._beside:
                raise PoolReadingError(f"pool {name!r} is being read: ask again when it is")
            context = self._ready[name] = self._read(name)
        return context

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    @override
    def __len__(self) -> int:
        return len(self._names)
