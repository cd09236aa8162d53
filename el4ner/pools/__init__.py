"""Demonstration pools: labelled sentences that show the models, in context, what an entity is."""

from el4ner.pools.pool import LeftOut, Pool, PoolSentence
from el4ner.pools.read_options import Reading
from el4ner.pools.readers import load_pool, load_pools, read_conll, read_jsonl, reading_of, shipped_pools

__all__ = [
    "LeftOut",
    "Pool",
    "PoolSentence",
    "Reading",
    "load_pool",
    "load_pools",
    "read_conll",
    "read_jsonl",
    "reading_of",
    "shipped_pools",
]
