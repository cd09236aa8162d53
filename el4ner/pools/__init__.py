"""Demonstration pools: labelled sentences that show the models, in context, what an entity is."""

from el4ner.pools.pool import Pool, PoolSentence
from el4ner.pools.readers import load_pool, read_conll, read_jsonl, shipped_pools

__all__ = ["Pool", "PoolSentence", "load_pool", "read_conll", "read_jsonl", "shipped_pools"]
