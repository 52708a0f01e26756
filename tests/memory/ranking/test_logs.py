"""Reading logs: deltas against the best kept metric, crashes apart, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from looper.errors import StoreError
from looper.memory.ingestion.results_table import COLUMNS
from looper.memory.ranking.logs import log_of, read_log, words_of
from tests.memory.ranking.rows import SIGMA, tried

ROWS = [
    ("a", "1.0", "4", "keep", "baseline"),
    ("b", "0.9", "4", "keep", "raise the matrix LR to 0.04"),
    ("c", "0.95", "4", "discard", "wider MLP"),
    ("d", "0.000000", "0.0", "crash", "double batch"),
    ("e", "0.88", "4", "keep", 'a "quoted idea'),
]


def written(folder: Path, rows: list[tuple[str, ...]], head: tuple[str, ...] = COLUMNS) -> Path:
    path = folder / "results.tsv"
    path.write_text("\n".join("\t".join(row) for row in (head, *rows)) + "\n")
    return path


def test_a_results_file_is_read_as_differences_to_the_best_kept(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, ROWS), sigma=0.01)
    assert [arm.name for arm in log.arms] == ["b", "c", "d", "e"]
    assert [arm.delta for arm in log.arms] == [pytest.approx(0.1), pytest.approx(-0.05), None, pytest.approx(0.02)]
    assert (log.baseline, log.sigma) == (1.0, 0.01)
    assert log.arms[0].subjects == ("raise", "matrix", "lr")


def test_noise_is_estimated_from_the_bulk_where_it_is_not_given(tmp_path: Path) -> None:
    assert read_log(written(tmp_path, ROWS)).sigma == pytest.approx(1.4826 * 0.07)


def test_evidence_is_read_back(tmp_path: Path) -> None:
    evidence = [tried(1, "k", None), tried(0, "m", 2.0)]
    path = tmp_path / "evidence.jsonl"
    path.write_text("".join(e.model_dump_json() + "\n" for e in evidence))
    log = read_log(path)
    assert log == log_of(evidence)
    assert [(arm.subjects, arm.delta) for arm in log.arms] == [(("m",), pytest.approx(2 * SIGMA)), (("k",), None)]
    assert log.sigma == SIGMA


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[3]], "baseline that ran"),
        ([ROWS[0]], "nothing to replay"),
        (ROWS[:2], "the noise of .* is 0"),
    ],
)
def test_a_damaged_log_is_refused_with_its_line(tmp_path: Path, rows: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        read_log(written(tmp_path, rows))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="baseline that ran"):
        read_log(written(tmp_path, [], head=("when", "what")))
    with pytest.raises(StoreError, match="cannot be read"):
        read_log(tmp_path / "none.tsv")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    with pytest.raises(StoreError, match=r"bad\.jsonl:1 is no evidence"):
        read_log(bad)


def test_words_are_told_apart_without_numbers() -> None:
    assert words_of("Set EMBEDDING_LR to 0.6, then the embedding decay") == ("set", "embedding", "lr", "then", "decay")


def test_a_table_is_read_as_import_reads_it(tmp_path: Path) -> None:
    rows = [*ROWS, ("f", "high", "4", "keep", "x"), ("0a1b", "0.8", "4", "kept"), ("0a1c", "0.7", "4", "fine", "y")]
    log = read_log(written(tmp_path, rows, head=("commit", "val_loss", "memory_gb", "status", "description")))
    deltas = [arm.delta for arm in log.arms[-3:]]
    assert deltas == [None, pytest.approx(0.08), pytest.approx(0.1)]
    assert any("'high' is no number" in note for note in log.notes)
    assert any("unknown status 'fine'" in note for note in log.notes)


def test_evidence_without_methods_is_told_apart_by_its_descriptions() -> None:
    evidence = [
        tried(0, "", 0.0, description="baseline").model_copy(update={"delta": None}),
        tried(1, "", 1.0, description="Raise the matrix LR", query="muon"),
        tried(2, "", None, description="double batch"),
        tried(3, "", 2.0, query="longer warmup"),
        tried(4, "m", 1.5, description="tune m"),
    ]
    log = log_of(evidence)
    assert [(arm.name, arm.subjects) for arm in log.arms] == [
        ("e1", ("raise", "matrix", "lr")),
        ("e2", ("double", "batch")),
        ("e3", ("longer", "warmup")),
        ("e4", ("m",)),
    ]
    assert log.arms[0].text == "Raise the matrix LR"


def test_differences_of_several_scopes_or_metrics_are_not_mixed() -> None:
    with pytest.raises(StoreError, match=r"2 scopes, 'a/b', 'x'; choose one with --scope"):
        log_of([tried(0, "m", 1.0), tried(1, "m", 1.0, scope="x")])
    with pytest.raises(StoreError, match="2 metrics, 'val_bpb', 'val_loss'"):
        log_of([tried(0, "m", 1.0), tried(1, "m", 1.0, metric_name="val_loss")])
