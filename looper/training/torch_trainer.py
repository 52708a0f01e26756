"""LoRA training with torch and PEFT, as an option of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.errors import TrainingError
from looper.protocols import Ability, Fit, Objective, Penalty
from looper.records import Example
from looper.training.schedule import TorchSchedule


@dataclass(frozen=True, kw_only=True)
class TorchTrainer(TorchSchedule):
    """Trains a LoRA adapter on all linear layers with torch and PEFT.

    The same inputs on the same kind of processor give the same adapter, bit for bit, with `threads` 1.
    """

    @property
    def abilities(self) -> frozenset[Ability]:
        """All that any strategy asks for."""
        return frozenset(Ability)

    def fit(
        self,
        model: Path,
        examples: Sequence[Example],
        *,
        start: Path | None,
        out: Path,
        seed: int,
        under: Sequence[Path] = (),
        penalty: Penalty | None = None,
        objective: Objective | None = None,
    ) -> Fit:
        """Train an adapter of the model in `model`, from `start` or anew, into the folder `out`.

        A finished training of the very same inputs in `out` is returned as it is, one that was killed goes on from its
        last checkpoint to the same bits, and anything else there is replaced. An example that the model cannot take is
        left out, logged, and counted in the manifest and the history. `process` says where it is trained.

        Raises TrainingError if no example can be trained on, for an adapter, penalty or label that does not fit, for
        a loss that is not finite (the best finished epoch's adapter then stays beside `out`, and the error names it),
        or for a process of its own that was killed.
        """
        from looper.training import adapters, lora, own_process
        from looper.training.crew import Crew

        check(model, examples)
        if objective is None:
            check_wanted(examples)
        inputs = adapters.inputs_digest(
            model, examples, start, self.decisive(), seed, under=under, penalty=penalty, objective=objective
        )
        job = lora.Job(
            model=model,
            examples=examples,
            start=start,
            out=out,
            seed=seed,
            under=under,
            penalty=penalty,
            objective=objective,
            inputs=inputs,
        )
        crew = Crew()
        return own_process.once(self, job) if own_process.wanted(self, job, crew) else lora.once(self, job, crew)

    def losses(self, model: Path, examples: Sequence[Example], adapters: Sequence[Path] = ()) -> Sequence[float]:
        """Return each example's mean loss per supervised token (nats) under the sum of some adapters.

        It is NaN for an example that the model cannot take; such are logged. Raises TrainingError if all are.
        """
        from looper.training import measures

        check(model, examples)
        return measures.losses(self, model, examples, adapters)

    def importance(
        self,
        model: Path,
        examples: Sequence[Example],
        adapter: Path,
        out: Path,
        *,
        sampled: bool,
        product: bool,
        seed: int,
    ) -> Path:
        """Write the diagonal Fisher information of an adapter's parameters to the file `out` and return it.

        The mean over examples of the squared gradient of one example's log-likelihood: the sum over its tokens,
        weighted by the example's weights. Nothing is normalised; the sum of all entries is in the file's metadata as
        `trace`. A file of the very same inputs is kept. With `product`, the tensors are those of every layer's B A
        (without alpha / rank), named `<layer>.lora_BA.weight`, and take as much memory as the model's linear layers.

        Raises TrainingError if no example can be used, or a gradient is not finite.
        """
        from looper.training import adapters, fisher

        check(model, examples)
        settings = {"precision": self.precision.value, "sampled": sampled, "product": product}
        inputs = adapters.inputs_digest(model, examples, adapter, settings, seed)
        with adapters.alone(out):
            return fisher.importance(
                self, model, examples, adapter, out, sampled=sampled, product=product, seed=seed, inputs=inputs
            )

    def embeddings(self, model: Path, texts: Sequence[str]) -> Any:
        """Return the mean last hidden state of each text under the base model, a float32 array (N, D).

        A text longer than the model takes is cut at its end. Raises TrainingError for a text without a token.
        """
        from looper.training import measures

        check_model(model)
        return measures.embeddings(self, model, texts)

    def divergence(
        self, model: Path, groups: Sequence[Sequence[Example]], adapters: Sequence[Path]
    ) -> Sequence[float | TrainingError]:
        """Return for each group of examples the mean KL(base || base and adapters) in nats, with one load of the base.

        Over supervised positions, which count by their weights. In the place of a group of which no example can be
        used stands the error that says why.
        """
        from looper.training import measures

        check_model(model)
        return measures.divergence(self, model, groups, adapters)


def check_model(model: Path) -> None:
    """Raise TrainingError unless there is a model on disk."""
    for name in ("config.json", "tokenizer.json"):
        if not (model / name).is_file():
            raise TrainingError(
                f"model folder {str(model)!r} has no {name}; training needs a model in Hugging Face's format on disk"
            )
    if not any(model.glob("*.safetensors")):  # an adapter's digest is of these: other formats would escape it
        raise TrainingError(f"model folder {str(model)!r} has no *.safetensors; save its weights in that format")


def check(model: Path, examples: Sequence[Example]) -> None:
    """Raise TrainingError unless there is a model on disk and something to train on."""
    check_model(model)
    if not examples:
        raise TrainingError("no examples to train on; work on more tasks, or give strategy=none")


def check_wanted(examples: Sequence[Example]) -> None:
    """Raise TrainingError for rejected examples, which plain training would take for wanted ones."""
    rejected = sum(example.label < 0 for example in examples)
    if rejected:
        raise TrainingError(
            f"{rejected} of {len(examples)} examples are rejected sessions (data=preference), and this strategy would "
            "imitate them; give strategy=dpo or strategy=kto, or data=trajectory"
        )
