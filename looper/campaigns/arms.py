"""The arms of a comparison: what a proposer is shown before it proposes, and what is remembered afterwards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from looper.campaigns.knobs import Sampler, edits_of
from looper.campaigns.options import Campaign
from looper.campaigns.trials import Fate, Trial
from looper.errors import PatchError
from looper.loopgraph import LoopGraph
from looper.memory.guard import Ruling
from looper.memory.methods import pack
from looper.memory.methods.recipes import apply, chain
from looper.memory.ranking.settings import Ranking

HEADER = "trial\tval_bpb\tgain\tstatus\tdescription"


class Arm(Protocol):
    """One arm in one campaign."""

    @property
    def retrieval(self) -> str:
        """Id of what the memory answered last; '' where it was not asked."""
        ...

    def shown(self, number: int, code: str, trials: Sequence[Trial], blocked: Sequence[str]) -> str:
        """Return the text that the proposer is shown beside the task, before trial `number`."""
        ...

    def ruling(self, code: str, *, seed: int) -> str:
        """Return why a proposal is not worth its run; '' if it may be run."""
        ...

    def tell(self, trial: Trial) -> None:
        """Learn how the last proposal ended."""
        ...


@dataclass(kw_only=True)
class Forgetful:
    """What arms without a memory have in common: they were told nothing, object to nothing, and keep nothing."""

    retrieval: str = ""

    def ruling(self, code: str, *, seed: int) -> str:
        """Allow everything."""
        return ""

    def tell(self, trial: Trial) -> None:
        """Forget it."""


@dataclass(kw_only=True)
class Uninformed(Forgetful):
    """Shows nothing of the campaign; where the proposer lives on offers, those of the literature, drawn afresh."""

    goal: str
    scope: str
    seed: int
    options: Campaign
    ranking: Ranking
    prior: Path
    """File of a memory that holds the bundled methods and nothing else; made anew for every trial."""
    offers: bool
    """Whether the proposer can only do what it is offered."""

    def shown(self, number: int, code: str, trials: Sequence[Trial], blocked: Sequence[str]) -> str:
        """Return the brief of a memory that holds nothing but the bundled methods."""
        if not self.offers:
            return ""
        for old in self.prior.parent.glob(f"{self.prior.name}*"):
            old.unlink()
        with LoopGraph(
            self.prior,
            scope=self.scope,
            seed=1000 * self.seed + number,
            limit=self.options.shown,
            budget_tokens=self.options.brief_tokens,
            ranking=self.ranking,
        ) as memory:
            return str(memory.before(self.goal, code))


@dataclass(kw_only=True)
class Informed:
    """Shows what the memory knows: of this campaign, and of earlier ones if the memory began with them."""

    goal: str
    memory: LoopGraph
    offers: bool
    brief: bool
    """Whether a proposer that does not need offers is shown the memory's brief, and not the table alone."""
    retrieval: str = ""
    ran: set[str] = field(default_factory=set)
    """Programs that were proposed before, whether the memory's gate let them through or not."""

    def shown(self, number: int, code: str, trials: Sequence[Trial], blocked: Sequence[str]) -> str:
        """Return the table of results where the proposer can read one, the brief, and what was blocked just now."""
        parts = [] if self.offers else [table(trials)]
        if self.offers or self.brief:
            found = self.memory.before(self.goal, code)
            self.retrieval = found.retrieval
            parts.append(str(found))
        if blocked:
            parts.append("## Blocked just now, propose something else\n" + "\n".join(blocked))
        return "\n\n".join(part for part in parts if part)

    def ruling(self, code: str, *, seed: int) -> str:
        """Refuse a program that the campaign ran already, on the very seed; else ask the memory's gate."""
        if code in self.ran:
            return "this very program was proposed before in the campaign: it was run, or the memory objected to it"
        self.ran.add(code)
        if not self.retrieval:  # the gate speaks of what the memory was asked about
            return ""
        answer = self.memory.proposed(code, seed=seed)
        return answer.reason if answer.ruling is Ruling.BLOCK else ""

    def tell(self, trial: Trial) -> None:
        """The campaign's book-keeping writes to the memory; nothing else is kept."""


@dataclass(kw_only=True)
class Even(Forgetful):
    """Offers one method of the pack that applies to the code, drawn evenly among those not tried on this code."""

    seed: int

    def shown(self, number: int, code: str, trials: Sequence[Trial], blocked: Sequence[str]) -> str:
        """Return one offer."""
        methods = pack.load()
        drawn = Random(f"even/{self.seed}/{number}").sample(methods, len(methods))
        tried = since_kept(trials)
        for method in sorted(drawn, key=lambda method: method.id in tried):  # the sort keeps the order of the draw
            try:
                apply(method, code, pack=methods)
            except PatchError:
                continue
            return offer(method.id, chain(method, code, methods))
        return ""


@dataclass(kw_only=True)
class Parzen(Forgetful):
    """Offers other values of the program's numeric constants, as Optuna's estimator draws them."""

    seed: int
    base: str
    """The unchanged program, whose constants are the knobs."""
    sampler: Sampler = field(init=False)

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.base, seed=self.seed)

    def shown(self, number: int, code: str, trials: Sequence[Trial], blocked: Sequence[str]) -> str:
        """Return one offer: the constants that differ from the code as it stands."""
        return offer("constants", edits_of(code, self.sampler.ask()))

    def tell(self, trial: Trial) -> None:
        """Tell the estimator the score; what did not get to one counts as a failure."""
        self.sampler.tell(trial.score)


def since_kept(trials: Sequence[Trial]) -> set[str]:
    """Return what was tried on the program as it stands."""
    kept = [number for number, trial in enumerate(trials, 1) if trial.fate is Fate.KEEP]
    return {trial.description for trial in trials[kept[-1] if kept else 0 :]}


def offer(name: str, edits: Sequence[dict[str, str]]) -> str:
    """Return edits as a brief shows them."""
    if not edits:
        return ""
    return "\n".join([f"{name}:", *(json.dumps(edit, ensure_ascii=False) for edit in edits)])


def table(trials: Sequence[Trial]) -> str:
    """Return the campaign's results as the table that a proposer reads."""
    if not trials:
        return "## Results so far\nnone"
    rows = []
    for trial in trials:
        shown = "" if trial.score is None else f"{trial.score:.4f}"
        gain = "" if trial.gain is None else f"{trial.gain:+.4f}"
        status = "discard" if trial.fate in (Fate.REFUSED, Fate.NONE) else trial.fate.value
        rows.append(f"{trial.number}\t{shown}\t{gain}\t{status}\t{trial.description}")
    return "\n".join(["## Results so far, a positive gain is better", HEADER, *rows])
