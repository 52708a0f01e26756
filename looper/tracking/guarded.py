"""A wrapper that keeps a failing tracker from failing the run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from looper.protocols import Tracker


class Guarded:
    """Hand events on to trackers; each that fails is reported once on stderr, and the run goes on."""

    def __init__(self, **trackers: Tracker) -> None:
        """Take the trackers by name."""
        self._trackers = trackers
        self._reported: dict[str, str] = {}

    @property
    def failed(self) -> frozenset[str]:
        """Names of the trackers that failed at least once: their records have gaps."""
        return frozenset(self._reported)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the report has to say of failed trackers: a sentence each, empty if none failed."""
        return tuple(f"The record of tracker {name} has gaps: {why}" for name, why in self._reported.items())

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """Record an event with every tracker."""
        for name, tracker in self._trackers.items():
            self._try(name, partial(tracker.event, kind, data))

    def finish(self, metrics: dict[str, Any]) -> None:
        """Record the final metrics with every tracker and close them."""
        for name, tracker in self._trackers.items():
            self._try(name, partial(tracker.finish, metrics))

    def _try(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever a tracking service throws, the run's results matter more
            if name not in self._reported:
                self._reported[name] = why = f"{type(error).__name__}: {error}"
                print(f"tracker {name} failed and its record will have gaps; the run goes on: {why}", file=sys.stderr)
