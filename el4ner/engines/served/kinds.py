"""The kinds of servers that are known."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from el4ner.engines.served.dialect import Dialect
from el4ner.engines.served.llama_cpp import LlamaCpp
from el4ner.engines.served.sglang import Sglang
from el4ner.engines.served.tabbyapi import TabbyApi
from el4ner.engines.served.vllm import Vllm

__all__ = ["KINDS"]

_ALL: Final[tuple[Dialect, ...]] = (LlamaCpp(), Sglang(), TabbyApi(), Vllm())
KINDS: Final[Mapping[str, Dialect]] = MappingProxyType({dialect.name: dialect for dialect in _ALL})
"""By name, in the order in which an unknown server is tried: the most particular pages first."""
