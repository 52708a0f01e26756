"""Muon (Jordan et al. 2024): momentum whose update of every matrix is orthogonalised by Newton-Schulz steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Quintic of Jordan et al.: drives all singular values into about [0.7, 1.2] in five steps."""


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """Return the nearest half-orthogonal matrices of a stack (N, R, C), in bfloat16."""
    a, b, c = COEFFICIENTS
    x = stack.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (torch.linalg.matrix_norm(x.float(), keepdim=True) + 1e-7).bfloat16()
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)  # (N, R, R) with R the shorter side
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class Muon:
    """Optimises matrices; those of one shape are orthogonalised together.

    The update is scaled by 0.2 * sqrt(max(R, C)) (Liu et al. 2025), which gives it the root mean square of an AdamW
    update, so that both optimisers share one learning rate.
    """

    def __init__(
        self, matrices: Sequence[tuple[Tensor, Tensor]], *, lr: float, wd: float, momentum: float = 0.95
    ) -> None:
        """Take (weight, gradient) views; both are read at every step, the weights are changed in place."""
        self.lr, self.wd, self.momentum = lr, wd, momentum
        self.groups: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight, grad in matrices:
            self.groups[tuple(weight.shape)].append((weight, grad))
        self.state = {shape: torch.zeros(len(rows), *shape) for shape, rows in self.groups.items()}

    @torch.no_grad()
    def step(
        self, *, scale: float, rank: int = 0, world: int = 1, share: Callable[[Tensor], None] | None = None
    ) -> None:
        """Update all weights at learning rate `lr * scale`.

        With several processes each orthogonalises every `world`-th matrix, and `share` (a sum over the processes, in
        place) gives all of them all updates.
        """
        sizes = {shape: len(rows) * shape[0] * shape[1] for shape, rows in self.groups.items()}
        flat = torch.zeros(sum(sizes.values()))
        updates = dict(zip(self.groups, torch.split(flat, list(sizes.values())), strict=True))
        for shape, rows in self.groups.items():
            moment, grads = self.state[shape], torch.stack([grad for _, grad in rows])
            moment.lerp_(grads, 1 - self.momentum)
            ahead = grads.lerp_(moment, self.momentum)  # Nesterov
            updates[shape].view(len(rows), *shape)[rank::world] = orthogonalise(ahead[rank::world]).float()
        if share is not None:
            share(flat)
        lr = self.lr * scale
        for shape, rows in self.groups.items():
            change = updates[shape].view(len(rows), *shape) * (0.2 * max(shape) ** 0.5 * lr)
            for (weight, _), row in zip(rows, change, strict=True):
                weight.mul_(1 - lr * self.wd).sub_(row)
