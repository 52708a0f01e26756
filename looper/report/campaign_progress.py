"""Live progress of campaigns: a line for every trial, with the best so far and the time that the other trials take."""

from __future__ import annotations

import threading
import time

from rich.console import Console

SECOND_LINE = 4.0
"""Lines of several campaigns at a time come no more often than this many seconds apart."""


class CampaignProgress:
    """Says what each trial scored; safe to use from several threads."""

    def __init__(self, total: int, *, console: Console | None = None) -> None:
        """Expect `total` trials in all; write to `console`, by default stderr."""
        self._total, self._done = total, 0
        self._console = console or Console(stderr=True)
        self._started, self._spoken = time.monotonic(), 0.0
        self._lock = threading.Lock()

    def trial(
        self, campaign: str, number: int, *, words: str, fate: str, score: float | None, best: float, quiet: bool
    ) -> None:
        """Count a finished trial and show it; with `quiet` only now and then."""
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if quiet and now - self._spoken < SECOND_LINE and self._done < self._total:
                return
            self._spoken = now
            each = (now - self._started) / self._done
            others = self._total - self._done
            left = f"about {_span(each * others)} left, then the final runs" if others else "the final runs are left"
            shown = "no score" if score is None else f"{score:.4f}"
            self._console.print(
                f"{campaign} {number}: {words}: {shown}, {fate}; best {best:.4f}; "
                f"{self._done} of {self._total} trials, {left}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
