"""The data is the texts' and nobody else's: dealt by content, told apart from training, counted in true bytes."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from tests.benchmarks.nanochat.conftest import texts

FILES = ("manifest.json", "tokenizer.json", "lengths.npy", "train.bin", "validation.bin")


@pytest.fixture
def elsewhere(prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prepare into another folder."""
    monkeypatch.setattr(prepare, "CACHE", tmp_path / "cache")
    prepare.corpus.cache_clear()
    yield prepare
    prepare.corpus.cache_clear()


def documents(prepare: ModuleType, split: str) -> list[str]:
    tokenizer = Tokenizer.from_file(str(prepare.CACHE / "tokenizer.json"))
    found: list[list[int]] = []
    for token in getattr(prepare.corpus(), split).tolist():
        if token == prepare.START:
            found.append([])
        else:
            found[-1].append(token - 1)
    return [tokenizer.decode(ids) for ids in found]


def test_every_text_is_in_one_split_once_and_comes_back(prepare: ModuleType) -> None:
    train, validation = documents(prepare, "train"), documents(prepare, "validation")
    assert sorted(train + validation) == sorted(texts())
    assert 0 < len(validation) < len(train) / 5
    manifest = prepare.corpus().manifest
    assert manifest["validation"]["bytes"] == sum(len(text.encode()) for text in validation)


def test_the_same_texts_give_the_same_files_and_others_another_digest(
    elsewhere: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = elsewhere.prepare(str(folder))
    assert "left out, as it is not UTF-8" in capsys.readouterr().out
    before = {name: (elsewhere.CACHE / name).read_bytes() for name in FILES}
    again = elsewhere.prepare(str(folder))
    assert before == {name: (elsewhere.CACHE / name).read_bytes() for name in FILES} and first == again
    assert elsewhere.prepare(str(folder), limit=20_000)["digest"] != first["digest"]
    assert "stopped before 0.02 million bytes" in capsys.readouterr().out


def test_parquet_gives_what_text_gives(elsewhere: ModuleType, folder: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    tables = tmp_path / "tables"
    tables.mkdir()
    for number in range(2):
        table = pyarrow.table({"body": [*texts()[number * 100 : number * 100 + 100], None]})
        parquet.write_table(table, tables / f"{number}.parquet")
    made = elsewhere.prepare(str(tables), column="body")
    assert (made["documents"], made["digest"]) == (200, elsewhere.prepare(str(folder))["digest"])
    with pytest.raises(SystemExit, match=r"no column 'text'; choose --column of \['body'\]"):
        elsewhere.prepare(str(tables))


def test_plain_bytes(elsewhere: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "VOCABULARY", 257)
    made = elsewhere.prepare(str(folder))
    assert made["train"]["tokens"] + made["validation"]["tokens"] == 200 + sum(len(t.encode()) for t in texts())
    assert elsewhere.corpus().lengths.tolist() == [0] + [1] * 256
    monkeypatch.setattr(elsewhere, "VOCABULARY", 300)
    elsewhere.corpus.cache_clear()
    with pytest.raises(SystemExit, match="with 257 tokens, and VOCABULARY is 300; set NANOCHAT_VOCABULARY=257"):
        elsewhere.corpus()


def test_what_is_missing_is_said(elsewhere: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nothing is prepared in .*; run `python prepare.py`"):
        elsewhere.corpus()
    with pytest.raises(SystemExit, match=r"./nowhere is no folder, no file and no name"):
        elsewhere.prepare("./nowhere")
    (tmp_path / "one.txt").write_text("short")
    with pytest.raises(SystemExit, match="1 documents are too few"):
        elsewhere.prepare(str(tmp_path / "one.txt"))
    assert not (elsewhere.CACHE / "manifest.json").exists()


def test_the_standard_library_is_always_there(prepare: ModuleType) -> None:
    found = "".join(islice(prepare.documents("", "text"), 20))
    assert "import" in found and len(found) > 10_000


def test_batches_are_the_seeds_whatever_their_size(prepare: ModuleType) -> None:
    by_two, by_four, other = (
        torch.cat([x for x, _ in islice(prepare.batches(size, seed=seed), 8 // size)])
        for size, seed in ((2, 1), (4, 1), (4, 2))
    )
    assert by_two.shape == (8, 32)
    assert torch.equal(by_two, by_four) and not torch.equal(by_four, other)
    x, y = next(prepare.batches(4))
    assert torch.equal(x[:, 1:], y[:, :-1])


def test_an_epoch_holds_each_row_once(prepare: ModuleType) -> None:
    stream = prepare.order(50, seed=3)
    first, second = list(islice(stream, 50)), list(islice(stream, 50))
    assert sorted(first) == sorted(second) == list(range(50)) and first != second


def test_the_score_is_bits_per_byte(prepare: ModuleType) -> None:
    targets = prepare.validation_rows()[:, 1:].flatten().tolist()
    tokenizer = Tokenizer.from_file(str(prepare.CACHE / "tokenizer.json"))
    scored = [target for target in targets if target != prepare.START]
    size = len("".join(tokenizer.id_to_token(target - 1) for target in scored))
    assert len(targets) > len(scored) and size > len(scored)
    uniform = prepare.evaluate_bpb(lambda x: torch.zeros(*x.shape, 300))
    assert uniform == pytest.approx(math.log2(300) * len(scored) / size)
    assert prepare.evaluate_bpb(lambda x: torch.zeros(*x.shape, 300), size=3) == pytest.approx(uniform)

    def surer(x: torch.Tensor) -> torch.Tensor:  # gives START nothing, which costs nothing
        scores = torch.zeros(*x.shape, 300)
        scores[..., prepare.START] = -100
        return scores

    assert prepare.evaluate_bpb(surer) == pytest.approx(math.log2(299) * len(scored) / size)
    with pytest.raises(ValueError, match=r"it has to be \(\d+, 32, 300\)"):
        prepare.evaluate_bpb(lambda x: x.float())


def test_splits_hold_out_other_documents(prepare: ModuleType) -> None:
    digests = [f"{number:064x}"[::-1] for number in range(2000)]
    first, second = ({d for d in digests if prepare.is_held_out(d, split)} for split in ("1", "2"))
    assert first and second and len(first & second) < len(first) / 2
    assert prepare.is_held_out("0" * 64) and not prepare.is_held_out("f" * 64)


def test_a_budget_of_tokens_ends_before_a_step_that_does_not_fit(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "TOKEN_BUDGET", 300)
    monkeypatch.setattr(prepare, "given", [0])
    rows, clock, seen = prepare.batches(4), prepare.Clock(), []
    while clock.progress < 1:
        next(rows)
        clock.tick()
        seen.append(clock.progress)
    assert seen == [128 / 300, 1.0], "a third step would need 384 tokens"


def test_of_the_first_steps_only_what_they_take_longer_is_free(prepare: ModuleType) -> None:
    clock, free = prepare.Clock(), prepare.UNCOUNTED_STEPS
    for _ in range(free):
        clock.tick()
        assert clock.progress == 0
    taken = clock.tick()
    assert clock.seconds == taken > 0
    clock.seconds, clock.uncounted = 0.2, 60.0
    assert clock.progress == pytest.approx(0.2 * (1 + free) / prepare.TIME_BUDGET), "they compiled for a minute"
    clock.uncounted = 0.1
    assert clock.progress == pytest.approx(0.3 / prepare.TIME_BUDGET), "they were no slower than the others"
    clock.seconds = 1e9
    assert clock.progress == 1
