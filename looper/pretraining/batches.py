"""Tokenised sequences on disk, and the order in which training reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from looper.errors import TrainingError

POOL = 32
"""Batches that are cut from one pool of sequences sorted by length: little padding, much of the shuffle kept."""


class Corpus:
    """Sequences with a loss weight per token.

    Files: tokens.npy (uint16, all sequences one after the other), weights.npy (float16, the weight of predicting that
    token) and offsets.npy (int64, one more than there are sequences).
    """

    def __init__(self, folder: Path) -> None:
        """Map the files. Raises TrainingError if one is missing or they do not fit together."""
        missing = [name for name in ("tokens", "weights", "offsets") if not (folder / f"{name}.npy").is_file()]
        if missing:
            raise TrainingError(
                f"corpus {folder} lacks {', '.join(f'{name}.npy' for name in missing)}; build the corpus first"
            )
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self.weights = np.load(folder / "weights.npy", mmap_mode="r")
        self.offsets: npt.NDArray[np.int64] = np.load(folder / "offsets.npy").astype(np.int64)
        if len(self.tokens) != len(self.weights) or len(self.tokens) != self.offsets[-1]:
            raise TrainingError(
                f"corpus {folder} is damaged: {len(self.tokens)} tokens, {len(self.weights)} weights, offsets end at "
                f"{self.offsets[-1]}; build it again"
            )
        self.lengths = np.diff(self.offsets)

    def __len__(self) -> int:
        """Count the sequences."""
        return len(self.lengths)

    def rows(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T) and weights (B, T) of some sequences, padded on the right with weight 0."""
        width = int(self.lengths[indices].max())
        tokens = np.zeros((len(indices), width), dtype=np.int64)
        weights = np.zeros((len(indices), width), dtype=np.float32)
        for row, i in enumerate(indices):
            start, stop = self.offsets[i], self.offsets[i + 1]
            tokens[row, : stop - start] = self.tokens[start:stop]
            weights[row, : stop - start] = self.weights[start:stop]
        weights[:, 0] = 0.0  # nothing predicts a first token
        return torch.from_numpy(tokens), torch.from_numpy(weights)


def cut(lengths: npt.NDArray[np.int64], order: npt.NDArray[np.int64], limit: int) -> list[npt.NDArray[np.int64]]:
    """Cut an order of sequences into runs whose padded size is at most `limit` tokens (one sequence at least)."""
    runs: list[npt.NDArray[np.int64]] = []
    first, widest = 0, 0
    for i, sequence in enumerate(order):
        wider = max(widest, int(lengths[sequence]))
        if i > first and wider * (i - first + 1) > limit:
            runs.append(order[first:i])
            first, wider = i, int(lengths[sequence])
        widest = wider
    if first < len(order):
        runs.append(order[first:])
    return runs


def epoch(lengths: npt.NDArray[np.int64], limit: int, seed: int, number: int) -> list[npt.NDArray[np.int64]]:
    """Return an epoch's batches: every sequence once, alike lengths together, in an order that the seed decides."""
    random = np.random.default_rng([seed, number])
    order = random.permutation(len(lengths))
    pool = max(1, int(POOL * limit / max(1.0, float(lengths.mean()))))
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        part = part[np.argsort(lengths[part], kind="stable")]
        # the longest first, so that a pool's short remainder is of short sequences
        batches += cut(lengths, part[::-1], limit)
    return [batches[i] for i in random.permutation(len(batches))]


def stream(lengths: npt.NDArray[np.int64], limit: int, seed: int, skip: int = 0) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches without end, epoch after epoch, the first `skip` left out (a resumed training)."""
    number = 0
    while True:
        batches = epoch(lengths, limit, seed, number)
        yield from batches[skip:]
        skip = max(0, skip - len(batches))
        number += 1
