"""Stage 1: which pool sentences are shown to the models (arXiv 2505.23038, section 3.1)."""

from el4ner.retrieval.cache import RetrievalCache
from el4ner.retrieval.embedder import Embedder, RememberingEmbedder, SentenceTransformerEmbedder
from el4ner.retrieval.index import PoolIndex, PoolSurfaces
from el4ner.retrieval.retriever import Retriever, UnshownRetriever, make_retriever

__all__ = [
    "Embedder",
    "PoolIndex",
    "PoolSurfaces",
    "RememberingEmbedder",
    "RetrievalCache",
    "Retriever",
    "SentenceTransformerEmbedder",
    "UnshownRetriever",
    "make_retriever",
]
