"""Run train.py as a program within a judged run; the judge puts this beside it in the sandbox.

Batches, backward passes, seeds, losses and the clock are counted and checked by wrappers, some while the run goes on,
the others at its end. See watch.py for what that is worth. The report names what was found, or what was counted.
"""

from __future__ import annotations

import os
import resource
import runpy
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import watch  # type: ignore[import-not-found]  # before torch, whose warnings it sets

sys.path[0] = str(Path.cwd())

import prepare  # type: ignore[import-not-found]  # noqa: E402
import torch  # noqa: E402

CLOCK = time.monotonic
SECONDS = float(os.environ.get("RESEARCH_SECONDS", 0))
"""Wall-clock that training may take, 0 where tokens decide."""
SLACK = 1.0
"""Seconds over a budget of seconds in which the last step may end."""

F = torch.nn.functional


class Tally:
    """What a run has done so far."""

    steps = tokens = passes = not_finite = 0
    begun: float | None = None
    ended: float | None = None


tally = Tally()


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


def _counted(run: Callable[..., Any]) -> Callable[..., Any]:
    def backward(*args: Any, **kwargs: Any) -> Any:
        tally.passes += 1
        if tally.passes > tally.steps:
            watch.refuse(
                "longer",
                f"backward pass {tally.passes} came after {tally.steps} batches; every batch is for one backward pass",
            )
        return run(*args, **kwargs)

    return backward


def _seeding(run: Callable[..., Any]) -> Callable[..., Any]:
    def manual_seed(seed: int) -> Any:
        if seed != prepare.SEED:
            watch.refuse("seed", f"manual_seed({seed}) was called; a judged run has one seed, SEED")
        return run(seed)

    return manual_seed


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
torch.autograd.backward, torch.autograd.grad = _counted(torch.autograd.backward), _counted(torch.autograd.grad)
torch.manual_seed = torch.random.manual_seed = _seeding(torch.manual_seed)
torch.nan_to_num = _finite(torch.nan_to_num)
for _name in ("nan_to_num", "nan_to_num_"):
    setattr(torch.Tensor, _name, _finite(getattr(torch.Tensor, _name)))

_CLOCKS = ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "sleep")
_OURS = ("batches", "evaluate_bpb", "hand_over", "corpus", "CONTEXT", "SEED", "TOKEN_BUDGET", "VOCABULARY")
KEPT: list[tuple[str, Any, str, Any]] = [
    *(("clock", time, name, getattr(time, name)) for name in _CLOCKS),
    *(("prepare", prepare, name, getattr(prepare, name)) for name in _OURS),
    *(("score", F, name, getattr(F, name)) for name in ("cross_entropy", "nll_loss", "log_softmax")),
    *(("longer", torch.autograd, name, getattr(torch.autograd, name)) for name in ("backward", "grad")),
    *(("score", torch, name, getattr(torch, name)) for name in ("save", "nan_to_num")),
]
"""(kind of cheat, module, name, value) that must be the same when the run has ended."""


def check(found: dict[str, Any]) -> None:
    """Refuse what can be seen at the end; `found` are the names that train.py has bound."""
    for cheat, module, name, value in KEPT:
        if getattr(module, name, None) is not value:
            watch.refuse(cheat, f"train.py replaced {module.__name__}.{name}")
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
    sys.argv = ["train.py"]
    watch.begin()
    try:
        found = runpy.run_path("train.py", run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            watch.report({"error": f"train.py stopped: {stop.code}"})
            raise
        found = {}
    except BaseException as error:
        traceback.print_exc()
        watch.report({"error": f"train.py failed: {''.join(traceback.format_exception_only(error)).strip()}"})
        raise SystemExit(1) from error
    check(found)
    seconds = tally.ended - tally.begun if tally.ended and tally.begun else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
    counted = {"steps": tally.steps, "tokens": tally.tokens, "train_seconds": seconds, "peak_memory_mb": peak}
    watch.report(counted | {"handed_over": tally.ended is not None})


if __name__ == "__main__":
    main()
