"""A campaign's book-keeping: every run goes to its memory file, with its parent, its verdict and what it was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from looper.benchmarks.research.measurement import Measurement
from looper.campaigns.trials import Fate
from looper.loopgraph import LoopGraph
from looper.memory.rows import Decision, Experiment, Role, Status
from looper.records import digest_of

DECISIONS = {Fate.KEEP: Decision.KEEP, Fate.DISCARD: Decision.DISCARD}
STATUSES = {"ok": Status.OK, "timeout": Status.TIMEOUT}


@dataclass(kw_only=True)
class Book:
    """Writes to the memory file of one campaign."""

    memory: LoopGraph
    campaign: str
    scope: str
    budget_kind: str
    budget: float
    made_from: dict[str, str] = field(default_factory=dict)
    """Program -> the one that it was made from; '' for the unchanged program."""
    written: int = 0
    """Rows so far: their number is part of an id, as a program may be tried again on the same seed."""

    def baseline(self, program: str, seed: int, measurement: Measurement) -> None:
        """Write down a run of the unchanged program."""
        self.made_from[program] = ""
        self._write(program, seed, measurement, description="baseline")

    def replicate(self, program: str, seed: int, measurement: Measurement) -> None:
        """Write down another seed of a program that is known already."""
        self._write(program, seed, measurement, description="paired re-run")

    def trial(
        self,
        program: str,
        before: str,
        runs: Mapping[int, Measurement],
        *,
        fate: Fate,
        description: str,
        retrieval: str,
        spent: Mapping[str, float | None],
        error: str = "",
    ) -> Experiment:
        """Write down a change with its runs; the first is the experiment, the others are its replicates.

        `error` says why the session that proposed it failed, if it did.
        """
        self.made_from[program] = before
        (seed, first), *others = runs.items()
        experiment = self._write(
            program, seed, first, description=description, fate=fate, retrieval=retrieval, spent=spent, error=error
        )
        for seed, measurement in others:
            self._write(program, seed, measurement, description="paired re-run", fate=fate)
        return experiment

    def _write(
        self,
        program: str,
        seed: int,
        measurement: Measurement,
        *,
        description: str,
        fate: Fate | None = None,
        retrieval: str = "",
        spent: Mapping[str, float | None] | None = None,
        error: str = "",
    ) -> Experiment:
        client = self.memory.client
        experiment = client.log_experiment(
            program,
            self.made_from[program],
            retrieval=retrieval,
            description=description,
            campaign=self.campaign,
            scope=self.scope,
            seed=seed,
            budget_kind=self.budget_kind,
            budget=self.budget,
            id=f"{self.campaign}:{self.written:03d}:{digest_of(program)[:7]}",
        )
        self.written += 1
        status = STATUSES.get(measurement.status, Status.CRASH)
        decided = DECISIONS.get(fate) if fate is not None and status is Status.OK else None
        told = dict(spent or {})
        client.log_outcome(
            experiment.id,
            measurement.val_bpb if status is Status.OK else None,
            status=status,
            steps=measurement.steps,
            prompt_tokens=_whole(told.get("prompt_tokens")),
            completion_tokens=_whole(told.get("completion_tokens")),
            cost=told.get("cost"),
            wall=measurement.wall_seconds,
            memory=measurement.peak_memory_mb * 2**20 if measurement.peak_memory_mb else None,
            log="\n".join(filter(None, [error, measurement.reason, measurement.log])),
            decision=decided,
        )
        return experiment


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def credited(experiment: Experiment) -> Sequence[str]:
    """Return the methods that an experiment's change really holds."""
    return [method for method, role in experiment.methods.items() if role is Role.PRESENT]
