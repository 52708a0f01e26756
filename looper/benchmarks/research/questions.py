"""Questions to a trained model that tell whether it looks ahead, and when two answers are one.

Two processes that know nothing of one another answer. The first sees the windows that are scored. The second sees, of
some of them, only a beginning, followed by the end of another window; where it ends is drawn anew each time. At that
place the first process could have read the next token and the second could not, so answers that differ there have used
the future, and answers that agree have not. A model that looks ahead at a share p of the positions is found with
probability 1 - (1 - p)^spliced. Some windows are asked unchanged among other rows: an answer that differs there depends
on its company.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from looper.benchmarks.research.measurement import Cheat

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-3
"""Nats by which two answers to one question may differ: other company changes the order of sums."""
UNSEEN = 1e-4
"""Nats by which answers that could see the next token may be better on average than those that could not."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What the two processes are asked."""

    scored: Tensor
    """All validation windows, (N, T)."""
    probes: Tensor
    """Beginnings and whole windows in a secret order, (M, T)."""
    window: Tensor
    """Which scored window a probe begins as, (M,)."""
    last: Tensor
    """Last position of that beginning, (M,)."""

    @property
    def whole(self) -> Tensor:
        """Which probes are whole windows, (M,)."""
        return self.last == self.scored.size(1) - 1


def draw_questions(scored: Tensor, *, spliced: int, whole: int) -> Questions:
    """Draw so many beginnings and whole windows of different windows (N, T), with the system's randomness."""
    import torch

    draw, (count, length) = random.SystemRandom(), scored.shape
    total = spliced + whole
    window = torch.tensor(draw.sample(range(count), total))
    other = (window + torch.tensor([draw.randrange(1, count) for _ in window])) % count
    complete = torch.tensor([number < whole for number in range(total)])[torch.tensor(draw.sample(range(total), total))]
    drawn = torch.tensor([draw.randrange(length - 1) for _ in window])
    last = torch.where(complete, length - 1, drawn)
    kept = torch.arange(length) <= last[:, None]
    return Questions(scored=scored, probes=torch.where(kept, scored[window], scored[other]), window=window, last=last)


def apart(first: Tensor, second: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """Tell at which positions two answers are not one: logits (..., V) twice to (...)."""
    import torch

    one, other = torch.log_softmax(first, -1), torch.log_softmax(second, -1)
    return ((one - other).abs() > tolerance * (1 + one.abs())).any(-1)


def foreknowledge(first: Tensor, second: Tensor, target: Tensor) -> tuple[Cheat, str] | None:
    """Return what is wrong if answers (P, V) gain by having seen the next token (P,); None if that is in the noise.

    Within a tolerance answers may differ, but not in favour of the token that only the first ones could see.
    """
    import torch

    if len(target) < 2:
        return None
    one, other = (torch.log_softmax(answers, -1).gather(1, target[:, None].long()) for answers in (first, second))
    gained = (one - other).double().flatten()
    mean, error = gained.mean().item(), gained.std().item() / math.sqrt(len(gained))
    if mean <= UNSEEN + 4 * error:
        return None
    return Cheat.FUTURE, f"knowing the next token is worth {mean:.4f} nats: the logits depend on it"
