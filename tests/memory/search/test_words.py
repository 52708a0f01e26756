import sqlite3

import pytest

from looper.memory.search.words import Counter, Stemmer, terms_of, words_of
from tests.memory.search.corpus import memory, texts

PROSE = (
    "Flies DYING agreed caresses ponies sky rational aing uing by was relating 2x ice naïve Cafés straße ｗｉｄｅ 模型"
)


def test_words_are_letters_and_digits_only() -> None:
    assert words_of('self-attn "NEAR(" lr=0.04 snake_case c++') == [
        *("self", "attn", "near", "lr", "0", "04", "snake", "case", "c")
    ]


def test_stems_are_the_tokenizers_own() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE VIRTUAL TABLE t USING fts5 (x, tokenize='porter unicode61');"
        "CREATE VIRTUAL TABLE v USING fts5vocab (t, 'instance');"
    )
    connection.execute("INSERT INTO t VALUES (?)", (PROSE,))
    expected = [stem for (stem,) in connection.execute("SELECT term FROM v ORDER BY offset")]
    words = words_of(PROSE)
    stems = Stemmer().stems(words)
    assert [stems[word] for word in words] == expected


def test_a_stemmer_that_forgets_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looper.memory.search.words.KEPT", 3)
    stemmer = Stemmer()
    stemmer.stems(["apples", "pears"])
    assert stemmer.stems(["apples", "plums", "trees"]) == {"apples": "appl", "plums": "plum", "trees": "tree"}


def test_terms_are_distinct_stems_of_the_index_rarest_first() -> None:
    connection = memory([("", "training trains", ""), ("", "train a rare model", ""), ("", "model", "")])
    terms = terms_of(connection, "Trained TRAINING models rare absent rare")
    assert [(term.stem, term.rows) for term in terms] == [("rare", 1), ("model", 2), ("train", 2)]


@pytest.mark.parametrize("text", [PROSE, PROSE.encode("ascii", "ignore").decode(), "trained_models Training-runs a"])
def test_counting_passes_over_no_word_of_a_stem(text: str) -> None:
    stems = Stemmer().stems([*words_of(PROSE), "training", "models"])
    wanted = sorted(set(stems.values()))
    found = Stemmer().stems(words_of(text))
    expected = [sum(found[word] == stem for word in words_of(text)) for stem in wanted]
    assert Counter(wanted).counts([text, ""]) == [expected, [0] * len(wanted)]
    assert sum(expected) > 0


def test_counts_of_a_corpus_are_those_of_the_vocabulary() -> None:
    connection = memory(texts(50))
    terms = terms_of(connection, " ".join(body for _, body, _ in texts(50)))
    counter = Counter(term.stem for term in terms)
    rows = connection.execute("SELECT title || ' ' || body FROM chunk").fetchall()
    sums = [sum(column) for column in zip(*counter.counts([text for (text,) in rows]), strict=True)]
    vocabulary = dict(connection.execute("SELECT term, cnt FROM chunk_terms"))
    assert {term.stem: count for term, count in zip(terms, sums, strict=True)} == vocabulary
