"""Reading logs: deltas against the best kept metric, crashes apart, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from looper.errors import StoreError
from looper.memory.ranking.logs import COLUMNS, log_of, read_log, words_of
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
        ([("a", "1.0", "4", "keep")], "results.tsv:2 has 4 columns instead of 5"),
        ([ROWS[0], ("b", "high", "4", "keep", "x")], "results.tsv:3: val_bpb 'high' is no number"),
        ([ROWS[0], ("b", "1", "4", "kept", "x")], "status 'kept' is none of keep, discard, crash"),
        ([ROWS[3]], "baseline that ran"),
        ([ROWS[0]], "nothing to replay"),
        (ROWS[:2], "the noise of .* is 0"),
    ],
)
def test_a_damaged_log_is_refused_with_its_line(tmp_path: Path, rows: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        read_log(written(tmp_path, rows))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a results\.tsv has"):
        read_log(written(tmp_path, [], head=("when", "what")))
    with pytest.raises(StoreError, match="cannot be read"):
        read_log(tmp_path / "none.tsv")
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    with pytest.raises(StoreError, match=r"bad\.jsonl:1 is no evidence"):
        read_log(bad)


def test_words_are_told_apart_without_numbers() -> None:
    assert words_of("Set EMBEDDING_LR to 0.6, then the embedding decay") == ("set", "embedding", "lr", "then", "decay")
