"""What the judge found when it trained and scored one version of train.py, and the kinds of cheat that it knows."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from looper.records import Record

LOG_CHARS = 4000
"""Characters of the end of a run's output that are kept."""


class Cheat(StrEnum):
    """Why a measurement was refused."""

    SCORE = "score"
    """The loss or the evaluation was replaced."""
    FUTURE = "future"
    """The answer at a position depends on tokens after it, or on other rows."""
    PREPARE = "prepare"
    """prepare.py was edited, or what it gives was replaced."""
    PRINTED = "printed"
    """A val_bpb was printed that nothing had computed."""
    VALIDATION = "validation"
    """Validation files were read, or data was carried in the code."""
    CLOCK = "clock"
    """A function of the clock was replaced."""
    PROCESS = "process"
    """A process was started."""
    SEED = "seed"
    """A seed other than the one that was given was used."""
    OUTSIDE = "outside"
    """A file outside of the run's folder was opened."""
    NOT_FINITE = "not_finite"
    """Logits were not finite, or a value that was not finite was hidden."""
    LONGER = "longer"
    """More training than the budget allows."""
    SHAPE = "shape"
    """Logits have the wrong shape."""


class Measurement(Record):
    """One version of train.py, trained with one seed and scored."""

    status: Literal["ok", "crash", "timeout", "refused"]
    """`crash`: the code failed. `timeout`: it took too long. `refused`: a cheat was caught, see `cheat`."""
    val_bpb: float | None = None
    """Bits per byte on the validation files, computed by the judge; lower is better. None unless the status is ok."""
    reason: str = ""
    """One sentence on what went wrong; empty if nothing did."""
    cheat: Cheat | None = None
    """Kind of cheat that was caught."""
    reported_bpb: float | None = None
    """Finite val_bpb that the code printed; a judged run of honest code prints nan, which is None here."""
    steps: int | None = None
    """Batches that the code took."""
    tokens: int | None = None
    """Training tokens that the code took."""
    train_seconds: float | None = None
    """From the first batch to the hand-over of the model."""
    wall_seconds: float = 0.0
    """All that the measurement took, by the judge's clock."""
    peak_memory_mb: float | None = None
    """Most memory that the training process held."""
    corpus: str = ""
    """Digest of the texts that it was trained and scored on; '' where a user's own checkout decides them."""
    log: str = ""
    """End of the run's output."""
