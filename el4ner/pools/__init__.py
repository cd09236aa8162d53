"""Demonstration pools: labelled sentences that show the models, in context, what an entity is."""

from el4ner.pools.pool import LeftOut, Pool, PoolSentence
from el4ner.pools.readers import load_pool, load_pools, read_conll, read_jsonl, shipped_pools
from el4ner.pools.reading import Reading

__all__ = [
    "LeftOut",
    "Pool",
    "PoolSentence",
    "Reading",
    "load_pool",
    "load_pools",
    "read_conll",
    "read_jsonl",
    "shipped_pools",
]
