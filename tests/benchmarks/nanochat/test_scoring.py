"""The host's half: answers come part by part, are scored as prepare.py scores, and betray a model that looks ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from looper.benchmarks.nanochat import scoring
from looper.benchmarks.nanochat.outside import Outside
from looper.benchmarks.research.measurement import Cheat
from looper.benchmarks.research.questions import Questions
from looper.errors import WorkspaceError
from looper.records import Source

VOCABULARY = 300
Model = Callable[[Tensor], Tensor]


def counts(tokens: Tensor) -> Tensor:
    """Answer with how often each token has come: causal, and of one row."""
    return torch.nn.functional.one_hot(tokens, VOCABULARY).float().cumsum(1)


def ahead(by: int) -> Model:
    """Return a model that knows which token comes `by` places later."""

    def answer(tokens: Tensor) -> Tensor:
        out = counts(tokens)
        out[:, :-by] += 9 * torch.nn.functional.one_hot(tokens[:, by:], VOCABULARY)
        return out

    return answer


def around(tokens: Tensor) -> Tensor:
    return counts(tokens) + counts(tokens).mean(0)


def infinite(tokens: Tensor) -> Tensor:
    out = counts(tokens)
    out[0, 0, 0] = torch.inf
    return out


def read(model: Model, rows: Tensor, reading: scoring.Reading, size: int = 7) -> None:
    for first in range(0, len(rows), size):
        reading.take(first, model(rows[first : first + size]))


@pytest.fixture
def asked(prepare: ModuleType) -> tuple[Questions, scoring.Reading, scoring.Reading]:
    rows = prepare.validation_rows()
    found = scoring.questions(rows)
    return found, *scoring.readings(found, rows[:, 1:], prepare.corpus().lengths)


@pytest.mark.parametrize(
    ("model", "cheat"),
    [
        (counts, None),
        (ahead(1), Cheat.FUTURE),
        (ahead(6), Cheat.FUTURE),
        (around, Cheat.FUTURE),
        (infinite, Cheat.NOT_FINITE),
    ],
)
def test_answers_that_no_honest_model_gives_are_not_accepted(
    model: Model, cheat: Cheat | None, asked: tuple[Questions, scoring.Reading, scoring.Reading]
) -> None:
    questions, scored, probes = asked
    read(model, questions.scored, scored)
    read(model, questions.probes, probes)
    found = scoring.fault(questions, scored, probes, 1e-3)
    assert (found and found[0]) == cheat, found


def test_answers_are_scored_as_prepare_scores_a_model(
    prepare: ModuleType, asked: tuple[Questions, scoring.Reading, scoring.Reading]
) -> None:
    questions, scored, _ = asked
    read(counts, questions.scored, scored)
    assert scored.bits_per_byte == pytest.approx(prepare.evaluate_bpb(counts), abs=1e-9)


GIVE = """
import struct, pathlib, time
room = pathlib.Path(".judge")
rows = (room / "rows.bin").read_bytes()
for part, size in enumerate(SIZES):
    while part - int((room / "seen").read_text() or 0) >= 2:
        time.sleep(0.002)
    (room / "part").write_bytes(struct.pack("<f", float(part)) * size)
    (room / "part").rename(room / f"{part}.bin")
"""


def noisy(tokens: Tensor) -> Tensor:
    return counts(tokens) + 0.01 * torch.randn(*tokens.shape, 300, generator=torch.Generator().manual_seed(len(tokens)))


def hinting(tokens: Tensor) -> Tensor:
    following = torch.nn.functional.one_hot(tokens.roll(-1, 1).long(), 300).float()
    return noisy(tokens) + 0.04 * following


@pytest.mark.parametrize(("model", "cheat"), [(noisy, None), (hinting, Cheat.FUTURE)])
def test_what_is_within_the_tolerance_may_not_favour_the_next_token(
    model: Model, cheat: Cheat | None, asked: tuple[Questions, scoring.Reading, scoring.Reading]
) -> None:
    questions, scored, probes = asked
    read(model, questions.scored, scored)
    read(model, questions.probes, probes, size=5)
    found = scoring.fault(questions, scored, probes, 5e-2)
    assert (found and found[0]) == cheat, found
    assert found is None or "knowing the next token is worth" in found[1]


@pytest.mark.parametrize(
    ("sizes", "complete", "taken"),
    [
        ([24, 24, 24, 12], True, [(0, 0.0), (2, 1.0), (4, 2.0), (6, 3.0)]),
        ([24, 24], False, [(0, 0.0), (2, 1.0)]),
        ([24, 25, 24, 12], False, [(0, 0.0), (4, 2.0), (6, 3.0)]),
        ([24, 23, 24, 12], False, [(0, 0.0), (4, 2.0), (6, 3.0)]),
    ],
    ids=["all", "too_few", "too_long", "too_short"],
)
def test_parts_are_taken_while_they_come(sizes: list[int], complete: bool, taken: list[tuple[int, float]]) -> None:
    got: list[tuple[int, float]] = []

    def take(first: int, scores: Tensor) -> None:
        assert scores.shape[1:] == (4, 3)
        got.append((first, scores[0, 0, 0].item()))

    script = GIVE.replace("SIZES", str(sizes))
    with Outside().open(Source(name="answers", files={"give.py": script, ".judge/x": ""})) as box:
        rows = torch.zeros(7, 4, dtype=torch.long)
        shape = {"windows": 2, "vocabulary": 3}
        done, whole = scoring.ask(box, "exec python give.py", rows, take, shape=shape, limit=60.0)
    assert (done.exit_code, whole, got) == (0, complete, taken), done.output


def test_a_folder_outside_keeps_to_itself_and_is_gone_afterwards(tmp_path: Path) -> None:
    with Outside().open(Source(name="f", files={"a/b.txt": "x"})) as box:
        root = box.root
        assert box.run("cat a/b.txt; exit 3", seconds=30).exit_code == 3
        assert box.read("a/b.txt") == "x"
        with pytest.raises(WorkspaceError, match="leads outside"):
            box.read("../elsewhere")
        (root / "link").symlink_to(tmp_path)
        with pytest.raises(WorkspaceError, match="leads outside"):
            box.write("link/x", "y")
        with pytest.raises(WorkspaceError, match="larger than the limit of 0"):
            box.read_bytes("a/b.txt", limit=0)
        assert box.run("sleep 60", seconds=0.2).timed_out
    assert not root.exists()
