"""`retrieval=tfidf`: past sessions by TF-IDF and cosine, the classic baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from looper.errors import MachineError
from looper.memory.knowledge import SessionKnowledge
from looper.memory.sessions import Session, texts
from looper.memory.store import MemoryStore

DIGITS = 9
"""Cosines are compared to so many digits: the last ones depend on the order of summing."""


@dataclass(frozen=True, kw_only=True)
class TfIdf(SessionKnowledge):
    """Ranks sessions by the cosine of TF-IDF vectors (scikit-learn's settings), fitted to the sessions themselves."""

    def rank(self, store: MemoryStore, candidates: Sequence[Session], text: str) -> list[Session]:
        """Return the candidates that share a word with the text, best first. Raises MachineError without the extra."""
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
        except ImportError as error:
            raise MachineError(
                f"retrieval=tfidf needs scikit-learn ({error}): pip install 'looper[tfidf]', or choose retrieval=fts, "
                "which needs nothing"
            ) from error
        documents = texts(store, list(candidates))
        if not any(_has_word(document) for document in documents):
            return []
        vectorizer = TfidfVectorizer(token_pattern=r"\w+")
        matrix = vectorizer.fit_transform(documents)  # (sessions, words), rows of length 1
        cosines = (matrix @ vectorizer.transform([text]).T).toarray().ravel()
        scores = {n: round(float(cosine), DIGITS) for n, cosine in enumerate(cosines) if cosine > 0.0}
        return [candidates[n] for n in sorted(scores, key=lambda n: (-scores[n], n))]


def _has_word(text: str) -> bool:
    return any(letter.isalnum() or letter == "_" for letter in text)
