"""Search over the memory: words by BM25, identifiers by their parts, vectors where there are any, fused by rank."""

from looper.memory.search.fusion import Hit
from looper.memory.search.search import Searcher, search, search_methods
from looper.memory.search.text import Level
from looper.memory.search.vectors import Vectors, add_vectors

__all__ = ["Hit", "Level", "Searcher", "Vectors", "add_vectors", "search", "search_methods"]
