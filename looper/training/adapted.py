"""A base model with adapters: what it predicts where an example carries weight, and its adapter on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from looper.errors import TrainingError
from looper.training.batches import length, parts
from looper.training.crew import Crew
from looper.training.merging import merge
from looper.training.schedule import TorchSchedule
from looper.training.tokens import Tokenised

EAGER = 1024
"""Tokens up to which plain attention is used on a CPU: torch's flash attention is slower there, backwards above all."""

SMALL = 100_000_000
"""Parameters below which a graphics card is not worth its start."""


class Adapted:
    """A base model on its device, with adapters or without."""

    def __init__(
        self,
        trainer: TorchSchedule,
        folder: Path,
        longest: int,
        *,
        under: Sequence[Path] = (),
        crew: Crew | None = None,
    ) -> None:
        from transformers import AutoModelForCausalLM

        self.trainer, self.folder, self.crew = trainer, folder, crew or Crew()
        graphics = torch.cuda.is_available()
        widened = not graphics or trainer.precision.value == "fp32"
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if widened else "auto",
            local_files_only=True,
            attn_implementation="eager" if longest <= EAGER and not graphics else "sdpa",
        )
        large = sum(p.numel() for p in model.parameters()) >= SMALL
        self.device = self.crew.device(large)
        self.base: Any = model.to(self.device) if large else model.float().to(self.device)
        for path in under:
            merge(self.base, path)
        self.bf16 = _bf16(trainer.precision.value, self.device.type)
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

    def activate(self, adapters: Sequence[Path], *, trainable: bool = False) -> None:
        """Add trained adapters, whose changes add up."""
        from peft import PeftModel

        for i, path in enumerate(adapters):
            if i == 0:
                self.peft = PeftModel.from_pretrained(self.base, str(path), is_trainable=trainable)
            else:
                self.peft.load_adapter(str(path), adapter_name=str(i), is_trainable=trainable)
        if len(adapters) > 1:
            self.peft.base_model.set_adapter(["default", *(str(i) for i in range(1, len(adapters)))])
        self.base.eval()

    def named(self) -> dict[str, Tensor]:
        """Return the trained parameters by the names that they have on disk."""
        trained = ((name, p) for name, p in self.peft.named_parameters() if p.requires_grad)
        return {name.replace(".default.weight", ".weight"): p for name, p in trained}

    def bare(self) -> AbstractContextManager[None]:
        """Switch the adapters off for a while; those merged by `under` stay."""
        switched: AbstractContextManager[None] = self.peft.disable_adapter() if self.peft else nullcontext()
        return switched

    def logits(self, batch: Sequence[Tokenised]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits (N, V), tokens (N,), weights (N,) and rows (N,) of the tokens that carry weight."""
        width = max(len(example.ids) for example in batch)
        ids = torch.tensor([[*e.ids, *[0] * (width - len(e.ids))] for e in batch], device=self.device)  # (B, T)
        weights = torch.tensor([[*e.weights, *[0.0] * (width - len(e.weights))] for e in batch], device=self.device)
        rows, columns = weights[:, 1:].nonzero(as_tuple=True)
        with self.autocast():
            # Padding is on the right, so causality hides it; only weighted positions need logits.
            hidden = self.base.get_decoder()(ids[:, :-1], use_cache=False).last_hidden_state
            logits = self.base.get_output_embeddings()(hidden[rows, columns])  # (N, V)
        return logits.float(), ids[rows, columns + 1], weights[rows, columns + 1], rows

    def autocast(self) -> AbstractContextManager[None]:
        """Multiply matrices in the trainer's precision for a while."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def cross_entropy(self, batch: Sequence[Tokenised]) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses (N,), weights (N,) and rows (N,) of the tokens that carry weight."""
        logits, tokens, weights, rows = self.logits(batch)
        return F.cross_entropy(logits, tokens, reduction="none"), weights, rows

    def log_probs(self, batch: Sequence[Tokenised]) -> Tensor:
        """Return each example's log-probability (B,): the weighted sum over its tokens."""
        losses, weights, rows = self.cross_entropy(batch)
        return -torch.zeros(len(batch), device=self.device).index_add(0, rows, losses * weights)

    @torch.no_grad()
    def token_log_probs(self, examples: Sequence[Tokenised]) -> list[Tensor]:
        """Return the log-probabilities of each example's tokens that carry weight."""
        found: list[Tensor] = [torch.empty(0)] * len(examples)
        order = sorted(range(len(examples)), key=lambda i: -length(examples[i]))
        for part in parts([examples[i] for i in order], self.trainer.batch_tokens):
            losses, _, rows = self.cross_entropy(part)
            for row in range(len(part)):
                found[order.pop(0)] = -losses[rows == row]
        return found

    @torch.no_grad()
    def example_losses(self, examples: Sequence[Tokenised]) -> list[float]:
        """Return each example's mean loss per unit of weight."""
        order = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
        found = [0.0] * len(examples)
        for part in parts([examples[i] for i in order], self.trainer.batch_tokens):
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
        if device == "mps":  # no processor's abilities say what its graphics can do
            return False
        return device == "cuda" or any(torch.cpu.get_capabilities().get(k) for k in ("avx512_bf16", "amx_bf16", "bf16"))
    return precision == "bf16"
