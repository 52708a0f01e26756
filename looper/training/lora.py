"""The LoRA training itself: optimiser, steps, epochs, what is kept. Imported only when something is trained."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from looper.errors import TrainingError
from looper.protocols import Fit, Objective, Penalty, SelfDistillation
from looper.records import Example
from looper.training import adapters, checkpoints
from looper.training.adapted import Adapted
from looper.training.batches import Unit, batches, split, units
from looper.training.checkpoints import Progress
from looper.training.crew import Crew
from looper.training.objectives import Loss, loss_of
from looper.training.penalties import Term, term
from looper.training.reproducible import reproducible
from looper.training.schedule import TorchSchedule
from looper.training.shown import shown_to_teacher
from looper.training.tokens import Tokenised, usable

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of `fit`: what is to be trained, on what and from where."""

    model: Path
    examples: Sequence[Example]
    start: Path | None
    out: Path
    seed: int
    under: Sequence[Path] = ()
    penalty: Penalty | None = None
    objective: Objective | None = None
    inputs: str
    """Digest of all that decides the result."""


@dataclass(frozen=True, kw_only=True)
class _Lessons:
    """A job's examples, tokenised and put together."""

    train: Sequence[Unit]
    held: Sequence[Unit]
    shown: Mapping[int, Tokenised]
    """What the teacher of self-distillation sees, by index."""
    left_out: Mapping[str, int]
    """How many examples cannot be used, by reason."""

    @property
    def longest(self) -> int:
        """Most tokens of an example, in any view of it."""
        seen = [*self.shown.values(), *(e for unit in (*self.train, *self.held) for e in unit)]
        return max(len(e.ids) for e in seen)


def _lessons(trainer: TorchSchedule, job: Job) -> _Lessons:
    """Tokenise a job's examples, hold some out, and put together what the objective compares."""
    shown: Mapping[int, Tokenised] = {}
    if isinstance(job.objective, SelfDistillation):
        examples, shown, left_out = shown_to_teacher(job.model, job.examples)
    else:
        examples, left_out = usable(job.model, job.examples)
    train, held = split(trainer, examples, job.seed)
    try:
        together = units(train, job.objective, job.seed), units(held, job.objective, job.seed)
    except TrainingError:
        if not held:
            raise
        LOG.info("the held-out tasks, or the others, have nothing that can be compared; all are trained on")
        together = units(examples, job.objective, job.seed), ([], {})
    (kept, dropped), (watched, also_dropped) = together
    counts = dict(left_out)
    for reason, count in (*dropped.items(), *also_dropped.items()):
        counts[reason] = counts.get(reason, 0) + count
        LOG.warning("%d examples are left out: %s", count, reason)
    return _Lessons(train=kept, held=watched, shown=shown, left_out=counts)


class _Training:
    """The state of one training."""

    def __init__(
        self,
        adapted: Adapted,
        parameters: list[Tensor],
        loss: Loss,
        penalty: Term | None,
        epochs: Sequence[Sequence[Sequence[Unit]]],
    ) -> None:
        self.trainer, self.crew = adapted.trainer, adapted.crew
        self.adapted, self.parameters, self.loss, self.penalty, self.epochs = adapted, parameters, loss, penalty, epochs
        self.steps = sum(len(epoch) for epoch in epochs)
        fused = adapted.device.type in ("cpu", "cuda")
        self.optimiser = torch.optim.AdamW(parameters, lr=self.trainer.lr, weight_decay=0.0, fused=fused)
        self.at = Progress()

    def epoch(self, epoch: Sequence[Sequence[Unit]], pause: Callable[[], None]) -> dict[str, float]:
        """Take a step on every batch that is left and return the epoch's row; `pause` is called between steps."""
        at = self.at
        for batch in epoch[at.batch :]:
            mass = self.loss.mass(batch)
            loss, penalty = self._gradient(batch)
            self._move(loss + (self.penalty.lam * penalty if self.penalty else 0.0))
            at.step, at.batch = at.step + 1, at.batch + 1
            at.loss, at.mass, at.penalty = at.loss + loss * mass, at.mass + mass, at.penalty + penalty
            if at.batch < len(epoch):
                pause()
        row = {"epoch": float(at.epoch + 1), "train_loss": at.loss / at.mass}
        if self.penalty:
            mean = at.penalty / len(epoch)
            row |= {"penalty": self.penalty.lam * mean, "penalty_unweighted": mean}
        return row

    def _gradient(self, batch: Sequence[Unit]) -> tuple[float, float]:
        """Compute a batch's gradient, the penalty's included; return the loss and the penalty without its factor."""
        loss = 0.0
        for part in self.loss.parts(batch, self.crew.share(batch)):
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        loss = self.crew.total(self.parameters, loss)
        return loss, self.penalty.add() if self.penalty else 0.0

    def _move(self, loss: float) -> None:
        """Take the optimiser's step. Raises TrainingError if the loss or the gradient is not finite."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.trainer.clip))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"the loss is {loss} and its gradient's norm {norm} at step {self.at.step + 1} of {self.steps}; "
                f"lower trainer.lr={self.trainer.lr:g}" + (" or the penalty's lam" if self.penalty else "")
            )
        for group in self.optimiser.param_groups:
            group["lr"] = self.trainer.lr * self.trainer.rate(self.at.step, self.steps)
        self.optimiser.step()
        self.optimiser.zero_grad()

    @torch.no_grad()
    def held_out(self, held: Sequence[Unit], objective: Objective | None) -> float:
        """Return the mean loss on held-out units."""
        if objective is None:
            examples = [e for unit in held for e in unit]
            losses, weights = self.adapted.example_losses(examples), [e.weight for e in examples]
            found = sum(a * w for a, w in zip(losses, weights, strict=True)) / sum(weights)
        else:
            found = sum(float(part) for part in self.loss.parts(held, held))
        if not math.isfinite(found):
            raise TrainingError(f"the held-out loss is {found} after epoch {self.at.epoch + 1}; lower trainer.lr")
        return found


def once(trainer: TorchSchedule, job: Job, crew: Crew) -> Fit:
    """Train an adapter in this process, unless that was done before; another job of a sweep may want the same one."""
    with adapters.alone(job.out) if crew.main else nullcontext():
        done = crew.agree(adapters.finished(job.out, job.inputs) if crew.main else None)
        return done if done is not None else fit(trainer, job, crew)


def fit(trainer: TorchSchedule, job: Job, crew: Crew) -> Fit:
    """Train an adapter and publish it; see TorchTrainer.fit."""
    began = time.monotonic()
    part = job.out.with_name(job.out.name + ".part")
    state = checkpoints.matching(part, job.inputs)
    crew.wait()  # until every process has read the state
    if crew.main and state is None:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    lessons = _lessons(trainer, job)
    with reproducible(trainer.threads, job.seed):
        adapted = Adapted(trainer, job.model, lessons.longest, under=job.under, crew=crew)
        parameters = adapted.attach(job.start)
        loss = loss_of(job.objective, adapted, [*lessons.train, *lessons.held], lessons.shown)
        penalty = term(job.penalty, adapted.named()) if job.penalty is not None else None
        epochs = [batches(lessons.train, trainer.batch, job.seed, epoch) for epoch in range(trainer.epochs)]
        training = _Training(adapted, parameters, loss, penalty, epochs)
        if state is not None:
            training.at = checkpoints.restore(state, parameters, training.optimiser)
        resumed = training.at.step
        try:
            _epochs(training, lessons, job, part, began)
        except TrainingError as error:
            saved = (part / "adapter_model.safetensors").is_file()
            kept = f"the best finished epoch's adapter is in {part}" if saved else "no epoch was finished"
            raise TrainingError(f"{error}; {kept}") from error
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"the graphics card has too little memory for trainer.batch_tokens={trainer.batch_tokens}; lower it, "
                "or train on shorter examples"
            ) from error
    at = training.at
    fitted = Fit(
        adapter=job.out,
        train_loss=at.history[-1]["train_loss"],
        held_out_loss=min((row["held_out_loss"] for row in at.history), default=None) if lessons.held else None,
        steps=at.step,
        seconds=at.seconds + time.monotonic() - began,
        history=tuple(at.history),
    )
    counts = {"examples": sum(map(len, lessons.train)), "held_out_examples": sum(map(len, lessons.held))}
    facts = {"inputs": job.inputs, **counts, "bf16": adapted.bf16, "seed": job.seed}
    facts |= {"data": adapters.data_digest(job.examples), "settings": trainer.decisive()}
    facts |= {"left_out": dict(lessons.left_out)} if lessons.left_out else {}
    facts |= {"resumed_at_step": resumed} if resumed else {}
    if crew.main:
        (part / checkpoints.STATE).unlink(missing_ok=True)
        adapters.publish(part, job.out, fitted, facts, model=job.model)
    crew.wait()
    return fitted


def _epochs(training: _Training, lessons: _Lessons, job: Job, part: Path, began: float) -> None:
    """Train epoch after epoch, keeping the best in `part`, until patience or the epochs end."""
    trainer, saved = training.trainer, time.monotonic()

    def store() -> None:
        nonlocal saved
        if training.crew.main:
            at = replace(training.at, seconds=training.at.seconds + time.monotonic() - began)
            checkpoints.save(part, job.inputs, at, training.parameters, training.optimiser)
        saved = time.monotonic()

    def pause() -> None:
        if time.monotonic() - saved >= 60.0 * trainer.checkpoint_minutes:
            store()

    while training.at.epoch < len(training.epochs) and training.at.waited < trainer.patience:
        row = training.epoch(training.epochs[training.at.epoch], pause)
        at = training.at
        if lessons.left_out:
            row["left_out"] = float(sum(lessons.left_out.values()))
        if lessons.held:
            row["held_out_loss"] = training.held_out(lessons.held, job.objective)
            at.waited = 0 if row["held_out_loss"] < at.best else at.waited + 1
            at.best = min(at.best, row["held_out_loss"])
        if at.waited == 0 and training.crew.main:
            training.adapted.save(part)
        at.history.append(row)
        at.epoch, at.batch, at.loss, at.mass, at.penalty = at.epoch + 1, 0, 0.0, 0.0, 0.0
        if at.epoch < len(training.epochs) and at.waited < trainer.patience:
            store()
