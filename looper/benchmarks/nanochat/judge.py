"""Train and score one version of the bundled train.py: one run trains it, two others answer for its weights.

On a processor all three are boxes of the workspace. On a GPU, whose drivers no box shows, they are processes in folders
of their own; there the validation split is hidden from honest code alone (watch.py refuses to open it, and the texts
that it was made from where they are at hand).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.benchmarks.nanochat import scoring
from looper.benchmarks.nanochat.data import Prepared
from looper.benchmarks.nanochat.kernels import COMPILED, Kernels
from looper.benchmarks.nanochat.outside import Outside
from looper.benchmarks.research.benchmark import FOLDER as SHARED
from looper.benchmarks.research.benchmark import SCRIPTS
from looper.benchmarks.research.contract import EDITABLE
from looper.benchmarks.research.ending import ROOM, facts_of, refused, report_in, status_of, unanswered, weights_in
from looper.benchmarks.research.measurement import LOG_CHARS, Measurement
from looper.protocols import Box, Workspace
from looper.records import Source

FOLDER = Path(__file__).parent
WEIGHT_BYTES = 4 << 30
BOX_WEIGHT_BYTES = 128 << 20
PART_BYTES = 32 << 20
"""Answers that are handed over at a time."""
STARTING_SECONDS = 120.0
"""What a budget of seconds leaves for starting, compiling and handing over, if the limit allows so much."""
TOLERANCES = {"cpu": 1e-3}
LOW_PRECISION = 5e-2
"""Nats by which two answers to one question may differ on a GPU, which computes in 16 bits."""


def bundled() -> str:
    """Return the train.py that campaigns start from."""
    return (FOLDER / EDITABLE).read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Measures versions of train.py under one set of conditions."""

    prepared: Prepared
    device: str
    boxed: bool
    """Whether runs take place in boxes of the workspace."""
    context: int
    vocabulary: int
    validation_tokens: int
    seconds: float
    """Budget; whatever it is if `tokens` is above 0."""
    tokens: int
    """Budget of tokens, 0 where seconds decide."""
    limit_seconds: float
    sealed: tuple[str, ...]
    """Files of the standard library that a box does not show."""
    hidden: tuple[str, ...]
    """Folders that a run without a box may not open."""
    kernels: Kernels | None = None
    """What a run without a box may start from."""
    workspace: Workspace

    def measure(self, train: str, seed: int) -> Measurement:
        """Train a version with a seed, and score it."""
        measurement, weights = self._train(train, seed)
        if measurement.status != "ok":
            return measurement
        return measurement.model_copy(update=self._score(train, seed, weights))

    def _train(self, train: str, seed: int) -> tuple[Measurement, bytes]:
        limit = self.limit_seconds
        if not self.tokens:
            limit = min(limit, self.seconds + max(STARTING_SECONDS, self.seconds))
        with self._open(train, "start.py") as box:
            self._lay_data(box)
            if self.kernels:
                self.kernels.lend(box.root)
            done = box.run(self._command("start.py", seed), seconds=limit)
            report = report_in(box)
            weights, unread = weights_in(box, BOX_WEIGHT_BYTES if self.boxed else WEIGHT_BYTES)
            report = report or unread
            ended = status_of(done, report, bool(weights), limit)
            if self.kernels and ended["status"] == "ok" and train == bundled():
                self.kernels.keep(box.root)
        return Measurement.model_validate(facts_of(done, report) | ended), weights

    def _score(self, train: str, seed: int, weights: bytes) -> dict[str, Any]:
        rows = self.prepared.validation(self.validation_tokens)
        asked = scoring.questions(rows)
        readings = scoring.readings(asked, rows[:, 1:], self.prepared.lengths())
        for part, reading in zip((asked.scored, asked.probes), readings, strict=True):  # one after the other: what runs
            changes = self._answer(train, seed, weights, part, reading)  # at once can speak, by locks on common files
            if changes:
                return unanswered(changes, lambda: self._practise(train, seed, weights, min(64, len(rows))))
        found = scoring.fault(asked, *readings, TOLERANCES.get(self.device, LOW_PRECISION))
        return refused(*found) if found else {"val_bpb": readings[0].bits_per_byte}

    def _practise(self, train: str, seed: int, weights: bytes, count: int) -> dict[str, Any]:
        """Ask about training windows; return what is to be said if there are no answers, {} otherwise."""
        return self._answer(train, seed, weights, self.prepared.practice(count)[:, :-1], scoring.nothing())

    def _answer(self, train: str, seed: int, weights: bytes, rows: Any, reading: scoring.Reading) -> dict[str, Any]:
        """Ask the trained model about rows; return what to change in the measurement if it does not answer them."""
        with self._open(train, "answer.py") as box:
            self._lay_data(box)
            box.write_bytes(f"{ROOM}/model.pt", weights)
            shape = {"windows": self._windows, "vocabulary": self.vocabulary}
            command = self._command("answer.py", seed)
            limit, place = self.limit_seconds, self._scored_on
            done, whole = scoring.ask(box, command, rows, reading.take, shape=shape, limit=limit, device=place)
            report = report_in(box)
        if done.exit_code == 0 and not report and whole:
            return {}
        report = report or {"error": f"the model gave no answers (exit code {done.exit_code})"}
        return status_of(done, report, False, self.limit_seconds) | {"log": done.output[-LOG_CHARS:]}

    @property
    def _scored_on(self) -> str:
        return "cuda" if self.device == "cuda" else "cpu"  # MPS has no 64 bits

    @property
    def _windows(self) -> int:
        return max(1, PART_BYTES // (4 * self.context * self.vocabulary))

    def _open(self, train: str, script: str) -> Any:
        texts = {name: (SHARED / name).read_text(encoding="utf-8") for name in SCRIPTS}
        texts |= {script: (FOLDER / script).read_text(encoding="utf-8")}
        files = {EDITABLE: train, "prepare.py": (FOLDER / "prepare.py").read_text(encoding="utf-8")}
        files |= {f"{ROOM}/{name}": text for name, text in texts.items()}
        if not self.boxed:
            return Outside().open(Source(name="nanochat", files=files))
        packages = ("torch", "numpy")
        return self.workspace.open(Source(name="nanochat", files=files, packages=packages, sealed=self.sealed))

    def _lay_data(self, box: Box) -> None:
        if self.boxed:
            for name, data in self.prepared.box_files().items():
                box.write_bytes(f".data/{name}", data)

    def _command(self, script: str, seed: int) -> str:
        values = {
            "CACHE": "$PWD/.data" if self.boxed else str(self.prepared.training),
            "DEVICE": self.device,
            "CONTEXT": self.context,
            "VOCABULARY": self.vocabulary,
            "SECONDS": self.seconds,
            "TOKENS": self.tokens,
            "SEED": seed,
        }
        words = [f'NANOCHAT_{name}="{value}"' for name, value in values.items()]
        words += [f'JUDGE_WINDOWS="{self._windows}"']
        if not self.boxed:
            words += [f'JUDGE_SEALED="{":".join(self.hidden)}"']
            words += [f'{name}="$PWD/{COMPILED}"' for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")]
        return f"{' '.join(words)} exec python {ROOM}/{script}"
