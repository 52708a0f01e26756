"""The public face of the memory: `LoopGraph` plugs into any agent's loop, `ResearchFSClient` is the memory itself.

An agent of yours needs three calls, of which the memory does the rest:

    context = loopgraph.before(goal, code)      # before a proposal: ranked methods and a brief, `str(context)`
    answer = loopgraph.proposed(new_code)       # before the run: allow, caution or block, with the evidence
    logged = loopgraph.after(metric)            # after the run: outcome, credit, verdict

and one at the start, `loopgraph.baseline(code, metric, seed=...)`, once for each seed: two seeds measure the noise,
more of them let smaller effects be told from it. Everything stays in one SQLite file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from looper.errors import ConfigError

if TYPE_CHECKING:
    from looper.memory.client import ResearchFSClient
    from looper.memory.experience import Logged
    from looper.memory.guard import Answer
    from looper.memory.suggestion import Suggestion

__all__ = ["Agent", "LoopGraph", "ResearchFSClient", "Usable"]


class LoopGraph:
    """A memory for one campaign of a research agent; the file is opened at the first call, by its thread."""

    def __init__(
        self,
        path: Path | str = "researchfs.db",
        *,
        campaign: str = "",
        scope: str = "",
        seed: int = 0,
        budget_kind: str = "",
        budget: float = 0.0,
        limit: int = 6,
        budget_tokens: int = 2000,
        metric_name: str = "val_bpb",
        **options: Any,
    ) -> None:
        """Say where results belong: `scope` (`nanochat/h100/depth8`), campaign, and what a run may spend.

        `budget_kind` is `steps`, `tokens` or `seconds`; `seed` is the campaign's, of the ranking's draws; the other
        `options` are those of ResearchFSClient.
        """
        self.path = Path(path)
        self.campaign, self.scope, self.seed = campaign, scope, seed
        self.budget_kind, self.budget = budget_kind, budget
        self.limit, self.budget_tokens, self.metric_name = limit, budget_tokens, metric_name
        self._options = options
        self._client: ResearchFSClient | None = None
        self._before: tuple[str, str] | None = None  # the code, and the retrieval
        self._proposal: dict[str, Any] | None = None

    @property
    def client(self) -> ResearchFSClient:
        """The memory behind it."""
        if self._client is None:
            from looper.memory.client import ResearchFSClient

            self._client = ResearchFSClient(self.path, **self._options)
        return self._client

    def baseline(self, code: str, metric: float, *, seed: int = 0, **costs: Any) -> Logged:
        """Note the result of a program as it stands; another seed of it is a replicate, which tells the noise."""
        with self.client.store.transaction():
            experiment = self.client.log_experiment(code, description="baseline", seed=seed, **self._where)
            return self.client.log_outcome(experiment.id, metric, metric_name=self.metric_name, **costs)

    def before(self, goal: str, code: str, *, query: str = "") -> Suggestion:
        """Return what the memory knows for a goal and the current code; `str()` of it is the text for the prompt."""
        found = self.client.suggest_query(
            goal,
            code,
            query=query,
            scope=self.scope,
            campaign=self.campaign,
            seed=self.seed,
            limit=self.limit,
            budget_tokens=self.budget_tokens,
            metric_name=self.metric_name,
        )
        self._before, self._proposal = (code, found.retrieval), None
        return found

    def proposed(self, code: str, *, description: str = "", claimed: Collection[str] = (), seed: int = 0) -> Answer:
        """Return whether the new code should be run; call it again with another proposal if not.

        Raises ConfigError without a `before`.
        """
        if self._before is None:
            raise ConfigError("proposed() has to follow before(goal, code), which tells what the proposal changes")
        answer = self.client.propose(self._before[0], code, description=description, seed=seed, **self._where)
        self._proposal = {"code_after": code, "description": description, "claimed": tuple(claimed), "seed": seed}
        return answer

    def after(self, metric: float | None = None, *, status: str = "ok", **details: Any) -> Logged:
        """Note how the run of the last proposal ended: its metric, or the status `crash` or `timeout`.

        `details` are those of `ResearchFSClient.log_outcome`: tokens, cost, wall, memory, log, decision. Raises
        ConfigError without a proposal. A result that is refused leaves nothing behind: call it again with a better one.
        """
        if self._before is None or self._proposal is None:
            raise ConfigError(
                "after() has to follow proposed(code); for a program that is not a change call baseline(code, metric)"
            )
        before, retrieval = self._before
        details.setdefault("metric_name", self.metric_name)
        with self.client.store.transaction():
            experiment = self.client.log_experiment(
                code_before=before, retrieval=retrieval, **self._proposal, **self._where
            )
            logged = self.client.log_outcome(experiment.id, metric, status=status, **details)
        self._before = self._proposal = None
        return logged

    @property
    def _where(self) -> dict[str, Any]:
        return {
            "campaign": self.campaign,
            "scope": self.scope,
            "budget_kind": self.budget_kind,
            "budget": self.budget,
        }

    def close(self) -> None:
        """Let the file go; the next call opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Agent(Protocol):
    """What an agent class offers so that a memory can be plugged in."""

    def use(self, loopgraph: LoopGraph) -> Self:
        """Take a memory, and call its `before`, `proposed` and `after` from the loop; returns the agent."""
        ...


class Usable:
    """Gives a class `use`; its loop asks `self.loopgraph`, which is None without a memory."""

    loopgraph: LoopGraph | None = None

    def use(self, loopgraph: LoopGraph) -> Self:
        """Take a memory from now on; returns the agent itself."""
        self.loopgraph = loopgraph
        return self


def __getattr__(name: str) -> Callable[..., Any]:
    """Load the client when it is asked for, so that importing this module costs nothing."""
    if name == "ResearchFSClient":
        from looper.memory.client import ResearchFSClient

        return ResearchFSClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
