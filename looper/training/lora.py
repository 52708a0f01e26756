"""The LoRA training itself: model, batches, optimiser, epochs. Imported only when something is trained."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from looper.errors import TrainingError
from looper.protocols import Fit
from looper.records import Example, digest_of
from looper.training import adapters
from looper.training.tokens import Tokenised, tokenise

if TYPE_CHECKING:
    from looper.training.torch_trainer import TorchTrainer

EAGER = 1024
"""Tokens up to which plain attention is used on a CPU: torch's flash attention is slower there, backwards above all."""

SMALL = 100_000_000
"""Parameters below which a graphics card is not worth its start."""


@contextmanager
def _reproducible(threads: int, seed: int) -> Iterator[None]:
    """Fix threads, seed and algorithms for a while, and keep the libraries' notices off the terminal."""
    from transformers.utils import logging

    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    bar = logging.is_progress_bar_enabled()
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic products need there
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT calls what transformers has renamed
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)
        if bar:
            logging.enable_progress_bar()


class Adapted:
    """A base model on its device, with an adapter or without."""

    def __init__(self, trainer: TorchTrainer, folder: Path, longest: int) -> None:
        from transformers import AutoModelForCausalLM

        self.trainer, self.folder = trainer, folder
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if not torch.cuda.is_available() else "auto",
            local_files_only=True,
            attn_implementation="eager" if longest <= EAGER and not torch.cuda.is_available() else "sdpa",
        )
        large = sum(p.numel() for p in model.parameters()) >= SMALL
        self.device = "cuda" if large and torch.cuda.is_available() else "cpu"
        self.base: Any = model.to(self.device) if large else model.float()
        self.bf16 = _bf16(trainer.precision.value, self.device)
        self.peft: Any = None

    def attach(self, start: Path | None) -> list[Tensor]:
        """Add a new adapter, or the one in `start`, and return its parameters."""
        from peft import LoraConfig, PeftModel, get_peft_model

        t = self.trainer
        if start is None:
            targets = _linear_names(self.base)
            config = LoraConfig(r=t.rank, lora_alpha=t.alpha, target_modules=targets, task_type="CAUSAL_LM")
            self.peft = get_peft_model(self.base, config)
        else:
            there = json.loads((start / "adapter_config.json").read_text(encoding="utf-8"))
            if (there["r"], there["lora_alpha"]) != (t.rank, t.alpha):
                raise TrainingError(
                    f"adapter {start} has rank {there['r']} and alpha {there['lora_alpha']}, the trainer {t.rank} and "
                    f"{t.alpha}; set trainer.rank and trainer.alpha alike, or start anew (strategy.fresh=true)"
                )
            self.peft = PeftModel.from_pretrained(self.base, str(start), is_trainable=True)
        return [p for p in self.peft.parameters() if p.requires_grad]

    def cross_entropy(self, batch: Sequence[Tokenised]) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses (N,), weights (N,) and rows (N,) of the tokens that carry weight."""
        width = max(len(example.ids) for example in batch)
        ids = torch.tensor([[*e.ids, *[0] * (width - len(e.ids))] for e in batch], device=self.device)  # (B, T)
        weights = torch.tensor([[*e.weights, *[0.0] * (width - len(e.weights))] for e in batch], device=self.device)
        rows, columns = weights[:, 1:].nonzero(as_tuple=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            # Padding is on the right, so causality hides it; only weighted positions need logits.
            hidden = self.base.get_decoder()(ids[:, :-1], use_cache=False).last_hidden_state
            logits = self.base.get_output_embeddings()(hidden[rows, columns])  # (N, V)
        losses = F.cross_entropy(logits.float(), ids[rows, columns + 1], reduction="none")
        return losses, weights[rows, columns + 1], rows

    @torch.no_grad()
    def example_losses(self, examples: Sequence[Tokenised]) -> list[float]:
        """Return each example's mean loss per unit of weight."""
        order = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
        found = [0.0] * len(examples)
        for part in _parts([examples[i] for i in order], self.trainer.batch_tokens):
            losses, weights, rows = self.cross_entropy(part)
            sums = torch.zeros(len(part), device=self.device).index_add_(0, rows, losses * weights).tolist()
            for example, total in zip(part, sums, strict=True):
                found[order.pop(0)] = total / example.weight
        return found

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's format, the same bytes for the same adapter."""
        self.peft.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # an empty model card
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": str(self.folder), "target_modules": sorted(config["target_modules"])}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _linear_names(model: Any) -> list[str]:
    """Return the last parts of the names of all linear layers but the output's, as converters expect them."""
    head = model.get_output_embeddings()
    linear = (
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    )
    return sorted({name.rsplit(".", 1)[-1] for name in linear})


def _bf16(precision: str, device: str) -> bool:
    if precision == "auto":
        return device == "cuda" or any(torch.cpu.get_capabilities().get(k) for k in ("avx512_bf16", "amx_bf16", "bf16"))
    return precision == "bf16"


def _parts(examples: Sequence[Tokenised], limit: int) -> list[list[Tokenised]]:
    """Cut examples, longest first, into runs of at most `limit` padded tokens (one example at least)."""
    parts: list[list[Tokenised]] = []
    for example in examples:
        if parts and len(parts[-1][0].ids) * (len(parts[-1]) + 1) <= limit:
            parts[-1].append(example)
        else:
            parts.append([example])
    return parts


def _batches(examples: Sequence[Tokenised], size: int, seed: int, epoch: int) -> list[list[Tokenised]]:
    """Return an epoch's batches: shuffled, then sorted by length within pools of four batches, longest first."""
    random = Random(f"{seed}/{epoch}")
    order = list(examples)
    random.shuffle(order)
    batches: list[list[Tokenised]] = []
    for start in range(0, len(order), 4 * size):
        pool = sorted(order[start : start + 4 * size], key=lambda example: -len(example.ids))
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    random.shuffle(batches)
    return batches


def _split(trainer: TorchTrainer, examples: Sequence[Tokenised], seed: int) -> tuple[list[Tokenised], list[Tokenised]]:
    """Hold out all examples of some tasks."""
    tasks = sorted({e.task for e in examples}, key=lambda task: digest_of([seed, task]))
    count = round(trainer.held_out * len(tasks))
    if trainer.held_out and len(tasks) >= max(2, trainer.held_out_min_tasks):
        count = max(1, count)
    else:
        count = 0
    chosen = set(tasks[:count])
    return [e for e in examples if e.task not in chosen], [e for e in examples if e.task in chosen]


def _rate(trainer: TorchTrainer, step: int, steps: int) -> float:
    """Return the learning rate's factor at a step."""
    rise = math.ceil(trainer.warmup * steps)
    if step < rise:
        return (step + 1) / rise
    left = 1.0 - (step - rise) / max(1, steps - rise)
    return left if trainer.decay.value == "linear" else 0.5 * (1.0 - math.cos(math.pi * left))


class _Training:
    """The state of one training."""

    def __init__(self, trainer: TorchTrainer, adapted: Adapted, parameters: list[Tensor], steps: int) -> None:
        self.trainer, self.adapted, self.parameters, self.steps = trainer, adapted, parameters, steps
        self.optimiser = torch.optim.AdamW(parameters, lr=trainer.lr, weight_decay=0.0, fused=True)
        self.step = 0

    def epoch(self, batches: Sequence[Sequence[Tokenised]]) -> float:
        """Take a step on every batch and return the mean loss per unit of weight."""
        total = weight = 0.0
        for batch in batches:
            mass = sum(example.weight for example in batch)
            loss = 0.0
            for part in _parts(batch, self.trainer.batch_tokens):
                losses, weights, _ = self.adapted.cross_entropy(part)
                mean = torch.dot(losses, weights) / mass
                mean.backward()  # type: ignore[no-untyped-call]
                loss += float(mean.detach())
            norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.trainer.clip))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"the loss is {loss} and its gradient's norm {norm} at step {self.step + 1} of {self.steps}; "
                    f"lower trainer.lr={self.trainer.lr:g}"
                )
            for group in self.optimiser.param_groups:
                group["lr"] = self.trainer.lr * _rate(self.trainer, self.step, self.steps)
            self.optimiser.step()
            self.optimiser.zero_grad()
            self.step += 1
            total, weight = total + loss * mass, weight + mass
        return total / weight


def fit(
    trainer: TorchTrainer,
    model: Path,
    examples: Sequence[Example],
    *,
    start: Path | None,
    out: Path,
    seed: int,
    inputs: str,
) -> Fit:
    """Train an adapter and publish it in `out`; see TorchTrainer.fit."""
    began = time.monotonic()
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tokenised = tokenise(model, examples)
    train, held = _split(trainer, tokenised, seed)
    with _reproducible(trainer.threads, seed):
        adapted = Adapted(trainer, model, max(len(e.ids) for e in tokenised))
        parameters = adapted.attach(start)
        epochs = [_batches(train, trainer.batch, seed, epoch) for epoch in range(trainer.epochs)]
        training = _Training(trainer, adapted, parameters, sum(len(batches) for batches in epochs))
        try:
            history = _epochs(training, epochs, held, part)
        except TrainingError as error:
            kept = f"the best finished epoch's adapter is in {part}" if any(part.iterdir()) else "no epoch was finished"
            raise TrainingError(f"{error}; {kept}") from error
    fitted = Fit(
        adapter=out,
        train_loss=history[-1]["train_loss"],
        held_out_loss=min((row["held_out_loss"] for row in history), default=None) if held else None,
        steps=training.step,
        seconds=time.monotonic() - began,
        history=tuple(history),
    )
    counts = {"examples": len(train), "held_out_examples": len(held), "bf16": adapted.bf16, "seed": seed}
    adapters.publish(part, out, fitted, {"inputs": inputs, **counts})
    return fitted


def _epochs(
    training: _Training, epochs: Sequence[Sequence[Sequence[Tokenised]]], held: Sequence[Tokenised], part: Path
) -> list[dict[str, float]]:
    """Train epoch after epoch, keeping the best in `part`, until patience or the epochs end."""
    history: list[dict[str, float]] = []
    best, waited = math.inf, 0
    for number, batches in enumerate(epochs, start=1):
        row = {"epoch": float(number), "train_loss": training.epoch(batches)}
        history.append(row)
        if held:
            losses = training.adapted.example_losses(held)
            weights = [example.weight for example in held]
            row["held_out_loss"] = sum(a * w for a, w in zip(losses, weights, strict=True)) / sum(weights)
            if not math.isfinite(row["held_out_loss"]):
                raise TrainingError(
                    f"the held-out loss is {row['held_out_loss']} after epoch {number}; lower trainer.lr"
                )
            waited = 0 if row["held_out_loss"] < best else waited + 1
            best = min(best, row["held_out_loss"])
        if waited == 0:
            training.adapted.save(part)
        elif waited >= training.trainer.patience:
            break
    return history


def losses(trainer: TorchTrainer, model: Path, examples: Sequence[Example], adapter: Path | None) -> list[float]:
    """Return each example's mean loss; see TorchTrainer.losses."""
    tokenised = tokenise(model, examples)
    with _reproducible(trainer.threads, 0):
        adapted = Adapted(trainer, model, max(len(e.ids) for e in tokenised))
        if adapter is not None:
            from peft import PeftModel

            adapted.peft = PeftModel.from_pretrained(adapted.base, str(adapter))
        adapted.base.eval()
        return adapted.example_losses(tokenised)
