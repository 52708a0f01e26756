"""All campaigns of a run: earlier ones that fill memories, then every arm and replicate, as many at once as allowed."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

from looper.benchmarks.research.improvable import Improvable
from looper.campaigns.arms import Arm, Even, Informed, Parzen, Uninformed
from looper.campaigns.book import Book
from looper.campaigns.campaign import PROGRAM, Running
from looper.campaigns.measuring import Bench
from looper.campaigns.options import NEEDS_MEMORY, NEEDS_NO_MODEL, ArmName, Campaign
from looper.campaigns.trials import Played, Trial
from looper.loopgraph import LoopGraph
from looper.memory.ranking.settings import Ranking
from looper.memory.store import MemoryStore
from looper.models.recipe import Recipe
from looper.protocols import Model
from looper.records import digest_of
from looper.session import Actor
from looper.store import read_record, write_whole

EARLIER = "earlier"
"""Name of the campaigns that only fill a memory."""
Told = Callable[[Running, Trial], None]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Plays the campaigns of a run; a finished one is read back instead."""

    options: Campaign
    benchmark: Improvable
    ranking: Ranking
    actor: Actor
    """Agent, workspace, store and model of the sessions."""
    folder: Path
    """The run's folder."""
    seed: int
    temperature: float
    workers: int
    """Campaigns at a time."""
    ground: str
    """Digest of what decides results beside the options."""
    told: Told
    stop: Event = field(default_factory=Event)
    """Set to end all campaigns before their next training."""
    locks: dict[str, Lock] = field(default_factory=lambda: defaultdict(Lock))
    """One for each measurement."""

    def play(self) -> tuple[list[Played], list[Played]]:
        """Return the campaigns of the arms, replicate by replicate, and the earlier ones."""
        options = self.options
        needed = not options.past and options.earlier and any(arm in NEEDS_MEMORY for arm in options.arms)
        pool = ThreadPoolExecutor(max_workers=self.workers)
        try:
            past: dict[int, Future[list[Played]]] = {}
            for replicate in range(1, options.replicates + 1) if needed else ():
                past[replicate] = pool.submit(self._earlier, replicate)
            # Those that wait for earlier campaigns come last, so that no worker waits for one that has not begun.
            order = sorted(options.arms, key=lambda arm: arm in NEEDS_MEMORY)
            futures = {
                (replicate, arm): pool.submit(self._one, arm, replicate, past.get(replicate))
                for arm in order
                for replicate in range(1, options.replicates + 1)
            }
            played = [
                futures[replicate, arm].result()
                for replicate in range(1, options.replicates + 1)
                for arm in options.arms
            ]
            return played, [one for future in past.values() for one in future.result()]
        except BaseException:
            self.stop.set()  # those under way end before their next training
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def memory_path(self, name: str) -> Path:
        """Return the memory file of a campaign."""
        return self.folder / "memory" / f"{name}.db"

    def _one(self, arm: ArmName, replicate: int, past: Future[list[Played]] | None) -> Played:
        earlier = past.result() if past is not None and arm in NEEDS_MEMORY else []
        start = Path(self.options.past) if self.options.past and arm in NEEDS_MEMORY else None
        if earlier:
            start = self.memory_path(earlier[-1].name)
        return self._played(
            arm,
            replicate,
            name=f"{arm.value}-{replicate}",
            seed=self._seed(replicate),
            benchmark=self.benchmark,
            start=start,
            earlier=[one.name for one in earlier],
        )

    def _earlier(self, replicate: int) -> list[Played]:
        """Play the campaigns that fill one memory, one after the other: each knows what came before it."""
        played: list[Played] = []
        for i in range(1, self.options.earlier + 1):
            split = self.benchmark.corpus_split + i
            played.append(
                self._played(
                    ArmName.stateful,
                    replicate,
                    name=f"{EARLIER}-{replicate}-{i}",
                    seed=self._seed(replicate, i),
                    benchmark=self.benchmark.with_split(split),
                    start=self.memory_path(played[-1].name) if played else None,
                    earlier=[one.name for one in played],
                )
            )
        return played

    def _played(
        self,
        arm: ArmName,
        replicate: int,
        *,
        name: str,
        seed: int,
        benchmark: Improvable,
        start: Path | None,
        earlier: Sequence[str],
    ) -> Played:
        """Play one campaign, or read it back; its memory file is made anew from `start`, if any.

        An unfinished campaign begins again: its sessions and trainings are stored, so nothing is run twice. One in
        which sessions failed for the machine's reasons is not stored as finished.
        """
        path, file = self.folder / "campaigns" / f"{name}-{self.ground[:10]}.json", self.memory_path(name)
        known = read_record(path, Played)
        if known is not None and file.exists():
            return known
        part, label = self._fresh(file, start, name)
        kind, amount = benchmark.budget_kind.value, benchmark.budget
        scope = benchmark.conditions
        placebo = seed if arm is ArmName.shuffled else None
        with LoopGraph(
            part,
            campaign=label,
            scope=scope,
            seed=seed,
            budget_kind=kind,
            budget=amount,
            limit=self.options.shown,
            budget_tokens=self.options.brief_tokens,
            ranking=self.ranking,
            placebo=placebo,
        ) as graph:
            running = Running(
                name=name,
                arm_name=arm.value,
                replicate=replicate,
                seed=seed,
                scope=scope,
                options=self.options,
                benchmark=benchmark,
                bench=Bench(
                    benchmark=benchmark,
                    workspace=self.actor.workspace,
                    store=self.actor.store,
                    at_once=max(1, self.workers // (len(self.options.arms) * self.options.replicates)),
                    locks=self.locks,
                    stop=self.stop,
                ),
                actor=self._actor(arm),
                arm=self._arm(arm, graph, benchmark, scope, seed, replicate),
                book=Book(
                    memory=graph,
                    campaign=label,
                    scope=scope,
                    budget_kind=kind,
                    budget=amount,
                ),
                temperature=self.temperature,
                compared=not name.startswith(EARLIER),
                done=self.told,
            )
            result = running.play()
        for log in (f"{file.name}-wal", f"{file.name}-shm"):  # of the file before, which SQLite would add to this one
            file.with_name(log).unlink(missing_ok=True)
        part.replace(file)
        left = {"memory": f"memory/{file.name}", "label": "" if label == name else label}
        result = result.model_copy(update={"earlier": tuple(earlier), **left})
        if not result.failed:
            write_whole(path, result.model_dump_json())
        return result

    def _seed(self, replicate: int, earlier: int = 0) -> int:
        """Return the seed of a campaign; the arms of a replicate share it."""
        return int(digest_of([self.seed, replicate, earlier])[:7], 16)

    def _fresh(self, file: Path, start: Path | None, name: str) -> tuple[Path, str]:
        """Return the draft of a memory file, made from what a campaign begins with, and what it is called there."""
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.stem}.part.db")
        for old in part.parent.glob(f"{part.name}*"):
            old.unlink()
        if start is None:
            return part, name
        with MemoryStore.open(start, read_only=True) as there:
            there.copy_to(part)
            return part, free(name, there.campaigns())

    def _actor(self, arm: ArmName) -> Actor:
        model: Model = Recipe() if arm in NEEDS_NO_MODEL else self.actor.model
        return dataclasses.replace(self.actor, model=model)

    def _arm(self, arm: ArmName, graph: LoopGraph, benchmark: Improvable, scope: str, seed: int, replicate: int) -> Arm:
        offers = bool(getattr(self.actor.model, "proposes_offers", False))
        if arm is ArmName.random:
            return Even(seed=seed)
        if arm is ArmName.tpe:
            return Parzen(seed=seed, base=benchmark.files()[PROGRAM])
        if arm is ArmName.stateless:
            return Uninformed(
                goal=benchmark.goal,
                scope=scope,
                seed=seed,
                options=self.options,
                ranking=self.ranking,
                prior=self.memory_path(f"prior-{replicate}"),
                offers=offers,
            )
        return Informed(goal=benchmark.goal, memory=graph, offers=offers, brief=arm in NEEDS_MEMORY)


def free(name: str, taken: Collection[str]) -> str:
    """Return the name if it is not taken, else with `+2`, `+3` and so on: another run's campaign may have had it."""
    labels = itertools.chain([name], (f"{name}+{i}" for i in itertools.count(2)))
    return next(label for label in labels if label not in taken)
