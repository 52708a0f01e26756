"""The store: what is added can be read, repeated, superseded; references are checked; concurrency loses nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from looper.errors import StoreError
from looper.memory import events
from looper.memory.check import check
from looper.memory.rows import Chunk, Decision, Experiment, Origin, Role
from looper.memory.store import BATCH, MemoryStore
from tests.memory import records_for_tests as one


def test_what_is_added_is_read_again(tmp_path: Path) -> None:
    with one.filled(tmp_path / "new" / "m.db"):
        pass
    with MemoryStore.open(tmp_path / "new" / "m.db", read_only=True) as store:
        assert store.paper(one.PAPER.id) == one.PAPER
        assert store.papers(Origin.ARXIV) == [one.PAPER]
        assert store.papers(Origin.FILE) == []
        assert store.chunk(2) == (one.PAPER, one.CHUNKS[1])
        assert store.chunks(one.PAPER.id) == [(1, one.CHUNKS[0]), (2, one.CHUNKS[1])]
        assert store.methods() == [store.method("swiglu")] == [one.METHOD]
        kept = store.retrieval("r1")
        assert [item.attempted for item in kept.items] == [False, True]
        assert kept.model_copy(update={"items": one.RETRIEVAL.items}) == one.RETRIEVAL
        assert store.retrievals("first") == [kept]
        assert store.retrievals("second") == []
        assert store.experiments() == [one.BASELINE, one.EXPERIMENT] == store.experiments("first", "nano/cpu")
        assert store.experiments(scope="nano") == []
        assert store.outcome(one.EXPERIMENT.id) == one.OUTCOMES[1]
        assert store.verdict(one.EXPERIMENT.id) == one.VERDICT
        assert store.verdict(one.BASELINE.id) is None


def test_evidence_and_exposures_count_experiments(tmp_path: Path) -> None:
    with one.filled(tmp_path / "m.db") as store:
        unfinished = Experiment(id="open", at=2.0, scope="nano")
        store.add_experiment(unfinished)
        store.add_retrieval(one.RETRIEVAL.model_copy(update={"id": "r2"}))
        first, second = store.evidence()
        assert (first.order, first.methods, first.delta, first.query) == (0, (), None, "")
        assert (second.order, second.methods, second.delta, second.sigma) == (1, ("swiglu",), 0.25, 0.125)
        assert (second.query, second.campaign, second.wall) == ("MLP gated", "first", 12.5)
        seen = [(e.subject, e.order, e.attempted) for e in store.exposures()]
        assert seen == [("muon", 0, False), ("swiglu", 0, True), ("muon", 3, False), ("swiglu", 3, False)]
        asked = [(e.subject, e.scope, e.order, e.attempted) for e in store.query_exposures()]
        assert asked == [("MLP gated", "nano/cpu", 0, True), ("MLP gated", "nano/cpu", 3, False)]


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    with one.filled(tmp_path / "m.db") as store:
        before = events.head(store.connection)
        assert store.add_paper(one.PAPER, one.CHUNKS) is False
        assert store.add_methods([one.METHOD]) == 0
        store.add_retrieval(one.RETRIEVAL)
        store.add_experiment(one.EXPERIMENT)
        store.add_outcome(one.OUTCOMES[1])
        store.add_verdict(one.VERDICT)
        assert events.head(store.connection) == before


def test_another_record_under_the_same_id_is_refused(tmp_path: Path) -> None:
    with one.filled(tmp_path / "m.db") as store:
        with pytest.raises(StoreError, match="holds another experiment of 'first:bbbbbbbbbb'"):
            store.add_experiment(one.EXPERIMENT.model_copy(update={"diff": "other"}))
        with pytest.raises(StoreError, match="holds another outcome"):
            store.add_outcome(one.OUTCOMES[1].model_copy(update={"metric": 1.0}))
        with pytest.raises(StoreError, match="holds another retrieval"):
            store.add_retrieval(one.RETRIEVAL.model_copy(update={"goal": "other"}))


def test_a_second_verdict_and_a_changed_method_supersede(tmp_path: Path) -> None:
    with one.filled(tmp_path / "m.db") as store:
        store.add_verdict(one.VERDICT.model_copy(update={"decision": Decision.DISCARD, "delta": -0.5}))
        store.add_methods([one.METHOD.model_copy(update={"summary": "Other words"})])
        assert store.evidence()[1].delta == -0.5
        for kind in ("verdict", "method"):
            old, new = events.read(store.connection, kind=kind)
            assert new.supersedes == old.id
        words = store.connection.execute("SELECT summary FROM method_text WHERE method_text MATCH 'words'").fetchall()
        assert words == [("Other words",)]
    assert check(tmp_path / "m.db") == []


def test_unknown_references_name_the_id(tmp_path: Path) -> None:
    with one.filled(tmp_path / "m.db") as store:
        before = events.head(store.connection)
        lost = Experiment(id="x", at=1.0)
        with pytest.raises(StoreError, match="experiment 'x' names retrieval 'r9'"):
            store.add_experiment(lost.model_copy(update={"retrieval": "r9"}))
        with pytest.raises(StoreError, match="experiment 'x' names experiment 'gone'"):
            store.add_experiment(lost.model_copy(update={"parent": "gone"}))
        with pytest.raises(StoreError, match="outcome of 'x' names experiment 'x'"):
            store.add_outcome(one.OUTCOMES[0].model_copy(update={"experiment": "x"}))
        with pytest.raises(StoreError, match="names experiment 'gone'"):
            store.add_verdict(one.VERDICT.model_copy(update={"baseline": "gone"}))
        items = (one.RETRIEVAL.items[1].model_copy(update={"chunk": 99}),)
        with pytest.raises(StoreError, match="item 2 of retrieval 'r2' names chunk 99"):
            store.add_retrieval(one.RETRIEVAL.model_copy(update={"id": "r2", "items": items}))
        assert events.head(store.connection) == before
        for read in (store.paper, store.method, store.retrieval, store.experiment):
            with pytest.raises(StoreError, match="'nothing'"):
                read("nothing")


def test_what_json_or_sqlite_cannot_hold_is_said(tmp_path: Path) -> None:
    with one.filled(tmp_path / "m.db") as store:
        before = events.head(store.connection)
        with pytest.raises(StoreError, match=r"'x' cannot be stored.*finite"):
            store.add_experiment(Experiment(id="x", at=float("nan")))
        with pytest.raises(StoreError, match="cannot be stored"):
            store.add_experiment(Experiment(id="x", at=1.0, description="\ud800"))
        with pytest.raises(StoreError, match="64 bits"):
            store.add_experiment(Experiment(id="x", at=1.0, seed=2**63))
        with pytest.raises(StoreError, match="use add_verdict"):
            store.record("verdict", "x", {})
        with pytest.raises(StoreError, match="cannot be stored"):
            store.record("note", "x", {"path": tmp_path})
        assert events.head(store.connection) == before
        store.record("note", "x", {"still": "writable"})


def test_another_text_replaces_the_passages_and_search_follows(tmp_path: Path) -> None:
    with one.filled(tmp_path / "m.db") as store:
        assert store.add_paper(one.PAPER.model_copy(update={"sha": "bb"}), [Chunk(locator="§9", body="pineapple")])
        assert [(id, chunk.locator) for id, chunk in store.chunks(one.PAPER.id)] == [(3, "§9")]
        count = "SELECT count(*) FROM chunk_text WHERE chunk_text MATCH ?"
        assert store.connection.execute(count, ("pineapple",)).fetchone() == (1,)
        assert store.connection.execute(count, ("gated",)).fetchone() == (0,)
        assert store.retrieval("r1").items[1].chunk is None, "a chunk's id is never given to another text"
    assert check(tmp_path / "m.db") == []


@pytest.mark.parametrize("old", [1, 2 * BATCH + 1])
def test_a_long_text_is_written_in_batches(tmp_path: Path, old: int) -> None:
    path = tmp_path / "m.db"
    chunks = [Chunk(locator=str(n), body=f"word{n}") for n in range(2 * BATCH + 1)]
    with MemoryStore.open(path) as store:
        assert store.add_paper(one.PAPER, chunks[:old])
        assert store.add_paper(one.PAPER.model_copy(update={"sha": "bb"}), chunks)
        assert store.add_paper(one.PAPER.model_copy(update={"sha": "bb"}), chunks) is False
        assert [chunk for _, chunk in store.chunks(one.PAPER.id)] == chunks
    assert check(path) == []


def test_a_long_text_that_was_cut_off_is_listed_and_completed(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    chunks = [Chunk(locator=str(n), body=f"word{n}") for n in range(2 * BATCH + 1)]
    with MemoryStore.open(path) as store:
        store.connection.execute(
            "CREATE TEMP TRIGGER stop BEFORE INSERT ON chunk WHEN new.position > 700 "
            "BEGIN SELECT RAISE (ABORT, 'the power fails'); END"
        )
        with pytest.raises(StoreError, match="the power fails"):
            store.add_paper(one.PAPER, chunks)
    assert [problem for problem in check(path) if "ingest it again" in problem] == check(path) != []
    with MemoryStore.open(path) as store:
        assert len(store.chunks(one.PAPER.id)) == BATCH
        assert store.add_paper(one.PAPER, chunks)
        assert [chunk for _, chunk in store.chunks(one.PAPER.id)] == chunks
    assert check(path) == []


def test_two_ingestions_of_one_paper_leave_one_text(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    MemoryStore.open(path).close()
    texts = [[Chunk(locator=str(n), body=f"{word}{n}") for n in range(1800)] for word in ("left", "right")]
    barrier = threading.Barrier(2)

    def ingest(n: int) -> None:
        with MemoryStore.open(path) as store:
            barrier.wait()
            store.add_paper(one.PAPER.model_copy(update={"sha": str(n)}), texts[n])

    threads = [threading.Thread(target=ingest, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with MemoryStore.open(path, read_only=True) as store:
        kept = [chunk for _, chunk in store.chunks(one.PAPER.id)]
        assert kept == texts[int(store.paper(one.PAPER.id).sha)]
    assert check(path) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    config=st.dictionaries(st.text("ab\x00é"), st.floats(allow_nan=False, allow_infinity=False) | st.none()),
    number=st.integers(-(2**63), 2**63 - 1),
)
def test_any_record_comes_back(tmp_path: Path, text: str, config: dict[str, float | None], number: int) -> None:
    (tmp_path / "m.db").unlink(missing_ok=True)
    given = Experiment(
        id="x" + text, at=0.1, description=text, config=config, seed=number, methods={text: Role.PRESENT}
    )
    with MemoryStore.open(tmp_path / "m.db") as store:
        store.add_experiment(given)
        assert store.experiments() == [given]
        assert store.experiment(given.id).config_hash == given.config_hash
    assert check(tmp_path / "m.db") == []
