"""Wrappers and the course of a judged run that the benchmarks share; the judge puts this beside train.py in a box."""

from __future__ import annotations

import importlib
import resource
import runpy
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import watch  # type: ignore[import-not-found]  # before torch, whose warnings it sets

import torch  # isort: skip
from torch._subclasses.fake_tensor import FakeTensorMode  # isort: skip
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack  # isort: skip

CLOCK = time.monotonic
CLOCKS = ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "sleep")
Kept = tuple[str, Any, str, Any]
"""Kind of cheat, module or class, name, and the value that must still be there when the run has ended."""


def own_folder() -> None:
    """Import from the run's folder from now on, no longer from the judge's."""
    sys.path[0] = str(Path.cwd())


class Tally:
    """What a run has done so far."""

    steps = tokens = passes = not_finite = 0
    begun: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float | None:
        """From the first batch to the hand-over."""
        return self.ended - self.begun if self.ended and self.begun else None


tally = Tally()


def traced() -> bool:
    """Whether a compiler differentiates tensors without values, to learn what the backward pass will be."""
    return any(type(mode) is FakeTensorMode for mode in _get_current_dispatch_mode_stack())


def counted(run: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a backward pass: there is one for a batch at most."""

    def backward(*args: Any, **kwargs: Any) -> Any:
        if traced():
            return run(*args, **kwargs)
        tally.passes += 1
        if tally.passes > tally.steps:
            watch.refuse(
                "longer",
                f"backward pass {tally.passes} came after {tally.steps} batches; every batch is for one backward pass",
            )
        return run(*args, **kwargs)

    return backward


def seeding(run: Callable[..., Any], allowed: int) -> Callable[..., Any]:
    """Wrap a function that sets the seed: there is one seed."""

    def manual_seed(seed: int) -> Any:
        if seed != allowed:
            watch.refuse("seed", f"manual_seed({seed}) was called; a judged run has one seed, SEED")
        return run(seed)

    return manual_seed


def guard(seed: int) -> list[Kept]:
    """Count backward passes and watch the seed from now on; return what must stay in its place."""
    torch.autograd.backward, torch.autograd.grad = counted(torch.autograd.backward), counted(torch.autograd.grad)
    torch.manual_seed = torch.random.manual_seed = seeding(torch.manual_seed, seed)
    return [
        *(("clock", time, name, getattr(time, name)) for name in CLOCKS),
        *(("longer", torch.autograd, name, getattr(torch.autograd, name)) for name in ("backward", "grad")),
        ("longer", FakeTensorMode, "__torch_dispatch__", FakeTensorMode.__torch_dispatch__),
        ("score", torch, "save", torch.save),
    ]


def unreplaced(kept: Sequence[Kept]) -> None:
    """Refuse a run in which train.py put something else in the place of what has to stay."""
    for cheat, module, name, value in kept:
        if getattr(module, name, None) is not value:
            watch.refuse(cheat, f"train.py replaced {module.__name__}.{name}")


def run(check: Callable[[dict[str, Any]], None]) -> None:
    """Run train.py as a program, check it and report; `check` is given the names that train.py has bound."""
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
    counted = {"steps": tally.steps, "tokens": tally.tokens, "train_seconds": tally.seconds, "peak_memory_mb": peak()}
    watch.report(counted | {"handed_over": tally.ended is not None})


def trained(state: dict[str, Any]) -> Any:
    """Return the model of train.py with the weights that were handed over; from here on the process is watched."""
    watch.begin()
    train = importlib.import_module("train")
    model = train.GPT(train.GPTConfig())
    model.load_state_dict(state, strict=True)
    return model.eval()


def shaped(scores: Any, x: Any, vocabulary: int) -> Any:
    """Return the scores of tokens (B, T) if there is one for each of the vocabulary; refuse the run otherwise."""
    wanted = (*x.shape, vocabulary)
    if scores.shape != wanted:
        watch.refuse("shape", f"logits have shape {tuple(scores.shape)}; it has to be {wanted}")
    return scores


def respond(answer: Callable[[], None]) -> None:
    """Answer and leave; where that fails, report why."""
    try:
        answer()
    except Exception as error:
        traceback.print_exc()
        said = " ".join("".join(traceback.format_exception_only(error)).split())
        watch.report({"error": f"the handed-over weights gave no answers in GPT(GPTConfig()): {said[:500]}"})
        raise SystemExit(1) from error
    watch.leave()


def peak() -> float:
    """Return the most memory that training held, MiB: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
