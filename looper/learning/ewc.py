"""Elastic weight consolidation: one adapter goes on learning, held near the weights that earlier stages relied on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from looper.errors import ConfigError, TrainingError
from looper.learning.fitting import Fitting, fitted, owned, replaced
from looper.protocols import Ability, Lab, Quadratic
from looper.records import Adapter, Example, Skill, digest_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.float32]]

Learned = tuple[Adapter, Sequence[Example]]
"""An earlier stage: the adapter after it, and what it was trained on."""


@dataclass(frozen=True, kw_only=True)
class Ewc(Fitting):
    """Continues one adapter with a quadratic pull to its last state, weighted by the Fisher information.

    loss = cross-entropy + lam / 2 * sum_i F_i (w_i - w*_i)^2    (Kirkpatrick et al. 2017, arXiv 1612.00796)
    F after stage t = gamma * F after stage t-1 + F_t / mean(F_t)    (online EWC, Schwarz et al. 2018, arXiv 1805.06370)

    Each stage's F_t is divided by its mean over all parameters: as it is, it scales with the length of the examples
    and with the model, and so would the lam that fits. The running F lies beside the adapter in `fisher/`; where it
    is missing it is measured again.
    """

    lam: float = 1.0
    """Strength of the pull; 0 is plain fine-tuning. On the bundled model, with two made-up stages of 24 examples, 0.1
    to 1 kept the first and learned the second, and 100 hardly learned: a grid from 0.001 to 100 covers it."""
    gamma: float = 0.9
    """How much of the earlier stages' importance each stage keeps; 1 forgets none."""
    samples: int = 200
    """Most examples of a stage that its importance is measured on, drawn with the run's seed."""
    sampled: bool = True
    """Draw the labels from the model itself (the Fisher information); false takes the examples' own (empirical)."""
    product: bool = False
    """Measure and penalise the entries of each B A, the change of a layer's weights, instead of those of A and B: the
    same function has many A and B (arXiv 2602.17559; there every stage trains a fresh adapter, here one goes on). Its
    importance is as large as the base model's layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lam < 0.0:
            raise ConfigError(f"strategy.lam={self.lam} is negative; choose 0 (no pull) or more")
        if not 0.0 <= self.gamma <= 1.0:
            raise ConfigError(f"strategy.gamma={self.gamma} is no share; choose from 0 to 1")
        if self.samples < 1:
            raise ConfigError(f"strategy.samples={self.samples} is not positive; choose 1 or more")

    def asks(self, stages: int) -> frozenset[Ability]:
        """Every stage's importance is measured; the first one is held near nothing."""
        if not self.lam:
            return frozenset()
        return frozenset({Ability.importance, Ability.quadratic} if stages > 1 else {Ability.importance})

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with a newly trained adapter in place of its last one.

        Raises NothingToLearn for too few tasks, TrainingError for an adapter of another base model, one of several,
        or one whose past is unknown.
        """
        self.preflight(examples, lab)
        folders = owned(skill, lab)
        if len(folders) > 1:
            raise TrainingError(
                f"EWC goes on with one adapter, not {len(folders)}; consolidate them, or start a new run"
            )
        past = learned(lab)
        penalty = None
        if folders and self.lam:
            if not past or past[-1][0].digest != skill.adapters[-1].digest:
                raise TrainingError(
                    f"nothing is known of what adapter {folders[0]} was trained on, so its importance cannot be "
                    "measured; start a new run, or give strategy.lam=0"
                )
            importance = self.importance(past, lab)
            penalty = Quadratic(anchor=folders[0], importance=importance, lam=self.lam, product=self.product)
        adapter = fitted(lab, examples, start=folders[0] if folders else None, penalty=penalty)
        if self.lam:
            lab.note(_facts(self.importance([*past, (adapter, examples)], lab)))
        return replaced(skill, adapter)

    def importance(self, stages: Sequence[Learned], lab: Lab) -> Path:
        """Return the file with the running importance after some stages, measuring what is not there yet."""
        paths: list[Path] = []
        drawn: list[Sequence[Example]] = []
        key = digest_of([lab.model_id, self.gamma, self.sampled, self.product, lab.seed])
        for adapter, examples in stages:
            drawn.append(self._draw(examples, lab.seed))
            key = digest_of([key, adapter.digest, [digest_of(example) for example in drawn[-1]]])
            paths.append(Path(adapter.path).with_name("fisher") / f"{key}.safetensors")
        ready = max((i for i, path in enumerate(paths) if path.is_file()), default=-1)
        for i in range(ready + 1, len(stages)):
            self._measure(Path(stages[i][0].path), drawn[i], paths[i], paths[i - 1] if i else None, lab)
        return paths[-1]

    def _draw(self, examples: Sequence[Example], seed: int) -> Sequence[Example]:
        if len(examples) <= self.samples:
            return examples
        numbers = Random(f"fisher/{seed}").sample(range(len(examples)), self.samples)
        return [examples[i] for i in sorted(numbers)]

    def _measure(self, adapter: Path, examples: Sequence[Example], out: Path, before: Path | None, lab: Lab) -> None:
        """Measure one stage's importance and write the running one."""
        from safetensors.numpy import load_file, save_file

        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent) as place:  # another job of a sweep may measure the very same
            raw, part = Path(place) / "raw.safetensors", Path(place) / "running.safetensors"
            lab.trainer.importance(
                lab.model_path, examples, adapter, raw, sampled=self.sampled, product=self.product, seed=lab.seed
            )
            new, mean = normalised(load_file(raw))
            running = decayed(load_file(before), new, self.gamma) if before else new
            save_file(dict(running), part, metadata={"mean": repr(mean), "examples": str(len(examples))})
            part.replace(out)


def learned(lab: Lab) -> list[Learned]:
    """Return the earlier stages in which an adapter was trained, oldest first."""
    found: list[Learned] = []
    for past in lab.past:
        last = past.skill.adapters[-1] if past.skill.adapters else None
        if last is not None and past.examples and (not found or found[-1][0].digest != last.digest):
            found.append((last, past.examples))
    return found


def normalised(fisher: Tensors) -> tuple[Tensors, float]:
    """Return an importance divided by its mean over all parameters, and that mean.

    Raises TrainingError for one that is zero everywhere, or not finite.
    """
    total = sum(float(values.sum(dtype="float64")) for values in fisher.values())
    mean = total / max(1, sum(values.size for values in fisher.values()))
    if not 0.0 < mean < float("inf"):
        raise TrainingError(f"the mean importance of the adapter's weights is {mean}; lower trainer.lr or give lam=0")
    return {name: values / values.dtype.type(mean) for name, values in fisher.items()}, mean


def decayed(old: Tensors, new: Tensors, gamma: float) -> Tensors:
    """Return gamma * old + new. Raises TrainingError for importances of different adapters."""
    if {n: v.shape for n, v in old.items()} != {n: v.shape for n, v in new.items()}:
        raise TrainingError("the earlier importance is of an adapter of other layers or rank; start a new run")
    return {name: old[name] * old[name].dtype.type(gamma) + values for name, values in new.items()}


def _facts(path: Path) -> dict[str, Any]:
    """Return what the report says of an importance: the mean before it was divided by it, and the sample."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    return {"fisher_mean": float(metadata["mean"]), "fisher_examples": int(metadata["examples"])}
