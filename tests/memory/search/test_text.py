import random
import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from looper.memory.search import maxscore, text
from looper.memory.search.postings import Scored, TextIndex
from looper.memory.search.text import Level, rank
from looper.memory.search.words import Term, terms_of
from tests.memory.search.corpus import STEMS, memory, naive, texts


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    rows = texts(2000)
    stream = random.Random(5)
    # Rare words, so that the bound lets frequent ones go unread.
    rows = [
        (title, body if place % 3 else f"{body} rare{stream.randrange(60)} odd{stream.randrange(9)}", "")
        for place, (title, body, _) in enumerate(rows)
    ]
    made = memory(rows)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def ask_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maxscore, "CHEAP", 0)


def questions(count: int) -> list[list[str]]:
    stream = random.Random(7)
    rare = [*(f"rare{n}" for n in range(60)), *(f"odd{n}" for n in range(9))]
    return [
        [*stream.sample(STEMS, stream.randrange(0, 9)), *stream.sample(rare, stream.randrange(1, 4))]
        for _ in range(count)
    ]


def index_of(connection: sqlite3.Connection) -> TextIndex:
    index = TextIndex(connection)
    index.refresh()
    return index


class Reading(TextIndex):
    """Notes what is read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.lists: list[str] = []
        self.together = 0

    def scored(self, term: Term) -> Scored:
        self.lists.append(term.stem)
        return super().scored(term)

    def scored_by_both(self, some: Sequence[Term], others: Sequence[Term]) -> Scored:
        self.together += 1
        return super().scored_by_both(some, others)


def test_exact_is_the_order_and_the_score_of_fts5(connection: sqlite3.Connection) -> None:
    kept = index_of(connection)
    for words in questions(60):
        expected = naive(connection, words, 10)
        for index in (index_of(connection), kept):
            found = rank(index, terms_of(connection, " ".join(words)), 10, Level.EXACT)
            assert [row for row, _ in found] == [row for row, _ in expected]
            assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=2e-9)


def test_exact_leaves_lists_unread_and_takes_both_ways_to_finish(connection: sqlite3.Connection) -> None:
    unread = together = 0
    for words in questions(60):
        index = Reading(connection)
        index.refresh()
        terms = terms_of(connection, " ".join(words))
        rank(index, terms, 3, Level.EXACT)
        unread += len(terms) > len(index.lists) and not index.together
        together += index.together
    assert unread > 0
    assert together > 0


def test_scores_from_texts_are_those_of_fts5(connection: sqlite3.Connection) -> None:
    words = [STEMS[0], STEMS[9], "rare7"]
    expected = dict(naive(connection, words, 5000))
    found = index_of(connection).score(terms_of(connection, " ".join(words)), list(expected))
    assert found == pytest.approx(expected, abs=2e-9)


@pytest.mark.parametrize("level", list(Level))
def test_every_level_answers_the_same_whatever_is_in_memory(connection: sqlite3.Connection, level: Level) -> None:
    kept = index_of(connection)
    asked = questions(15)
    first = [rank(kept, terms_of(connection, " ".join(words)), 10, level) for words in asked]
    assert first == [rank(kept, terms_of(connection, " ".join(words)), 10, level) for words in asked]
    assert first == [rank(index_of(connection), terms_of(connection, " ".join(words)), 10, level) for words in asked]
    assert all(len(found) == 10 for found in first)


def test_less_pruning_is_nearer_to_exact(connection: sqlite3.Connection) -> None:
    index, shares = index_of(connection), []
    exact = {" ".join(words): {row for row, _ in naive(connection, words, 10)} for words in questions(30)}
    for level in Level:
        found = {asked: {row for row, _ in rank(index, terms_of(connection, asked), 10, level)} for asked in exact}
        shares.append(sum(len(found[asked] & exact[asked]) for asked in exact) / 300)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0
    assert shares[2] >= 0.9
    assert shares[4] < 1.0


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("words", [STEMS, STEMS[:1], STEMS[-1:]])
@pytest.mark.parametrize("counted", [0, text.COUNTED])
def test_a_mask_loses_no_row(
    connection: sqlite3.Connection, level: Level, words: list[str], counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "COUNTED", counted)
    index = index_of(connection)
    found = dict(naive(connection, words, 5000))
    mask = np.zeros(index.highest + 1, np.bool_)
    mask[sorted(found)[::20]] = True
    expected = [row for row in found if mask[row]]
    terms = terms_of(connection, " ".join(words))
    assert [row for row, _ in rank(index, terms, len(expected) + 1, level, mask)] == expected
    assert len(expected) > 5


@pytest.mark.parametrize("words", [STEMS[:1], STEMS[5:6]])
@pytest.mark.parametrize("counted", [0, text.COUNTED])
def test_for_a_single_frequent_word_titles_choose(
    connection: sqlite3.Connection, words: list[str], counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "COUNTED", counted)
    term = terms_of(connection, words[0])
    index = index_of(connection)
    assert len(index.holding(term[0]).rows) > 150
    expected = [row for row, _ in naive(connection, words, 10)]
    for mask in (None, np.ones(index.highest + 1, np.bool_)):
        found = [row for row, _ in rank(index, term, 10, Level.BALANCED, mask)]
        assert len(set(found) & set(expected)) >= 9


def test_lists_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(memory([("", "alpha beta", ""), ("", "beta gamma", "")]))
    alpha, beta = terms_of(index.connection, "alpha beta")
    monkeypatch.setattr("looper.memory.search.postings.CACHE", index.scored(beta).size)
    index.scored(alpha)
    assert (index.has_scores(alpha), index.has_scores(beta)) == (True, False)


def test_lists_are_dropped_when_the_index_changes() -> None:
    connection = memory([("", "alpha beta", ""), ("", "beta gamma", "")])
    index = index_of(connection)
    assert len(index.holding(terms_of(connection, "beta", index.known)[0]).rows) == 2
    connection.execute("DELETE FROM chunk WHERE id = 2")
    connection.execute("INSERT INTO chunk VALUES (2, 'p0', 9, '', '', 'alpha delta', '')")  # as many rows and words
    index.refresh()
    assert [row for row, _ in rank(index, terms_of(connection, "delta", index.known), 5, Level.FAST)] == [2]
    assert [row for row, _ in rank(index, terms_of(connection, "beta", index.known), 5, Level.FAST)] == [1]
