"""One process of a pretraining: reads its rows of every batch, sums gradients with the others, steps."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from looper.errors import TrainingError
from looper.models.nano.shape import Shape
from looper.pretraining.batches import Corpus, cut, stream
from looper.pretraining.export import load, save, views
from looper.pretraining.muon import Muon
from looper.pretraining.network import Network
from looper.pretraining.settings import PretrainSettings

PACE_STEPS = 200
"""Steps between two looks at the pace, where a limit of time is set."""

FREE = frozenset({"tokens", "minutes", "processes", "report_every", "validate_every", "checkpoint_minutes", "bf16"})
"""Settings that may change between the runs of one training."""


def can_bf16() -> bool:
    """Return whether this processor multiplies bfloat16 natively."""
    flags = torch.cpu.get_capabilities()
    return any(bool(value) for name, value in flags.items() if name in {"avx512_bf16", "amx_bf16", "bf16", "arm_bf16"})


class Worker:
    """A pretraining's state in one process; all processes hold the same weights at every step."""

    def __init__(self, corpus: Path, out: Path, settings: PretrainSettings, shape: Shape, rank: int) -> None:
        self.out, self.settings, self.rank, self.world = out, settings, rank, settings.processes
        self.corpus = Corpus(corpus)
        self.train = len(self.corpus) - settings.held_out
        if self.train < 1 or int(self.corpus.lengths.max()) > shape.positions + 1:
            raise TrainingError(
                f"corpus {corpus} has {len(self.corpus)} sequences of up to {self.corpus.lengths.max()} tokens; more "
                f"than held_out={settings.held_out} are needed and at most {shape.positions + 1} tokens each"
            )
        self.bf16 = can_bf16() if settings.bf16 is None else settings.bf16
        self.network = Network(shape, settings.seed)
        if settings.start:
            load(self.network, Path(settings.start))
        self.flat = self._flat_gradient()
        self.muon, self.adam = self._optimisers()
        self.step = self.tokens = 0
        self.budget, self.elapsed = float(settings.tokens), 0.0
        self.sums = torch.zeros(4)  # loss and count of full-weight tokens; real and padded tokens

    def _flat_gradient(self) -> Tensor:
        """Make all gradients views of one buffer, so that the processes exchange one tensor."""
        parameters = list(self.network.parameters())
        flat = torch.zeros(sum(p.numel() for p in parameters))
        for p, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)
        return flat

    def _optimisers(self) -> tuple[Muon, torch.optim.AdamW]:
        shape, s = self.network.shape, self.settings
        kv = shape.kv_heads * shape.head
        parts = {"qkv": [shape.hidden, kv, kv], "gate_up": [shape.ff, shape.ff]}
        matrices: list[tuple[Tensor, Tensor]] = []
        for name, p in self.network.named_parameters():
            if p.ndim == 2 and name != "embed":
                assert p.grad is not None
                sizes = parts.get(name.rsplit(".", 1)[-1], [p.shape[0]])
                matrices += zip(torch.split(p.data, sizes), torch.split(p.grad, sizes), strict=True)
        vectors = [p for p in self.network.parameters() if p.ndim == 1]
        groups = [
            {"params": [self.network.embed], "weight_decay": s.wd},
            {"params": vectors, "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(groups, lr=s.lr, betas=(0.9, 0.95), fused=True)
        return Muon(matrices, lr=s.lr, wd=s.wd), adam

    def sum(self, tensor: Tensor) -> None:
        """Sum a tensor over the processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)

    def learn(self, batch: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Take one optimiser step on a batch of sequences."""
        total = self._weight(batch)
        self.flat.zero_()
        mine = batch[self.rank :: self.world]
        if len(mine):
            tokens, weights = self.corpus.rows(mine)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                losses, kept = self.network.losses(tokens, weights)
                loss = torch.dot(losses, kept) / total
            loss.backward()  # type: ignore[no-untyped-call]
            full = kept >= 1.0
            self.sums += torch.tensor(
                [float(losses.detach()[full].sum()), float(full.sum()), self.corpus.lengths[mine].sum(), tokens.numel()]
            )
        self.sum(self.flat)
        norm = float(self.flat.norm())
        if not np.isfinite(norm):
            raise TrainingError(f"the gradient is {norm} at step {self.step}; lower lr={self.settings.lr} and resume")
        self.flat.mul_(min(1.0, self.settings.clip / (norm + 1e-6)))
        scale = self.settings.rate(self.step, self.tokens / self.budget)
        for group in self.adam.param_groups:
            group["lr"] = self.settings.lr * scale
        self.adam.step()
        self.muon.step(scale=scale, rank=self.rank, world=self.world, share=self.sum if self.world > 1 else None)
        self.step += 1
        self.tokens += int(self.corpus.lengths[batch].sum())

    def _weight(self, batch: np.ndarray[Any, np.dtype[np.int64]]) -> float:
        """Return the weight of all of a batch's tokens, those of other processes included."""
        offsets = self.corpus.offsets
        parts = (self.corpus.weights[offsets[i] + 1 : offsets[i + 1]].astype(np.float64).sum() for i in batch)
        return max(float(sum(parts)), 1e-6)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the mean loss of the held-out sequences: tokens of full weight, and the others."""
        sums = torch.zeros(4)
        order = np.arange(self.train, len(self.corpus))
        order = order[np.argsort(self.corpus.lengths[order], kind="stable")]
        for run in cut(self.corpus.lengths, order, self.settings.batch_tokens)[self.rank :: self.world]:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                losses, kept = self.network.losses(*self.corpus.rows(run))
            full = kept >= 1.0
            sums += torch.tensor([losses[full].sum(), full.sum(), losses[~full].sum(), (~full).sum()])
        self.sum(sums)
        full_loss, full_count, rest_loss, rest_count = sums.tolist()
        return {"val": full_loss / max(1.0, full_count), "val_rest": rest_loss / max(1.0, rest_count)}

    # ---------------------------------------------------------------- checkpoints

    def _identity(self) -> dict[str, Any]:
        fixed = {k: v for k, v in dataclasses.asdict(self.settings).items() if k not in FREE}
        return {**fixed, **dataclasses.asdict(self.network.shape), "sequences": len(self.corpus)}

    def save(self, elapsed: float) -> None:
        """Write a checkpoint by rename."""
        state = {
            "identity": self._identity(),
            "model": {name: p.data for name, p in self.network.named_parameters()},
            "muon": list(self.muon.state.values()),
            "adam": self.adam.state_dict(),
            "counters": [self.step, self.tokens, self.budget, elapsed],
        }
        torch.save(state, self.out / "checkpoint.part")
        (self.out / "checkpoint.part").replace(self.out / "checkpoint.pt")

    def resume(self) -> None:
        """Go on from a checkpoint, if there is one. Raises TrainingError if it is of another training."""
        path = self.out / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        mine = self._identity()
        stored_as = state["identity"]
        if differs := [f"{k}={stored_as.get(k)} there, {v} here" for k, v in mine.items() if stored_as.get(k) != v]:
            raise TrainingError(
                f"{path} is of another training ({'; '.join(differs)}); choose another folder or delete it"
            )
        for name, p in self.network.named_parameters():
            p.data.copy_(state["model"][name])
        for own, stored in zip(self.muon.state.values(), state["muon"], strict=True):
            own.copy_(stored)
        self.adam.load_state_dict(state["adam"])
        self.step, self.tokens, budget, self.elapsed = state["counters"]
        if self.settings.minutes:  # a budget that was shortened for the limit of time stays so
            self.budget = min(self.budget, budget)

    # ---------------------------------------------------------------- the loop

    def run(self) -> None:
        """Train until the budget is read, then write the model (process 0)."""
        self.resume()
        began, saved, paced = time.monotonic(), time.monotonic(), (time.monotonic(), self.tokens)
        line = (began, self.tokens)
        batches = self._batches()
        while self.tokens < self.budget:
            self.learn(next(batches))
            now = time.monotonic()
            if self.step % PACE_STEPS == 0 and self.settings.minutes:
                self._fit(self.elapsed + now - began, (self.tokens - paced[1]) / (now - paced[0]))
                paced = (now, self.tokens)
            last = self.tokens >= self.budget
            if self.step % self.settings.report_every == 0 or last:
                self._report(self.elapsed + now - began, (self.tokens - line[1]) / (now - line[0]), last)
                line = (time.monotonic(), self.tokens)
            if self.rank == 0 and time.monotonic() - saved > 60 * self.settings.checkpoint_minutes:
                self.save(self.elapsed + time.monotonic() - began)
                saved = time.monotonic()
        elapsed = self.elapsed + time.monotonic() - began
        figures = self.validate()
        if self.rank == 0:
            self.save(elapsed)
            self._finish(elapsed, figures)

    def _batches(self) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
        return stream(self.corpus.lengths[: self.train], self.settings.batch_tokens, self.settings.seed, self.step)

    def _fit(self, elapsed: float, pace: float) -> None:
        """Shorten the budget to what the pace of process 0 leaves room for; all processes take its word."""
        room = self.tokens + pace * max(0.0, 60 * self.settings.minutes - elapsed)
        budget = torch.tensor(min(self.budget, room), dtype=torch.float64)
        if self.world > 1:
            dist.broadcast(budget, 0)
        if self.rank == 0 and float(budget) < 0.99 * self.budget:
            print(f"budget {self.budget:,.0f} -> {float(budget):,.0f} tokens: {pace:,.0f} tok/s", flush=True)
        self.budget = float(budget)

    def _report(self, elapsed: float, pace: float, last: bool) -> None:
        sums = self.sums.clone()
        self.sum(sums)
        self.sums.zero_()
        row = {
            "step": self.step,
            "tokens": self.tokens,
            "loss": float(sums[0] / sums[1].clamp(min=1)),
            "padding": 1 - float(sums[2] / sums[3].clamp(min=1)),
            "tok_s": pace,
            "seconds": elapsed,
            "lr": self.settings.lr * self.settings.rate(self.step, self.tokens / self.budget),
        }
        if self.step % self.settings.validate_every == 0 or last:
            row |= self.validate()
        if self.rank:
            return
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        left = (self.budget - self.tokens) / max(1.0, pace) / 60
        val = f"  val {row['val']:.4f} rest {row['val_rest']:.4f}" if "val" in row else ""
        print(
            f"step {self.step}  {self.tokens / 1e6:.2f}M/{self.budget / 1e6:.1f}M tokens  loss {row['loss']:.4f}{val}  "
            f"{pace:,.0f} tok/s  {elapsed / 60:.1f} min, {left:.1f} left",
            flush=True,
        )

    def _finish(self, elapsed: float, figures: dict[str, float]) -> None:
        save(self.network, self.out)
        record = {
            "tokens": self.tokens,
            "steps": self.step,
            "seconds": elapsed,
            "parameters": sum(view.numel() for view in views(self.network).values()),
            "bf16": self.bf16,
            **figures,
            "settings": dataclasses.asdict(self.settings),
            "shape": dataclasses.asdict(self.network.shape),
        }
        (self.out / "train.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(
            f"done: {self.tokens:,} tokens in {elapsed / 60:.1f} min, val {figures['val']:.4f}, {self.out}", flush=True
        )
