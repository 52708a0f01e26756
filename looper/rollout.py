"""A wave of sessions: many attempts advance together, results come back in task order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from random import Random

from looper.models.batching import BatchingModel
from looper.protocols import Memory
from looper.records import Episode, Query, Recall, Task, digest_of
from looper.session import Attempt, Sessions

Observer = Callable[[Attempt, list[Episode], bool], None]
"""Called in the caller's thread as attempts finish: the attempt, its episodes, whether it was run now."""


@dataclass(frozen=True, kw_only=True)
class Wave:
    """What to try: tasks, tries for each, and how replies are drawn."""

    tasks: Sequence[Task]
    attempts: int = 1
    temperature: float = 0.0
    seed: int = 0
    name: str = ""
    """Keeps the replies of further waves over the same tasks apart from the first's."""

    def plan(self, memory: Memory) -> list[Attempt]:
        """Return the attempts; tasks that look the same to the agent share theirs.

        Recall happens here, before any session of the wave: all see the memory as it was.
        """
        groups: dict[str, list[Task]] = {}
        for task in self.tasks:
            groups.setdefault(digest_of(task.public()), []).append(task)
        out = []
        for group in groups.values():
            recall: Recall = memory.recall(Query(task=group[0].id, text=group[0].issue))
            for number in range(self.attempts):
                stream = "/".join([str(self.seed), *filter(None, [self.name]), str(number)])
                out.append(
                    Attempt(
                        tasks=tuple(group),
                        recall=recall,
                        number=number,
                        stream=stream if self.temperature > 0 else "",
                        temperature=self.temperature,
                    )
                )
        return out


def some(tasks: Sequence[Task], count: int, seed: str) -> Sequence[Task]:
    """Return `count` of the tasks in their order, drawn with the seed; all of them for 0, or where there are fewer."""
    if not 0 < count < len(tasks):
        return tasks
    return [tasks[i] for i in sorted(Random(f"tasks/{seed}").sample(range(len(tasks)), count))]


def roll(sessions: Sessions, attempts: Sequence[Attempt], *, parallel: int, observe: Observer) -> list[Episode]:
    """Run attempts, `parallel` at a time, and return their episodes in the order of the attempts.

    Finished ones are taken from the store. The first error of the store or the machine stops the wave
    after the sessions under way; failures inside sessions are episodes.
    """
    done: dict[int, list[Episode]] = {}
    todo = []
    for i, attempt in enumerate(attempts):
        known = sessions.known(attempt)
        if known is None:
            todo.append(i)
        else:
            done[i] = known
            observe(attempt, known, False)
    if todo:
        with BatchingModel(sessions.model, width=parallel) as model:
            _run(replace(sessions, model=model), attempts, todo, done, parallel, observe)
    return [episode for i in range(len(attempts)) for episode in done[i]]


def _run(
    sessions: Sessions,
    attempts: Sequence[Attempt],
    todo: Sequence[int],
    done: dict[int, list[Episode]],
    parallel: int,
    observe: Observer,
) -> None:
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="looper-session") as pool:
        pending: dict[Future[tuple[list[Episode], bool]], int] = {}
        waiting = iter(todo)
        try:
            while True:
                while len(pending) < parallel and (i := next(waiting, None)) is not None:
                    pending[pool.submit(sessions.run, attempts[i])] = i
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    i = pending.pop(future)
                    episodes, fresh = future.result()
                    done[i] = episodes
                    observe(attempts[i], episodes, fresh)
        finally:
            for future in pending:
                future.cancel()
