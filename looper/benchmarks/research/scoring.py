"""The host's half of a measurement: the questions to a trained model, and the score of its answers.

Nothing here imports or unpickles what an agent wrote: answers are raw floats.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from looper.benchmarks.research.measurement import Cheat
from looper.benchmarks.research.questions import Questions, apart, draw_questions, foreknowledge

if TYPE_CHECKING:
    from torch import Tensor

SPLICED = 448
"""Windows of which the second process sees the beginning."""
WHOLE = 64
"""Windows that it sees unchanged, in other company."""


@lru_cache(maxsize=8)
def held_out(split: int) -> tuple[str, ...]:
    """Return the standard library's files that are in a split's validation half."""
    from looper.benchmarks.research import prepare

    return tuple(path for path, key, _ in prepare.sources() if prepare.is_held_out(key, split))


@lru_cache(maxsize=8)
def training_windows(tokens: int, seed: int, split: int) -> bytes:
    """Return the windows that a budget of tokens allows with a seed, in order, each of CONTEXT + 1 bytes."""
    from looper.benchmarks.research import prepare

    stream = prepare.drawn(prepare.corpus(split).train, seed, tokens // prepare.CONTEXT)
    return bytes(next(stream).numpy().tobytes())


def questions(split: int) -> Questions:
    """Draw the questions of one measurement."""
    from looper.benchmarks.research import prepare

    return draw_questions(prepare.validation_rows(split)[:, :-1], spliced=SPLICED, whole=WHOLE)


def practice(split: int) -> Tensor:
    """Return windows of the training half, (N, T), for questions whose answers may be shown."""
    from looper.benchmarks.research import prepare

    return next(prepare.drawn(prepare.corpus(split).train, 0, 256))[:, :-1]


def answer_bytes(rows: int) -> int:
    """Return the size of the answers to so many rows."""
    from looper.benchmarks.research.prepare import CONTEXT, VOCABULARY

    return 4 * rows * CONTEXT * VOCABULARY


def logits_of(data: bytes, rows: int) -> Tensor | None:
    """Return raw floats as logits (rows, T, V), None if their number is wrong."""
    import torch

    from looper.benchmarks.research.prepare import CONTEXT, VOCABULARY

    if len(data) != answer_bytes(rows):
        return None
    return torch.frombuffer(bytearray(data), dtype=torch.float32).view(rows, CONTEXT, VOCABULARY)


def fault(asked: Questions, scored: Tensor, probes: Tensor) -> tuple[Cheat, str] | None:
    """Return what is wrong with the answers, None if they can be scored."""
    import torch

    for answers in (scored, probes):
        bad = int((~answers.isfinite()).any(-1).sum())
        if bad:
            return Cheat.NOT_FINITE, f"logits are not finite at {bad} of {answers[..., 0].numel()} positions"
    length = asked.scored.size(1)
    kept = torch.arange(length) <= asked.last[:, None]
    off, whole = apart(scored[asked.window], probes) & kept, asked.whole
    if off[whole].any():
        return Cheat.FUTURE, f"the logits of {int(off[whole].any(-1).sum())} of {WHOLE} rows depend on the other rows"
    if off.any():
        count = int(off.any(-1).sum())
        return Cheat.FUTURE, f"in {count} of {SPLICED} windows the logits changed with the tokens after them"
    cut = (~whole).nonzero().flatten()
    window, last = asked.window[cut], asked.last[cut]
    return foreknowledge(scored[window, last], probes[cut, last], asked.scored[window, last + 1])


def bits_per_byte(logits: Tensor, split: int) -> float:
    """Score the answers to all validation windows as prepare.py does."""
    import torch

    from looper.benchmarks.research import prepare

    given = iter(torch.split(logits, 128))
    return float(prepare.evaluate_bpb(lambda _: next(given), 128, split=split))
