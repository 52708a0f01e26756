"""Continual-learning measures of the matrix R[after stage i][on stage j]."""

from __future__ import annotations

from collections.abc import Sequence

from looper.records import Record

Matrix = Sequence[Sequence[float | None]]
"""N + 1 rows (row 0 before any learning) of N columns; None where it was not probed."""


class Continual(Record):
    """Measures of a stream of N stages; None where the matrix does not define them.

    a_ij is the resolve rate on stage j after learning stage i, a_0j before any learning.
    """

    accuracy: float | None
    """ACC = 1/N sum_j a_Nj."""
    forgetting: float | None
    """F = 1/(N-1) sum_{j<N} (max_{1<=k<=N-1} a_kj - a_Nj), as Chaudhry et al. 2018 define it."""
    forgetting_until_learned: float | None
    """The same with the maximum over 1 <= k <= j only, as SWE-Bench-CL's paper defines F."""
    forward_transfer: float | None
    """FT = 1/(N-1) sum_{i<N} (a_{i,i+1} - a_{0,i+1}): the next stage's gain from the earlier ones."""
    backward_transfer: float | None
    """BWT = 1/(N-1) sum_{i<N} (a_Ni - a_ii)  (Lopez-Paz and Ranzato 2017)."""
    learning_curve_area: float | None
    """AULC = 1/N sum_i 1/i sum_{k<=i} a_kk."""


def measure(matrix: Matrix) -> Continual:
    """Return the measures of a matrix.

    Raises ValueError if it is not N + 1 rows of N columns.
    """
    stages = len(matrix) - 1
    if stages < 1 or any(len(row) != stages for row in matrix):
        shape = [len(row) for row in matrix]
        raise ValueError(f"the matrix has rows of {shape} columns; N stages need N + 1 rows of N columns")

    def at(i: int, j: int) -> float | None:
        return matrix[i][j - 1]

    last = stages
    earlier = range(1, stages)
    return Continual(
        accuracy=_mean([at(last, j) for j in range(1, stages + 1)]),
        forgetting=_mean([_less(_best([at(k, j) for k in earlier]), at(last, j)) for j in earlier]),
        forgetting_until_learned=_mean(
            [_less(_best([at(k, j) for k in range(1, j + 1)]), at(last, j)) for j in earlier]
        ),
        forward_transfer=_mean([_less(at(i, i + 1), at(0, i + 1)) for i in earlier]),
        backward_transfer=_mean([_less(at(last, i), at(i, i)) for i in earlier]),
        learning_curve_area=_mean([_mean([at(k, k) for k in range(1, i + 1)]) for i in range(1, stages + 1)]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    # A sum with an unknown term is unknown, not the mean of the rest.
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _best(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
