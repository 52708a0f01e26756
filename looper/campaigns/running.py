"""A run of campaigns from start to finish: play them, write what they leave, return the metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from looper.benchmarks.research.improvable import Improvable
from looper.campaigns.branch import leave_branch, with_commits
from looper.campaigns.campaign import Running
from looper.campaigns.learning import Learning
from looper.campaigns.options import NEEDS_MEMORY, Campaign
from looper.campaigns.study import Study
from looper.campaigns.summary import summarise
from looper.campaigns.trials import Played, Trial
from looper.errors import StoreError
from looper.memory.export import results
from looper.memory.ranking.settings import Ranking
from looper.memory.store import MemoryStore
from looper.metrics.summary import ADAPTED
from looper.protocols import Tracker
from looper.records import digest_of
from looper.report.campaign_progress import CampaignProgress
from looper.session import Actor
from looper.store import DRAFT, write_whole


@dataclass(frozen=True, kw_only=True)
class CampaignRun:
    """Carries out a run of campaigns."""

    options: Campaign
    benchmark: Improvable
    ranking: Ranking
    actor: Actor
    folder: Path
    seed: int
    temperature: float
    parallel: int
    """Campaigns at a time, at most; never more than there are cores, and one where trainings disturb one another."""
    tracker: Tracker
    learning: Learning | None = None
    """What trains on the sessions when all is played; None to learn nothing."""

    def execute(self) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
        """Play everything that is not yet done; return the metrics, and the trials of each campaign for the page."""
        options = self.options
        total = len(options.arms) * options.replicates * options.experiments
        if not options.past and any(arm in NEEDS_MEMORY for arm in options.arms):
            total += options.replicates * options.earlier * options.experiments
        progress = CampaignProgress(total)
        workers = self._workers()

        def told(running: Running, trial: Trial) -> None:
            progress.trial(
                running.name,
                trial.number,
                words=trial.description,
                fate=trial.fate.value,
                score=trial.score,
                best=trial.best,
                quiet=total > 40,
            )
            self.tracker.event(
                "trial", {"campaign": running.name, **trial.model_dump(mode="json", exclude={"patch", "log"})}
            )

        study = Study(
            options=options,
            benchmark=self.benchmark,
            ranking=self.ranking,
            actor=self.actor,
            folder=self.folder,
            seed=self.seed,
            temperature=self.temperature,
            workers=workers,
            ground=digest_of(
                [self.benchmark.identity, dict(self.actor.workspace.identity), self.actor.model.id, past_of(options)]
            ),
            told=told,
        )
        with alone(self.folder):
            played, earlier = study.play()
            for one in (*played, *earlier):
                self._leave(one)
            lines = [
                {"campaign": one.name, "trial": trial.number, "episode": trial.episode}
                for one in played
                for trial in one.trials
                if trial.episode
            ]
            write_whole(self.folder / "episodes.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
            metrics = summarise(played, earlier, options) | {"measured": self.benchmark.identity}
            if self.learning is not None:
                facts = self.learning.learn(played, self.actor.store, seed=self.seed)
                self.tracker.event("consolidated", {"arm": ADAPTED, **facts})
                metrics["learning"] = {ADAPTED: [facts]}
        if self.benchmark.notes:
            metrics["notes"] = list(self.benchmark.notes)
        return metrics, {one.name: rows(one) for one in played}

    def _workers(self) -> int:
        if self.benchmark.one_at_a_time:
            return 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(self.parallel, cores))

    def _leave(self, one: Played) -> None:
        """Write the campaign's results.tsv and its best program."""
        place = self.folder / "campaigns" / one.name
        with MemoryStore.open(self.folder / one.memory, read_only=True) as store:
            table = results(store, one.label or one.name)
        if self.benchmark.branches:
            table = with_commits(table, leave_branch(place / "repository", one, self.benchmark))
            write_whole(place / "repository" / "results.tsv", table)  # where autoresearch has it, outside of git
        write_whole(place / "results.tsv", table)
        write_whole(place / "best_train.py", one.program)


def past_of(options: Campaign) -> str:
    """Return the digest of the memory file that campaigns begin with; '' for none."""
    return sha256(Path(options.past).read_bytes()).hexdigest() if options.past else ""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder for one process. Raises StoreError while another one plays the same run."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"another process plays the run in {folder}: wait for it, or choose another folder with out=FOLDER"
            ) from error
        for draft in (folder / "campaigns").glob(f"**/.*.????????{DRAFT}"):  # of a process that was killed
            draft.unlink()
        yield


def rows(one: Played) -> list[dict[str, Any]]:
    """Return the trials of a campaign as the page shows them."""
    return [
        {
            "number": trial.number,
            "description": trial.description,
            "fate": trial.fate.value,
            "score": trial.score,
            "best": trial.best,
            "reason": trial.reason,
            "patch": trial.patch,
            "log": "\n".join(filter(None, [trial.failure, trial.log])),
        }
        for trial in one.trials
    ]


def why_lines(metrics: Mapping[str, Any], folder: Path) -> Sequence[str]:
    """Return the commands that tell why each campaign's best program is what it is, for a few campaigns."""
    return [
        f"why: looper memory why {one['best_experiment']} --db {folder / one['memory']}"
        for one in metrics["campaigns"]
        if one["best_experiment"]
    ][:1]
