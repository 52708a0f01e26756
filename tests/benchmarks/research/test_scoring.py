"""The host's half: what a box is given, what the questions hide, and which answers are not accepted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from looper.benchmarks.research import prepare, scoring
from looper.benchmarks.research.measurement import Cheat


@pytest.fixture(scope="module")
def asked() -> scoring.Questions:
    return scoring.questions(0)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_windows_of_a_budget_are_the_batches_whatever_their_size(size: int) -> None:
    data = bytearray(scoring.training_windows(24 * prepare.CONTEXT, 5, 0))
    windows = torch.frombuffer(data, dtype=torch.uint8).view(24, prepare.CONTEXT + 1).long()
    batches = list(prepare.batches(size, seed=5, budget=24 * prepare.CONTEXT))
    assert torch.equal(torch.cat([x for x, _ in batches]), windows[:, :-1])
    assert torch.equal(torch.cat([y for _, y in batches]), windows[:, 1:])


def test_splits_hold_out_other_files_of_one_corpus() -> None:
    first, second = prepare.corpus(0), prepare.corpus(1)
    assert first.digest == second.digest
    assert len(first.train) + len(first.validation) == pytest.approx(len(second.train) + len(second.validation), abs=2)
    assert set(scoring.held_out(0)) != set(scoring.held_out(1))
    assert 0.03 < len(second.validation) / len(second.train) < 0.3


def test_questions_hide_what_comes_after_their_last_position(asked: scoring.Questions) -> None:
    begun = torch.arange(prepare.CONTEXT) <= asked.last[:, None]
    own = asked.scored[asked.window]
    assert torch.equal(asked.probes[begun], own[begun])
    spliced = asked.last < prepare.CONTEXT - 1
    assert int(spliced.sum()) == scoring.SPLICED
    assert (asked.probes[~begun] != own[~begun]).float().mean() > 0.8
    assert len(set(asked.window.tolist())) == len(asked.window)
    assert not torch.equal(scoring.questions(0).window, asked.window)


Model = Callable[[Tensor], Tensor]


def counts(tokens: Tensor) -> Tensor:
    """Answer with how often each byte has come: causal, and of one row."""
    return torch.nn.functional.one_hot(tokens, prepare.VOCABULARY).float().cumsum(1)


def peeks_once_in_fifty(tokens: Tensor) -> Tensor:
    out = counts(tokens)
    looks = tokens[:, :-1] % 50 == 0
    following = torch.nn.functional.one_hot(tokens[:, 1:], prepare.VOCABULARY).float()
    out[:, :-1] += 9 * following * looks[:, :, None]
    return out


def hints(tokens: Tensor) -> Tensor:
    following = torch.nn.functional.one_hot(tokens.roll(-1, 1), prepare.VOCABULARY).float()
    return counts(tokens) + 0.0009 * following  # within the tolerance everywhere


def looks_around(tokens: Tensor) -> Tensor:
    return counts(tokens) + counts(tokens).mean(0)


def not_finite_once(tokens: Tensor) -> Tensor:
    out = counts(tokens)
    out[0, 0, 0] = torch.inf
    return out


def answers(model: Model, rows: Tensor) -> Tensor:
    return torch.cat([model(part) for part in torch.split(rows, 128)])


@pytest.mark.parametrize(
    ("model", "cheat"),
    [
        (counts, None),
        (peeks_once_in_fifty, Cheat.FUTURE),
        (hints, Cheat.FUTURE),
        (looks_around, Cheat.FUTURE),
        (not_finite_once, Cheat.NOT_FINITE),
    ],
)
def test_answers_that_no_honest_model_gives_are_not_accepted(
    model: Model, cheat: Cheat | None, asked: scoring.Questions
) -> None:
    found = scoring.fault(asked, answers(model, asked.scored), answers(model, asked.probes))
    assert (found and found[0]) == cheat


def test_answers_are_scored_as_prepare_scores_a_model(asked: scoring.Questions) -> None:
    given = answers(counts, asked.scored)
    raw = scoring.logits_of(given.numpy().tobytes(), len(given))
    assert raw is not None
    assert scoring.bits_per_byte(raw, 0) == prepare.evaluate_bpb(counts)
    assert scoring.logits_of(b"1234", len(given)) is None
