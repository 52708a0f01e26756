"""The GPU benchmark: a train.py of autoresearch's kind, the bundled one or a user's own, improved within five minutes.

The bundled train.py is judged as the research benchmark judges its own: a run trains it without the validation split,
two separate processes answer for its weights, and the score is computed here from their logits alone. On a processor
these are boxes of the workspace; on a GPU they are processes with the user's rights. Of a user's own checkout the score
can only be the line that its run prints. `notes` says which of this holds, before a run and beside its table.
"""

from __future__ import annotations

import dataclasses
import platform
import sys
import sysconfig
import time
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from looper.benchmarks.nanochat import checkout as user
from looper.benchmarks.nanochat import wording
from looper.benchmarks.nanochat.data import Prepared, Wanted, held_out, prepared
from looper.benchmarks.nanochat.judge import FOLDER, Judge, bundled
from looper.benchmarks.nanochat.kernels import kernels
from looper.benchmarks.research import contract as rules
from looper.benchmarks.research.budget import BudgetKind
from looper.benchmarks.research.measurement import Cheat, Measurement
from looper.errors import ConfigError
from looper.protocols import Workspace
from looper.records import Source, Task, Tests, digest_of

FORMAT = 2
"""Raised when the same code, budget and seed would be measured differently."""
GOAL = "Lower val_bpb, the validation bits per byte of train.py, within the same training budget."
FIXED = {
    "evaluate_bpb": Cheat.SCORE,
    "batches": Cheat.LONGER,
    "Clock": Cheat.LONGER,
    "TIME_BUDGET": Cheat.LONGER,
    "TOKEN_BUDGET": Cheat.LONGER,
    "UNCOUNTED_STEPS": Cheat.LONGER,
    "SEED": Cheat.SEED,
    "CONTEXT": Cheat.PREPARE,
    "VOCABULARY": Cheat.PREPARE,
}
"""Names of prepare.py that the bundled train.py may use and not bind anew."""


class Device(Enum):
    """Where training takes place; `auto` is CUDA where there is a GPU, else Apple's, else the processor."""

    auto = "auto"
    cuda = "cuda"
    mps = "mps"
    cpu = "cpu"


@cache
def available() -> Device:
    """Return the best device that PyTorch finds."""
    import torch

    if torch.cuda.is_available():
        return Device.cuda
    return Device.mps if torch.backends.mps.is_available() else Device.cpu


@dataclass(frozen=True, kw_only=True)
class NanoChat:
    """Improve a small language model's training within minutes on one GPU; smaller, on any machine."""

    repo: str = ""
    """Path of your own autoresearch checkout; empty: the bundled train.py. Its score is what its own run prints."""
    python: str = ""
    """Python that runs the checkout's train.py; empty: its .venv, else the one looper runs on."""
    data: str = ""
    """Folder or file of text or parquet, or a Hugging Face data set (owner/name); empty: Python's standard library."""
    column: str = "text"
    """Column of the texts, in parquet and data sets."""
    limit_mb: float = 4000.0
    """Millions of bytes of text that are taken at most."""
    cache: str = "~/.cache/nanochat"
    """Folder of prepared data; each choice of data, vocabulary and split has one of its own in it."""
    budget_kind: BudgetKind = BudgetKind.seconds
    """Unit of `budget`: seconds, or tokens, under which a run on one processor repeats."""
    budget: float = 300.0
    """What one training may spend; of a checkout, the TIME_BUDGET that its prepare.py has."""
    limit_seconds: float = 600.0
    """Wall-clock after which a run is stopped."""
    device: Device = Device.auto
    """Where the bundled train.py is trained: auto, cuda, mps or cpu."""
    context: int | None = None
    """Tokens that the model sees; null: 2048 on CUDA, else 256."""
    vocabulary: int = 8192
    """Tokens of the tokenizer that is made from the data; 257 is plain bytes."""
    validation_tokens: int | None = None
    """Tokens that the judge scores; null: 2^20 on CUDA, else 2^14."""
    corpus_split: int = 0
    """Which documents are held out; every number is another split."""
    goal: str = GOAL
    """First paragraph of what an agent is told."""
    scope: str = "nanochat"
    """Where results hold; statements in the memory carry it, with device, budget and split."""

    def __post_init__(self) -> None:
        """Check the values. Raises ConfigError."""
        for name in ("goal", "scope", "cache", "column"):
            if not getattr(self, name).strip():
                raise ConfigError(f"benchmark.{name} is empty; give a text")
        if self.budget_kind is BudgetKind.steps:
            raise ConfigError("benchmark.budget_kind=steps is not known here: choose seconds or tokens")
        lows = {"budget": 0.0, "limit_seconds": 0.0, "limit_mb": 0.0, "vocabulary": 256, "corpus_split": -1}
        for name, low in {**lows, "context": 1, "validation_tokens": 0}.items():
            value = getattr(self, name)
            if value is not None and not value > low:
                raise ConfigError(f"benchmark.{name}={value:g} must be above {low:g}")
        if self.vocabulary > 2**16:
            raise ConfigError(f"benchmark.vocabulary={self.vocabulary} must be at most {2**16}")
        if self.budget_kind is BudgetKind.seconds and self.budget >= self.limit_seconds:
            raise ConfigError(
                f"benchmark.budget={self.budget:g} seconds leave nothing of benchmark.limit_seconds="
                f"{self.limit_seconds:g} for the start and the hand-over; raise the limit"
            )
        self._check_checkout() if self.repo else self._check_own()

    def _check_own(self) -> None:
        if self.python:
            raise ConfigError("benchmark.python has no effect without benchmark.repo: leave one out or give both")

    def _check_checkout(self) -> None:
        plain = {field.name: field.default for field in dataclasses.fields(self)}
        names = ("data", "column", "limit_mb", "budget_kind", "context", "vocabulary", "validation_tokens", "device")
        for name in (*names, "corpus_split"):
            value = getattr(self, name)
            if value != plain[name]:
                said = value.value if isinstance(value, Enum) else value
                raise ConfigError(
                    f"benchmark.{name}={said} has no effect with benchmark.repo={self.repo}, whose prepare.py decides "
                    "it: leave it out, or change the checkout"
                )

    # ---------------------------------------------------------------- where and what

    @property
    def place(self) -> Device:
        """Where the bundled train.py is trained. Raises ConfigError for a GPU that is not there."""
        found = available() if self.device in (Device.auto, Device.cuda, Device.mps) else self.device
        if self.device not in (Device.auto, found):
            raise ConfigError(
                f"benchmark.device={self.device.value} is not there; PyTorch finds {found.value}: give that, or auto"
            )
        return found

    @property
    def checkout(self) -> user.Checkout:
        """The user's checkout. Raises ConfigError for none, and for a budget that is not its own."""
        found = user.checkout(self.repo, self.python)
        seconds = found.seconds
        if seconds is not None and seconds != self.budget:
            raise ConfigError(
                f"benchmark.budget={self.budget:g}, but prepare.py of {self.repo} has TIME_BUDGET = {seconds:g}, which "
                f"counts: give benchmark.budget={seconds:g}"
            )
        return found

    @property
    def corpus(self) -> Prepared:
        """The prepared data, made on first use. Raises ConfigError for data that is not there or too little."""
        found = prepared(self._wanted)
        if found.windows(self._validation_tokens) < 2:
            raise ConfigError(
                f"benchmark.validation_tokens={self._validation_tokens} and the data give less than 2 windows of "
                f"benchmark.context={self._context} tokens to score: raise the first, lower the second, or give more "
                "texts"
            )
        return found

    @property
    def _wanted(self) -> Wanted:
        return Wanted(
            data=self.data,
            column=self.column,
            limit_mb=self.limit_mb,
            vocabulary=self.vocabulary,
            split=self.corpus_split,
            context=self._context,
            cache=self.cache,
        )

    @property
    def _context(self) -> int:
        return self.context or (2048 if self.place is Device.cuda else 256)

    @property
    def _validation_tokens(self) -> int:
        return self.validation_tokens or (2**20 if self.place is Device.cuda else 2**14)

    @property
    def conditions(self) -> str:
        """Where results hold: place, budget and split."""
        place = f"checkout-{digest_of(self.checkout.identity)[:8]}" if self.repo else self.place.value
        return f"{self.scope}/{place}/{self.budget:g}-{self.budget_kind.value}/split{self.corpus_split}"

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides a measurement beside code, seed and machine."""
        known = {"format": FORMAT, "limit_seconds": self.limit_seconds}
        if self.repo:
            return {**known, "checkout": self.checkout.identity, "program": digest_of(self.checkout.program)}
        return {
            **known,
            "budget": [self.budget_kind.value, self.budget],
            "device": [self.place.value, _name(self.place)],
            "data": self.corpus.digest,
            "shape": [self._context, self.vocabulary, self._validation_tokens],
            "torch": version("torch"),
            "python": platform.python_version(),
        }

    @property
    def one_at_a_time(self) -> bool:
        """Whether trainings disturb one another."""
        return bool(self.repo) or self.budget_kind is BudgetKind.seconds or self.place is not Device.cpu

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results has to know; said before the run and beside its table."""
        if self.repo:
            return (
                "val_bpb is the line that the checkout's own run prints; nothing apart from the run has judged it.",
                "Runs of the checkout are not sandboxed: they have your rights and the network. Each has a fresh clone "
                "of its HEAD.",
                "Replicates repeat the run with another AUTORESEARCH_SEED, which a train.py need not read.",
            )
        if self.place is not Device.cpu:
            return (
                f"On {self.place.value}, training and answers are not sandboxed: they have your rights and network.",
                "The score is computed by another process from logits.",
            )
        if self.device is Device.auto:
            return (
                "No GPU was found: train.py trains a small model on the processor. benchmark.device=cpu means that.",
            )
        return ()

    @property
    def branches(self) -> str:
        """First part of the names of the git branches of campaigns."""
        return "autoresearch" if self.repo else "nanochat"

    @property
    def repository(self) -> str:
        """The user's checkout; '' for the bundled train.py."""
        return str(self.checkout.folder) if self.repo else ""

    @property
    def revision(self) -> str:
        """The commit of the checkout that campaigns start from; '' for the bundled train.py."""
        return self.checkout.commit if self.repo else ""

    def with_split(self, split: int) -> NanoChat:
        """Return the same with other documents held out. Raises ConfigError for a checkout, which has one split."""
        return dataclasses.replace(self, corpus_split=split)

    # ---------------------------------------------------------------- what an agent sees

    def files(self) -> dict[str, str]:
        """Return the files that an agent sees, path -> text."""
        if self.repo:
            return self.checkout.files()
        found = {name: (FOLDER / name).read_text(encoding="utf-8") for name in ("prepare.py", "train.py")}
        return found | {"program.md": self.rules()}

    def rules(self) -> str:
        """Return the contract in words, with the budget of this option."""
        if self.repo:
            return wording.checkout(seconds=self.checkout.seconds, limit=self.limit_seconds)
        unit, boxed = self.budget_kind.value, self.place is Device.cpu
        return wording.contract(budget=self.budget, unit=unit, limit=self.limit_seconds, boxed=boxed)

    def task(self, train: str, *, id: str) -> Task:
        """Return the task of improving one version of train.py."""
        files = self.files() | {rules.EDITABLE: train}
        sealed = () if self.repo else self._sealed()
        source = Source(name="nanochat", files=files, sealed=sealed)
        return Task(id=id, family="research", issue=f"{self.goal}\n\n{self.rules()}", source=source, tests=Tests())

    def contract(self, patch: str) -> str:
        """Return what a patch does against the contract, one sentence; '' if it changes train.py alone."""
        found = rules.contract(patch)
        return found[1] if found else ""

    def _texts(self) -> tuple[str, ...]:
        """Return where the validation texts lie on this machine: the user's folder or file, else modules of Python."""
        if place := self._wanted.place:
            return (str(place),)
        library = Path(sysconfig.get_path("stdlib")).resolve()
        return tuple(str(library / path) for path in self._sealed())

    def _sealed(self) -> tuple[str, ...]:
        return held_out(self.corpus_split) if not self.data else ()

    # ---------------------------------------------------------------- measuring

    def measure(self, train: str, *, seed: int, workspace: Workspace) -> Measurement:
        """Train one version with one seed and score it; what the code does wrong is in the answer.

        Raises WorkspaceError or MachineError if the sandbox fails, not the code.
        """
        started = time.monotonic()
        if self.repo:
            budget, limit = self.budget, self.limit_seconds
            made = self.checkout.measure(train, seed=seed, budget=budget, limit_seconds=limit)
        elif found := rules.objection(train, fixed=FIXED):
            return Measurement(status="refused", cheat=found[0], reason=found[1])
        else:
            made = self._judge(workspace).measure(train, seed).model_copy(update={"corpus": self.corpus.digest})
        return made.model_copy(update={"wall_seconds": time.monotonic() - started})

    def _judge(self, workspace: Workspace) -> Judge:
        corpus = self.corpus
        timed = self.budget_kind is BudgetKind.seconds
        return Judge(
            prepared=corpus,
            device=self.place.value,
            boxed=self.place is Device.cpu,
            context=self._context,
            vocabulary=self.vocabulary,
            validation_tokens=self._validation_tokens,
            seconds=self.budget if timed else self.limit_seconds,
            tokens=0 if timed else int(self.budget),
            limit_seconds=self.limit_seconds,
            sealed=self._sealed(),
            hidden=(str(corpus.folder), *self._texts()),
            kernels=kernels(corpus.folder, bundled(), _name(self.place)) if self.place is Device.cuda else None,
            workspace=workspace,
        )


def _name(place: Device) -> str:
    if place is not Device.cuda:
        return sys.platform
    import torch

    return str(torch.cuda.get_device_name())
