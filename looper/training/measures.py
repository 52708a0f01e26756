"""What is measured of models and adapters without training: losses, embeddings, divergence."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from looper.errors import TrainingError
from looper.records import Example
from looper.training.adapted import Adapted
from looper.training.batches import length, parts
from looper.training.objectives import divergence as divergence_of
from looper.training.reproducible import reproducible
from looper.training.schedule import TorchSchedule
from looper.training.tokens import Tokenised, Tokeniser, usable, usable_or_why

LOG = logging.getLogger(__name__)


def losses(trainer: TorchSchedule, model: Path, examples: Sequence[Example], adapters: Sequence[Path]) -> list[float]:
    """Return each example's mean loss, NaN for those left out; see TorchTrainer.losses."""
    tokenised, _ = usable(model, examples)
    with reproducible(trainer.threads, 0):
        adapted = Adapted(trainer, model, max(map(length, tokenised)))
        adapted.activate(adapters)
        measured = adapted.example_losses(tokenised)
    found = [math.nan] * len(examples)
    for example, loss in zip(tokenised, measured, strict=True):
        found[example.index] = loss
    return found


@torch.no_grad()
def divergence(
    trainer: TorchSchedule, model: Path, groups: Sequence[Sequence[Example]], adapters: Sequence[Path]
) -> list[float | TrainingError]:
    """Return the mean KL(base || base and adapters) of each group; see TorchTrainer.divergence."""
    found = [usable_or_why(model, examples) for examples in groups]
    lengths = [length(e) for group in found if not isinstance(group, TrainingError) for e in group]
    if not lengths:
        return [group for group in found if isinstance(group, TrainingError)]
    with reproducible(trainer.threads, 0):
        adapted = Adapted(trainer, model, max(lengths))
        adapted.activate(adapters)
        return [group if isinstance(group, TrainingError) else _mean_kl(trainer, adapted, group) for group in found]


def _mean_kl(trainer: TorchSchedule, adapted: Adapted, tokenised: Sequence[Tokenised]) -> float:
    total = mass = 0.0
    for part in parts(sorted(tokenised, key=lambda e: -length(e)), trainer.batch_tokens):
        with adapted.bare():
            base = adapted.logits(part)[0]
        with_skill, _, weights, _ = adapted.logits(part)
        total += float(torch.dot(divergence_of(base, with_skill), weights))
        mass += float(weights.sum())
    return total / mass


@torch.no_grad()
def embeddings(trainer: TorchSchedule, model: Path, texts: Sequence[str]) -> Any:
    """Return the mean last hidden state of each text; see TorchTrainer.embeddings."""
    import numpy as np

    tokenised = _read(Tokeniser(model), texts)
    if not tokenised:
        raise TrainingError("no texts to embed; give one at least")
    with reproducible(trainer.threads, 0):
        adapted = Adapted(trainer, model, max(map(length, tokenised)))
        adapted.base.eval()
        found: Any = np.zeros((len(texts), adapted.base.config.hidden_size), dtype=np.float32)
        for part in parts(sorted(tokenised, key=lambda e: -length(e)), trainer.batch_tokens):
            width = length(part[0])
            ids = torch.tensor([[*e.ids, *[0] * (width - length(e))] for e in part], device=adapted.device)  # (B, T)
            mask = torch.tensor([e.weights + (0.0,) * (width - length(e)) for e in part], device=adapted.device)
            with adapted.autocast():  # padding is on the right, so causality hides it
                hidden = adapted.base.get_decoder()(ids, use_cache=False).last_hidden_state  # (B, T, D)
            means = (hidden.float() * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            found[[e.index for e in part]] = means.cpu().numpy()
    return found


def _read(tokeniser: Tokeniser, texts: Sequence[str]) -> list[Tokenised]:
    found: list[Tokenised] = []
    for i, text in enumerate(texts):
        ids = tokeniser.encode(text)
        if not ids:
            raise TrainingError(f"text {i} of {len(texts)} has no token to embed: {text!r}")
        if tokeniser.limit and len(ids) > tokeniser.limit:
            LOG.warning("text %d is cut for its embedding: %d tokens, the model takes %d", i, len(ids), tokeniser.limit)
            ids = ids[: tokeniser.limit]
        found.append(Tokenised(task="", ids=tuple(ids), weights=(1.0,) * len(ids), index=i))
    return found
