"""The processes of one training: one, or those that an accelerate or torchrun launch started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Crew:
    """Where a process computes, which share of a batch is its own, and sums over all processes.

    A single process on a CPU needs nothing of this, and its results are the same bits with or without accelerate.
    """

    def __init__(self) -> None:
        self._accelerator: Any = None
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        """Processes that train together."""
        self.rank = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        """Number of this one."""

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def _ready(self) -> Any:
        if self._accelerator is None:
            from accelerate import Accelerator

            self._accelerator = Accelerator(mixed_precision="no")  # precision is the trainer's own choice
        return self._accelerator

    def device(self, large: bool) -> torch.device:
        """Return the device of a model: the CPU for a small one, unless several processes share the work."""
        if self.count == 1 and not large:
            return torch.device("cpu")
        found: torch.device = self._ready().device
        return found

    def share(self, batch: Sequence[T]) -> Sequence[T]:
        """Return this process's part of a batch."""
        return batch if self.count == 1 else batch[self.rank :: self.count]

    def total(self, parameters: Sequence[Tensor], loss: float) -> float:
        """Sum gradients and the loss over all processes; every one goes on with the same numbers."""
        if self.count == 1:
            return loss
        accelerator = self._ready()
        for parameter in parameters:
            if parameter.grad is None:  # its share of the batch was empty
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = accelerator.reduce(parameter.grad, reduction="sum")
        return float(accelerator.reduce(torch.tensor(loss, device=accelerator.device), reduction="sum"))

    def agree(self, value: T) -> T:
        """Return the main process's value in all of them."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        self._ready()
        box = [value]
        broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.count > 1:
            self._ready().wait_for_everyone()
