"""The research benchmark: versions of train.py, trained under one budget and scored where none of them can reach.

What is sound, given bubblewrap: agent code runs in fresh boxes without network, without the text of validation files
and without other runs; the score is computed on the host from logits alone, after two processes agreed on them of which
one had ended when the other was asked; prepare.py and the scripts are laid out anew for each box.

What is best effort: everything that is watched inside the training process (watch.py, start.py) or read from the code
(contract.py), the budget of tokens among it. Boxes of campaigns that are played at once could be made to speak to one
another, by locks on files that both see. What Python needs to run stays in a box: the bytecode of held-out modules
holds their names and string constants (some 220 kB, where 1.2 MB are held out), and code that digs them out gains from
it; under Landlock it holds their docstrings too, and under resource limits alone files are not protected at all.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looper.benchmarks.research import contract as rules
from looper.benchmarks.research import scoring
from looper.benchmarks.research.budget import Budget, BudgetKind
from looper.benchmarks.research.ending import ROOM, facts_of, refused, report_in, status_of, unanswered, weights_in
from looper.benchmarks.research.measurement import LOG_CHARS, Measurement
from looper.benchmarks.research.respondent import Respondent, respondent
from looper.errors import ConfigError
from looper.protocols import Workspace
from looper.records import Source, Task, Tests, digest_of

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
"""Raised when the same code, budget and seed would be measured differently."""
FOLDER = Path(__file__).parent
SCRIPTS = ("watch.py", "guarded.py")
"""What stands in a judged box beside the script that is started."""
STARTING_SECONDS = 120.0
"""What a budget of seconds leaves for starting and handing over."""
HEAD_START = 4.0
"""Seconds of a training after which the processes that will answer are started, where it cannot reach them."""
WEIGHT_BYTES = 128 << 20
GOAL = "Lower val_bpb, the validation bits per byte of train.py, within the same training budget."


@dataclass(frozen=True, kw_only=True)
class Research:
    """Improve a small language model's training under a fixed budget; the judge trains and scores each version."""

    budget_kind: BudgetKind = BudgetKind.tokens
    """Unit of `budget`: tokens, steps (of 8 x 64 tokens) or seconds; only the first two repeat exactly."""
    budget: float = 153_600
    """What one training may spend."""
    pace: float = 200_000.0
    """Tokens a second that a budget of seconds is planned with; the run ends with the tokens or the seconds."""
    limit_seconds: float = 600.0
    """Wall-clock after which a training is stopped, whatever its budget."""
    corpus_split: int = 0
    """Which files are held out; every number is another split."""
    goal: str = GOAL
    """First paragraph of what an agent is told."""
    scope: str = "research/cpu"
    """Where results hold; statements in the memory carry it, with budget and split."""

    def __post_init__(self) -> None:
        """Check the values. Raises ConfigError."""
        for name in ("goal", "scope"):
            if not getattr(self, name).strip():
                raise ConfigError(f"benchmark.{name} is empty; give a text")
        if self.corpus_split < 0:
            raise ConfigError(f"benchmark.corpus_split={self.corpus_split} must be 0 or above")
        if self.limit_seconds <= 0:
            raise ConfigError(f"benchmark.limit_seconds={self.limit_seconds:g} must be above 0")
        self.spending.check(self.limit_seconds)

    @property
    def spending(self) -> Budget:
        """What one training may spend."""
        return Budget(kind=self.budget_kind, amount=self.budget, pace=self.pace)

    @property
    def conditions(self) -> str:
        """Where results hold: place, budget and split."""
        return f"{self.scope}/{self.budget:g}-{self.budget_kind.value}/split{self.corpus_split}"

    @property
    def one_at_a_time(self) -> bool:
        """Whether trainings disturb one another, as they do where seconds are the budget."""
        return self.budget_kind is BudgetKind.seconds

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results has to know beside them: nothing."""
        return ()

    branches = repository = revision = ""

    def with_split(self, split: int) -> Research:
        """Return the same with other files held out."""
        return replace(self, corpus_split=split)

    def files(self) -> dict[str, str]:
        """Return the files that an agent sees, path -> text, with the bundled train.py."""
        return {name: (FOLDER / name).read_text(encoding="utf-8") for name in ("prepare.py", "program.md", "train.py")}

    def task(self, train: str, *, id: str) -> Task:
        """Return the task of improving one version of train.py."""
        files = self.files() | {rules.EDITABLE: train}
        source = Source(name="research", files=files, sealed=scoring.held_out(self.corpus_split))
        issue = f"{self.goal}\n\n{files['program.md']}"
        return Task(id=id, family="research", issue=issue, source=source, tests=Tests())

    def changed(self, files: Mapping[str, str], train: str) -> tuple[str, ...]:
        """Return the paths that differ from the task's files after a session that began at `train`, sorted."""
        before = self.files() | {rules.EDITABLE: train}
        return tuple(sorted(path for path in before.keys() | files.keys() if before.get(path) != files.get(path)))

    def contract(self, patch: str) -> str:
        """Return what a patch does against the contract, one sentence; '' if it changes train.py alone."""
        found = rules.contract(patch)
        return found[1] if found else ""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides a measurement beside code, seed and machine."""
        return {
            "format": FORMAT,
            "budget": [self.budget_kind.value, self.budget, self.spending.tokens],
            "limit_seconds": self.limit_seconds,
            "split": self.corpus_split,
            "corpus": self.corpus_digest,
            "torch": version("torch"),
            "python": platform.python_version(),
        }

    @property
    def corpus_digest(self) -> str:
        """Digest of the texts and of their split."""
        from looper.benchmarks.research.prepare import corpus

        return corpus(self.corpus_split).digest

    @property
    def digest(self) -> str:
        """Content address of `identity`."""
        return digest_of(self.identity)

    def measure(self, train: str, *, seed: int, workspace: Workspace) -> Measurement:
        """Train one version with one seed in a sandbox and score it; what the code does wrong is in the answer.

        Raises WorkspaceError or MachineError if the sandbox fails, not the code.
        """
        started = time.monotonic()
        found = rules.objection(train)
        if found:
            return Measurement(status="refused", cheat=found[0], reason=found[1])
        with ThreadPoolExecutor(1) as pool, ExitStack() as boxes:
            training = pool.submit(self._train, train, seed, workspace)
            ready: list[Respondent] = []
            if self._may_start_early(workspace) and wait([training], timeout=HEAD_START).not_done:
                ready = self._respondents(boxes, train, seed, workspace, limit=2 * self.limit_seconds)
            measurement, weights = training.result()
            if measurement.status == "ok":
                ready = ready or self._respondents(boxes, train, seed, workspace, limit=self.limit_seconds)
                changes = self._score(train, seed, weights, workspace, ready)
                measurement = measurement.model_copy(update=changes)
        told = {"wall_seconds": time.monotonic() - started, "corpus": self.corpus_digest}
        return measurement.model_copy(update=told)

    def _may_start_early(self, workspace: Workspace) -> bool:
        """Whether answering processes can neither be reached by a training nor take its seconds."""
        return workspace.level == "bubblewrap" and (not self.one_at_a_time or (os.cpu_count() or 1) > 2)

    def _source(self, train: str, script: str) -> Source:
        scripts = {f"{ROOM}/{name}": (FOLDER / name).read_text(encoding="utf-8") for name in (script, *SCRIPTS)}
        files = {rules.EDITABLE: train, "prepare.py": (FOLDER / "prepare.py").read_text(encoding="utf-8")}
        sealed = scoring.held_out(self.corpus_split)
        return Source(name="research", files=files | scripts, packages=("torch",), sealed=sealed)

    def _command(self, script: str, seed: int) -> str:
        seconds = self.spending.seconds
        values = {"TOKENS": self.spending.tokens, "SEED": seed, "SEALED": f"$PWD/{ROOM}", "SECONDS": seconds or 0}
        words = " ".join(f'RESEARCH_{name}="{value}"' for name, value in values.items())
        return f"{words} exec python {ROOM}/{script}"

    def _train(self, train: str, seed: int, workspace: Workspace) -> tuple[Measurement, bytes]:
        """Train in a fresh box; return what can be said without a score, and the weights if the status is ok."""
        planned = self.spending.seconds
        limit = self.limit_seconds if planned is None else min(self.limit_seconds, planned + STARTING_SECONDS)
        with workspace.open(self._source(train, "start.py")) as box:
            windows = scoring.training_windows(self.spending.tokens, seed, self.corpus_split)
            box.write_bytes(f"{ROOM}/windows.bin", windows)
            done = box.run(self._command("start.py", seed), seconds=limit)
            report = report_in(box)
            weights, unread = weights_in(box, WEIGHT_BYTES)
            report = report or unread
        return Measurement.model_validate(
            facts_of(done, report) | status_of(done, report, bool(weights), limit)
        ), weights

    def _respondents(
        self, boxes: ExitStack, train: str, seed: int, workspace: Workspace, *, limit: float, count: int = 2
    ) -> list[Respondent]:
        source, command = self._source(train, "answer.py"), self._command("answer.py", seed)
        return [boxes.enter_context(respondent(workspace, source, command, limit=limit)) for _ in range(count)]

    def _score(
        self, train: str, seed: int, weights: bytes, workspace: Workspace, ready: list[Respondent]
    ) -> dict[str, Any]:
        """Ask the trained model in two fresh boxes, and return what that changes in the measurement.

        The second is asked when the first has ended: processes that run at once can tell one another something by locks
        on the files that both of them see.
        """
        asked = scoring.questions(self.corpus_split)
        answers: list[Tensor] = []
        for one, rows in zip(ready, (asked.scored, asked.probes), strict=True):
            changes, logits = self._answer(one, weights, rows)
            if logits is None:
                return unanswered(changes, lambda: self._practise(train, seed, weights, workspace))
            answers.append(logits)
        found = scoring.fault(asked, *answers)
        return refused(*found) if found else {"val_bpb": scoring.bits_per_byte(answers[0], self.corpus_split)}

    def _practise(self, train: str, seed: int, weights: bytes, workspace: Workspace) -> dict[str, Any]:
        """Ask about training windows; return what is to be said if there are no answers, {} otherwise."""
        with ExitStack() as boxes:
            (one,) = self._respondents(boxes, train, seed, workspace, limit=self.limit_seconds, count=1)
            return self._answer(one, weights, scoring.practice(self.corpus_split))[0]

    def _answer(self, one: Respondent, weights: bytes, rows: Tensor) -> tuple[dict[str, Any], Tensor | None]:
        """Return what to change in the measurement if there are no answers, and the answers: logits (N, T, V)."""
        answers = one.ask(weights, rows, size=scoring.answer_bytes(len(rows)))
        done, logits = answers.done, scoring.logits_of(answers.data, len(rows))
        if done.exit_code == 0 and not answers.report and logits is not None:
            return {}, logits
        report = answers.report or {"error": f"the model gave no answers (exit code {done.exit_code})"}
        return status_of(done, report, False, one.limit) | {"log": done.output[-LOG_CHARS:]}, None
