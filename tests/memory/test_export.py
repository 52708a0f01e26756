"""Everything out and in again; results.tsv; the table of a log and the win rates."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from looper.errors import StoreError
from looper.memory import events
from looper.memory.check import check
from looper.memory.export import export, restore, results
from looper.memory.overview import log, stats
from looper.memory.rows import Chunk, Decision, Experiment, Outcome, Role, Status, Verdict
from looper.memory.store import MemoryStore
from looper.proportions import wilson
from tests.memory import records_for_tests as one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with one.filled(tmp_path / "m.db") as store:
        store.add_paper(one.PAPER.model_copy(update={"sha": "bb"}), [*one.CHUNKS, Chunk(locator="§3", body="\x00 ü")])
        store.connection.execute("INSERT INTO embedding VALUES (5, 'hash', x'0001ff')")
    return tmp_path / "m.db"


def exported(path: Path) -> list[str]:
    out = io.StringIO()
    with MemoryStore.open(path, read_only=True) as store:
        count = export(store, out)
    lines = out.getvalue().splitlines(keepends=True)
    assert len(lines) == count
    return lines


def test_restored_is_the_same_store(path: Path, tmp_path: Path) -> None:
    lines = exported(path)
    assert restore(lines, tmp_path / "again.db") == len(lines) - 1
    assert exported(tmp_path / "again.db") == lines
    assert check(tmp_path / "again.db") == []
    with MemoryStore.open(path) as left, MemoryStore.open(tmp_path / "again.db") as right:
        assert left.experiments() == right.experiments()
        assert left.retrievals() == right.retrievals()
        assert left.evidence() == right.evidence()
        assert left.exposures() == right.exposures()
        assert left.chunks(one.PAPER.id) == right.chunks(one.PAPER.id)
        assert events.head(left.connection) == events.head(right.connection)
        for store in (left, right):
            found = store.connection.execute("SELECT rowid FROM chunk_text WHERE chunk_text MATCH 'multiplies'")
            assert found.fetchall() == [(4,)]
            assert store.connection.execute("SELECT vector FROM embedding").fetchall() == [(b"\x00\x01\xff",)]
        right.add_verdict(one.VERDICT.model_copy(update={"delta": 1.0}))
    assert check(tmp_path / "again.db") == []


def test_a_changed_export_is_refused_and_leaves_no_file(path: Path, tmp_path: Path) -> None:
    lines = exported(path)
    target = tmp_path / "again.db"
    changed = [line.replace('"metric":2.0', '"metric":1.0') for line in lines]
    rows = [old if '"table":"event"' in old else new for old, new in zip(lines, changed, strict=True)]
    wrong = {
        "event 7 .* was changed": changed,
        "metric is not what its event says": rows,
        "is not the one noted": [lines[0].replace('"head":"', '"head":"0'), *lines[1:]],
        "line 1 is not the first line": lines[1:],
        "line 3 is not a row": [*lines[:2], "{}\n", *lines[3:]],
        "line 4 is not a row.*columns of event": [*lines[:3], lines[3].replace('"kind"', '"kin) --"')],
        "does not fit the lines before": [lines[0], *lines[2:]],
        "has version 99": [json.dumps({"looper-memory": 99, "events": 0, "head": ""})],
    }
    for words, text in wrong.items():
        with pytest.raises(StoreError, match=words):
            restore(text, target)
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith("again")] == []
    with pytest.raises(StoreError, match="exists; restore into a new file"):
        restore(lines, path)


def test_results_have_autoresearchs_columns(path: Path) -> None:
    with MemoryStore.open(path) as store:
        for number, (status, decision) in enumerate(
            [(Status.CRASH, Decision.CRASH), (Status.OK, Decision.INCONCLUSIVE), (Status.OK, None)], start=2
        ):
            id = f"first:{number}"
            store.add_experiment(Experiment(id=id, at=1.0, campaign="first", number=number, parent=one.BASELINE.id))
            metric = None if status is Status.CRASH else 2.5
            store.add_outcome(Outcome(experiment=id, status=status, metric=metric))
            if decision:
                store.add_verdict(Verdict(experiment=id, baseline=one.BASELINE.id, decision=decision))
        assert results(store, "first").splitlines() == [
            "commit\tval_bpb\tmemory_gb\tstatus\tdescription",
            "aaaaaaa\t2.250000\t3.0\tkeep\t",
            "bbbbbbb\t2.000000\t\tkeep\tgate the layer",
            "2\t0.000000\t0.0\tcrash\t",
            "3\t2.500000\t\tdiscard\t",
        ]
        with pytest.raises(StoreError, match=r"no campaign 'second'.*'first'"):
            results(store, "second")
        store.add_experiment(Experiment(id="l", at=1.0, campaign="first"))
        store.add_outcome(Outcome(experiment="l", status=Status.OK, metric=1.0, metric_name="loss"))
        with pytest.raises(StoreError, match="measures val_bpb and loss"):
            results(store, "first")


def test_the_log_shows_the_last_experiments(path: Path) -> None:
    with MemoryStore.open(path) as store:
        store.add_experiment(Experiment(id="open", at=1.0, campaign="other"))
        assert [row.experiment for row in log(store, limit=2)] == [one.EXPERIMENT.id, "open"]
        (row,) = log(store, campaign="first", limit=1)
        assert (row.metric, row.delta, row.decision, row.methods) == (2.0, 0.25, Decision.KEEP, ("swiglu",))
        (row,) = log(store, campaign="other")
        assert (row.status, row.metric, row.decision) == (None, None, None)


def test_statistics_rank_by_what_is_sure(tmp_path: Path) -> None:
    with one.filled(tmp_path / "m.db") as store:
        decisions = [Decision.KEEP] * 8 + [Decision.DISCARD] * 2 + [Decision.INCONCLUSIVE, Decision.CRASH, None]
        for number, decision in enumerate(decisions):
            id = f"x{number}"
            store.add_experiment(Experiment(id=id, at=1.0, methods={"muon": Role.PRESENT}))
            if decision:
                store.add_verdict(Verdict(experiment=id, baseline="", decision=decision))
        found = stats(store)
    muon, swiglu = found.methods
    assert (muon.method, swiglu.method) == ("muon", "swiglu")
    assert (muon.tried, muon.kept, muon.discarded, muon.inconclusive, muon.crashed, muon.open) == (13, 8, 2, 1, 1, 1)
    assert (muon.win_rate, swiglu.win_rate) == (0.8, 1.0)
    assert muon.win_rate_low == pytest.approx(0.490, abs=5e-4)
    assert swiglu.win_rate_low == pytest.approx(0.2065, abs=5e-4)
    assert found.counts == {
        "paper": 1, "chunk": 2, "method": 1, "retrieval": 1, "experiment": 15, "outcome": 2, "verdict": 13, "event": 34
    }  # fmt: skip
    assert found.bytes > 10_000


def test_wilson_by_hand() -> None:
    z, n, p = 1.959963984540054, 10, 0.8
    middle, half = (p + z * z / (2 * n)), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert wilson(8, 10) == pytest.approx(((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)))
