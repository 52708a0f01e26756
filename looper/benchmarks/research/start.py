"""Run train.py as a program within a judged run; the judge puts this beside it in the sandbox.

Batches, backward passes, seeds, losses and the clock are counted and checked by wrappers, some while the run goes on,
the others at its end. See watch.py for what that is worth. The report names what was found, or what was counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import guarded  # type: ignore[import-not-found]
import watch  # type: ignore[import-not-found]

guarded.own_folder()

import prepare  # type: ignore[import-not-found]  # noqa: E402
import torch  # noqa: E402

CLOCK, tally = guarded.CLOCK, guarded.tally
SECONDS = float(os.environ.get("RESEARCH_SECONDS", 0))
"""Wall-clock that training may take, 0 where tokens decide."""
SLACK = 1.0
"""Seconds over a budget of seconds in which the last step may end."""

F = torch.nn.functional


def batches(size: int, *, seed: int = prepare.SEED, budget: int = prepare.TOKEN_BUDGET) -> Iterator[tuple[Any, Any]]:
    """Give the batches of prepare.py, counted; no more in all than the budget allows."""
    if seed != prepare.SEED:
        watch.refuse("seed", f"batches() was called with seed={seed}; a judged run has one seed, SEED")
    for x, y in _batches(size, seed=seed, budget=budget):
        if tally.tokens + x.numel() > prepare.TOKEN_BUDGET:
            watch.refuse("longer", f"batches() was read on after {tally.tokens} tokens, which is the whole budget")
        if tally.begun is None:
            tally.begun = CLOCK()
        if SECONDS and CLOCK() - tally.begun >= SECONDS:
            return
        tally.steps += 1
        tally.tokens += x.numel()
        yield x, y


def hand_over(model: object) -> None:
    """Hand the model over; the clock stops."""
    tally.ended = CLOCK()
    _hand_over(model)


def cross_entropy(*args: Any, **kwargs: Any) -> Any:
    """Compute PyTorch's cross-entropy, and note if it is not finite."""
    loss = _cross_entropy(*args, **kwargs)
    tally.not_finite += not bool(loss.detach().isfinite().all())
    return loss


def _finite(run: Callable[..., Any]) -> Callable[..., Any]:
    def nan_to_num(value: Any, *args: Any, **kwargs: Any) -> Any:
        if not bool(value.detach().isfinite().all()):
            watch.refuse("not_finite", "nan_to_num hid a value that was not finite")
        return run(value, *args, **kwargs)

    return nan_to_num


_batches, _hand_over, _cross_entropy = prepare.batches, prepare.hand_over, F.cross_entropy
prepare.batches, prepare.hand_over, F.cross_entropy = batches, hand_over, cross_entropy
torch.nan_to_num = _finite(torch.nan_to_num)
for _name in ("nan_to_num", "nan_to_num_"):
    setattr(torch.Tensor, _name, _finite(getattr(torch.Tensor, _name)))

_OURS = ("batches", "evaluate_bpb", "hand_over", "corpus", "CONTEXT", "SEED", "TOKEN_BUDGET", "VOCABULARY")
KEPT = [
    *guarded.guard(prepare.SEED),
    *(("prepare", prepare, name, getattr(prepare, name)) for name in _OURS),
    *(("score", F, name, getattr(F, name)) for name in ("cross_entropy", "nll_loss", "log_softmax")),
    ("score", torch, "nan_to_num", torch.nan_to_num),
]


def check(found: dict[str, Any]) -> None:
    """Refuse what can be seen at the end; `found` are the names that train.py has bound."""
    guarded.unreplaced(KEPT)
    for name in ("evaluate_bpb", "batches"):
        if found.get(name, getattr(prepare, name)) is not getattr(prepare, name):
            watch.refuse("score", f"{name} in train.py is no longer prepare.py's")
    if tally.not_finite:
        watch.refuse("not_finite", f"{tally.not_finite} losses were not finite, and train.py went on")
    if SECONDS and tally.begun and (tally.ended or CLOCK()) - tally.begun > SECONDS + SLACK:
        spent = (tally.ended or CLOCK()) - tally.begun
        watch.refuse("longer", f"training took {spent:.1f} s of {SECONDS:g} s")


def main() -> None:
    """Run train.py, check it and report."""
    prepare.windows()
    Path(prepare.SEALED, "windows.bin").unlink()  # from here on batches() is the way to the data
    guarded.run(check)
    watch.leave()


if __name__ == "__main__":
    main()
