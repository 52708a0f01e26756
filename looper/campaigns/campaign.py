"""One campaign: recall, propose, train, score, keep or discard, remember; each trial starts from the best program."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from looper.benchmarks.research.improvable import Improvable
from looper.benchmarks.research.measurement import Measurement
from looper.campaigns.arms import Arm
from looper.campaigns.book import Book, credited
from looper.campaigns.keeping import Decision, Ruling, added, noise, rule
from looper.campaigns.measuring import Bench
from looper.campaigns.options import Campaign
from looper.campaigns.spending import Spending
from looper.campaigns.trials import Fate, Played, Trial
from looper.errors import TrainingError, WorkspaceError
from looper.models.recipe import offers
from looper.records import INFRASTRUCTURE_EXITS, Episode, Recall, Trajectory, Verdict, digest_of
from looper.session import Actor, Attempt

PROGRAM = "train.py"
PATIENCE = 3
"""Trials in a row without any session that came to an end, after which a campaign stops."""
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A change that a session ended with."""

    program: str
    patch: str
    description: str
    wrong: str
    """Why it cannot be run; '' if it can."""
    session: Trajectory

    @property
    def error(self) -> str:
        """Why the session failed for reasons that are not the proposer's; '' if it did not."""
        if self.session.exit not in INFRASTRUCTURE_EXITS:
            return ""
        return f"the session failed: {self.session.error.strip() or self.session.exit.value}"


@dataclass(kw_only=True)
class Running:
    """The state of one campaign while it runs."""

    name: str
    arm_name: str
    replicate: int
    seed: int
    scope: str
    options: Campaign
    benchmark: Improvable
    bench: Bench
    actor: Actor
    arm: Arm
    book: Book
    temperature: float
    compared: bool
    """Whether the best program is run on fresh seeds at the end; a campaign that only fills a memory is not."""
    done: Callable[[Running, Trial], None]
    """Told of every finished trial."""
    trials: list[Trial] = field(default_factory=list)
    program: str = ""
    """The best kept one."""
    scores: dict[int, float] = field(default_factory=dict)
    """Its scores by seed."""
    baseline: dict[int, float] = field(default_factory=dict)
    replicates: dict[str, dict[int, float]] = field(default_factory=dict)
    """Scores of every program that ran, by seed: what the noise is told from."""
    failed: int = 0
    """Sessions that failed for the machine's or the server's reasons."""
    spending: Spending = field(default_factory=Spending)

    def play(self) -> Played:
        """Run the campaign to its end. Raises TrainingError for an unchanged program that gets to no score."""
        unchanged = self.benchmark.files()[PROGRAM]
        self._start(unchanged)
        stopped = "all experiments done"
        for number in range(1, self.options.experiments + 1):
            limit = self.spending.beyond(self.options) or self._unanswered()
            if limit:
                stopped = limit
                break
            trial = self._trial(number)
            self.trials.append(trial)
            self.arm.tell(trial)
            self.done(self, trial)
        fresh = [self._seed(i, "final") for i in range(self.options.finals if self.compared else 0)]
        found = self._run_all([(program, seed) for program in (unchanged, self.program) for seed in fresh])
        scores = [measurement.val_bpb for measurement in found]
        final_baseline, finals = (dict(zip(fresh, part, strict=False)) for part in (scores, scores[len(fresh) :]))
        sigma, freedom = noise(self.replicates.values())
        return Played(
            name=self.name,
            arm=self.arm_name,
            replicate=self.replicate,
            seed=self.seed,
            scope=self.scope,
            baseline=self.baseline,
            sigma=sigma,
            freedom=freedom,
            failed=self.failed,
            trials=tuple(self.trials),
            stopped=stopped,
            program=self.program,
            finals=finals,
            final_baseline=final_baseline,
            runs=self.spending.runs,
            train_seconds=self.spending.train_seconds,
            seconds=self.spending.seconds,
        )

    def _seed(self, i: int, role: str = "search") -> int:
        """Return the i-th training seed of a role; all arms of a replicate share them, and no others."""
        return int(digest_of([self.seed, role, i])[:7], 16)

    def _unanswered(self) -> str:
        """Say so if the model did not answer in several trials in a row; '' else."""
        last = self.trials[-PATIENCE:]
        dead = self.failed >= PATIENCE and len(last) == PATIENCE and all(trial.fate is Fate.NONE for trial in last)
        return f"no session of the last {PATIENCE} trials came to an end: {last[-1].reason}" if dead else ""

    def _start(self, unchanged: str) -> None:
        self.program = unchanged
        seeds = [self._seed(i) for i in range(self.options.baselines)]
        found = dict(zip(seeds, self._run_all([(unchanged, seed) for seed in seeds]), strict=True))
        failed = {seed: measurement for seed, measurement in found.items() if measurement.val_bpb is None}
        for seed in failed:  # it may have been the machine
            self.bench.forget(unchanged, seed)
        if failed:
            first = next(iter(failed.values()))
            raise TrainingError(
                f"the unchanged train.py does not get to a score ({first.status}: {first.reason}); "
                f"mend what the log names, and the same command measures it anew:\n{first.log}"
            )
        for seed, measurement in found.items():
            self.book.baseline(unchanged, seed, measurement)
        self.baseline, self.scores = dict(self.replicates[unchanged]), dict(self.replicates[unchanged])
        noise(self.replicates.values())  # refuses a program that ignores its seed

    def _run(self, program: str, seed: int) -> Measurement:
        (measurement,) = self._run_all([(program, seed)])
        return measurement

    def _run_all(self, wanted: list[tuple[str, int]]) -> list[Measurement]:
        once = list(dict.fromkeys(wanted))  # the best program may be the unchanged one
        found = dict(zip(once, self.bench.measure_all(once), strict=True))
        for (program, seed), measurement in found.items():
            self.spending.train(measurement.train_seconds or 0.0, measurement.wall_seconds)
            if measurement.val_bpb is not None:
                self.replicates.setdefault(program, {})[seed] = measurement.val_bpb
        return [found[one] for one in wanted]

    # ---------------------------------------------------------------- one trial

    def _trial(self, number: int) -> Trial:
        before = self.spending.copy()
        proposal, blocked = self._propose(number)
        if proposal is None:
            reason = blocked[-1] if blocked else "nothing was changed"
            return self._noted(number, before, fate=Fate.NONE, reason=reason, description="no proposal")
        about = {"description": proposal.description, "patch": proposal.patch, "failure": proposal.error}
        if proposal.wrong:
            about["episode"] = self._keep(proposal, number, Fate.REFUSED)
            return self._noted(number, before, fate=Fate.REFUSED, reason=proposal.wrong, **about)
        seed = self._seed(0)
        first = self._run(proposal.program, seed)
        runs, ruling = {seed: first}, None
        if first.val_bpb is None:
            fate, reason = (Fate.REFUSED if first.status == "refused" else Fate.CRASH), first.reason
        else:
            ruling = self._weigh(proposal, runs)
            fate = Fate.KEEP if ruling.decision is Decision.keep else Fate.DISCARD
            reason = ruling.reason
        about["episode"] = self._keep(proposal, number, fate)
        spent = self.spending.tokens_since(before)
        experiment = self.book.trial(
            proposal.program,
            self.program,
            runs,
            fate=fate,
            description=proposal.description,
            retrieval=self.arm.retrieval,
            spent=spent,
            error=proposal.error,
        )
        scores = {seed: run.val_bpb for seed, run in runs.items() if run.val_bpb is not None}
        lines = self._added(proposal)
        if fate is Fate.KEEP:
            self.program, self.scores = proposal.program, scores
        return self._noted(
            number,
            before,
            fate=fate,
            reason=reason,
            commit=digest_of(proposal.program)[:7],
            methods=tuple(credited(experiment)),
            scores=scores,
            gain=ruling.gain if ruling else None,
            error=ruling.error if ruling else None,
            lines=lines,
            memory_mb=max(run.peak_memory_mb or 0.0 for run in runs.values()),
            experiment=experiment.id,
            log="" if first.val_bpb is not None else first.log,
            **about,
        )

    def _weigh(self, proposal: Proposal, runs: dict[int, Measurement]) -> Ruling:
        """Compare a change with its parent on one seed after another until there is a decision."""
        gains: list[float] = []
        nothing = "on no seed did both this and the best program get to a score"
        ruling = Ruling(decision=Decision.discard, gain=0.0, error=0.0, reason=nothing)
        lines = self._added(proposal)
        for i in range(1 + self.options.pairs):
            seed = self._seed(i)
            if seed not in self.scores:
                parent, own = self._run_all([(self.program, seed), (proposal.program, seed)])
                self.book.replicate(self.program, seed, parent)
                runs[seed] = own
                if parent.val_bpb is None:  # the best program fails on this seed: nothing can be compared on it
                    continue
                self.scores[seed] = parent.val_bpb
            elif seed not in runs:
                runs[seed] = self._run(proposal.program, seed)
            score = runs[seed].val_bpb
            if score is None:
                return Ruling(
                    decision=Decision.discard,
                    gain=sum(gains) / len(gains),
                    error=ruling.error,
                    reason=f"it failed on seed {seed}: {runs[seed].reason}",
                )
            gains.append(self.scores[seed] - score)
            sigma, freedom = noise(self.replicates.values())
            ruling = rule(gains, sigma=sigma, freedom=freedom, lines=lines, options=self.options)
            if ruling.decision is not Decision.repeat:
                break
        return ruling

    def _added(self, proposal: Proposal) -> int:
        """Return the lines of code that a change adds; 0 where one of the programs cannot be parsed."""
        try:
            return added(self.program, proposal.program)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last is the parser's
            return 0

    def _keep(self, proposal: Proposal, number: int, fate: Fate) -> str:
        """Keep the session as an episode like any other, resolved if its change was kept; returns its digest."""
        session = proposal.session
        episode = Episode(
            digest=digest_of([session.digest, self.name, number, fate.value]),
            task=session.task,
            family="research",
            pair=session.task,
            trajectory=session,
            verdict=Verdict(resolved=fate is Fate.KEEP, applied=True),
        )
        self.actor.store.add_episode(episode)
        return episode.digest

    def _propose(self, number: int) -> tuple[Proposal | None, list[str]]:
        """Ask for a change until there is one that may be run; returns it, and what was blocked."""
        blocked: list[str] = []
        for attempt in range(self.options.proposals):
            shown = self.arm.shown(number, self.program, self.trials, blocked)
            proposal = self._session(number, attempt, shown)
            if not proposal.patch.strip():
                blocked.append(f"- blocked nothing: {proposal.wrong or self._idle(shown)}")
                continue
            why = "" if proposal.wrong else self.arm.ruling(proposal.program, seed=self._seed(0))
            if not why:
                return proposal, blocked
            blocked.append(f"- blocked {proposal.description}: {why}")
        return None, blocked

    def _idle(self, shown: str) -> str:
        """Say why a session changed nothing: a proposer that lives on offers had none, or chose so."""
        if getattr(self.actor.model, "proposes_offers", False) and next(offers(shown), None) is None:
            return f"none of the methods that were shown applies to this {PROGRAM}, by the text of its recipe"
        return "the session changed no file"

    def _session(self, number: int, attempt: int, shown: str) -> Proposal:
        """Let the agent work on the best program in a fresh box."""
        task = self.benchmark.task(self.program, id=f"{self.name}/{number}")
        task = task.model_copy(update={"issue": "\n\n".join(filter(None, [task.issue.strip(), shown.strip()]))})
        drawn = self.temperature > 0
        stream = f"{self.seed}/{number}/{attempt}" if drawn else ""
        session, _ = self.actor.act(
            Attempt(
                tasks=(task,),
                recall=Recall(),
                number=attempt,
                stream=stream,
                temperature=self.temperature,
            )
        )
        self.spending.session(session)
        program, wrong = self.program, ""
        if session.exit in INFRASTRUCTURE_EXITS:
            self.failed += 1
            why = session.error.strip() or session.exit.value
            wrong = f"the session failed: {why.splitlines()[-1]}"
        if session.patch.strip():
            wrong = self.benchmark.contract(session.patch)
            try:
                with self.actor.workspace.open(task.source, session.patch) as box:
                    program = box.read(PROGRAM)
            except (OSError, WorkspaceError) as error:
                wrong = wrong or f"{PROGRAM} cannot be read after the session: {error}"
        return Proposal(
            program=program, patch=session.patch, description=described(session), wrong=wrong, session=session
        )

    def _noted(self, number: int, before: Spending, **fields: object) -> Trial:
        since = self.spending.since(before)
        return Trial.model_validate(
            {"commit": "", "patch": "", **fields, **since, "number": number, "best": self.scores[self._seed(0)]}
        )


def described(session: Trajectory) -> str:
    """Return what the proposer says of its change: its last thought, in one line; else how the session ended."""
    for step in reversed(session.steps):
        thought = _THOUGHT.search(step.reply)
        if thought and thought[1].strip():
            line = " ".join(thought[1].split())
            return line if len(line) <= 120 else f"{line[:120]} ..."
    return f"a change without a word (session ended with {session.exit.value})"
