"""The losses: what a batch's gradient is the gradient of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from looper.protocols import Objective, PolicyGradient, Preference, ProspectTheory, SelfDistillation
from looper.training.adapted import Adapted
from looper.training.batches import Unit, length, parts
from looper.training.tokens import Tokenised


class Loss(Protocol):
    """A loss over batches of units, given in parts that fit into memory."""

    def mass(self, batch: Sequence[Unit]) -> float:
        """Return how much a batch weighs in the mean over an epoch."""
        ...

    def parts(self, batch: Sequence[Unit], share: Sequence[Unit]) -> Iterator[Tensor]:
        """Yield scalars that sum up, over all processes' shares, to the batch's mean loss."""
        ...


def loss_of(
    objective: Objective | None, adapted: Adapted, units: Sequence[Unit], shown: Mapping[int, Tokenised]
) -> Loss:
    """Prepare an objective on the policy as it is now: what it is compared with is computed here, once.

    `shown` are the examples as the teacher sees them, by their index.
    """
    if isinstance(objective, Preference):
        return _Preference(objective, adapted, units)
    if isinstance(objective, ProspectTheory):
        return _ProspectTheory(objective, adapted, units)
    if isinstance(objective, SelfDistillation):
        return _SelfDistillation(objective, adapted, shown)
    if isinstance(objective, PolicyGradient):
        return _PolicyGradient(objective, adapted, units)
    return _CrossEntropy(adapted)


def _longest_first(units: Sequence[Unit]) -> list[Tokenised]:
    return sorted(chain.from_iterable(units), key=lambda example: -length(example))


def _masses(units: Sequence[Unit]) -> float:
    return sum(example.weight for example in chain.from_iterable(units))


class _CrossEntropy:
    """The mean weighted negative log-likelihood of the tokens."""

    def __init__(self, adapted: Adapted) -> None:
        self.adapted = adapted

    def mass(self, batch: Sequence[Unit]) -> float:
        return _masses(batch)

    def parts(self, batch: Sequence[Unit], share: Sequence[Unit]) -> Iterator[Tensor]:
        mass = self.mass(batch)
        for part in parts(list(chain.from_iterable(share)), self.adapted.trainer.batch_tokens):
            losses, weights, _ = self.adapted.cross_entropy(part)
            yield torch.dot(losses, weights) / mass


class _OfLogProbs:
    """Losses that are a function of the examples' log-probabilities log p(y|x)."""

    def __init__(self, adapted: Adapted, units: Sequence[Unit]) -> None:
        self.adapted = adapted
        self.reference = self.compute(list(chain.from_iterable(units)))

    @torch.no_grad()
    def compute(self, examples: Sequence[Tokenised]) -> dict[int, Tensor]:
        """Return the log-probabilities of examples under the policy as it is, by their index."""
        order = sorted(examples, key=lambda example: -length(example))
        found: dict[int, Tensor] = {}
        for part in parts(order, self.adapted.trainer.batch_tokens):
            found |= {e.index: value for e, value in zip(part, self.adapted.log_probs(part), strict=True)}
        return found

    def mass(self, batch: Sequence[Unit]) -> float:
        return float(len(batch))

    def ratios(self, units: Sequence[Unit], loss: Callable[[Mapping[int, Tensor]], Tensor]) -> Iterator[Tensor]:
        """Yield the parts of a loss of log p - log p_start, a function of these by index.

        What fits into memory at once is differentiated at once. Of more, the loss is first computed without gradient,
        and then every part is differentiated with the others' values fixed: the sum of the gradients is the same.
        """
        examples = _longest_first(units)
        pieces = parts(examples, self.adapted.trainer.batch_tokens)
        if len(pieces) <= 1:
            for piece in pieces:
                now = self.adapted.log_probs(piece)
                yield loss({e.index: value - self.reference[e.index] for e, value in zip(piece, now, strict=True)})
            return
        with torch.no_grad():
            fixed = {i: value - self.reference[i] for i, value in self.compute(examples).items()}
        leaves = {i: value.requires_grad_() for i, value in fixed.items()}
        with torch.enable_grad():  # held-out losses are computed without
            whole = loss(leaves)
            found = torch.autograd.grad(whole, list(leaves.values()), allow_unused=True)
        slopes = dict(zip(leaves, found, strict=True))
        rest = whole.detach()
        for piece in pieces:
            wanted = [slopes[e.index] for e in piece]
            slope = torch.stack([torch.zeros_like(rest) if s is None else s for s in wanted])
            linear = torch.dot(slope, self.adapted.log_probs(piece))
            yield linear - linear.detach() + rest  # the value of the loss is counted once
            rest = torch.zeros_like(rest)


class _Preference(_OfLogProbs):
    """-log sigmoid(beta (r_wanted - r_unwanted)), r = log p - log p_start (Rafailov et al. 2023, equation 7)."""

    def __init__(self, objective: Preference, adapted: Adapted, units: Sequence[Unit]) -> None:
        super().__init__(adapted, units)
        self.objective = objective

    def parts(self, batch: Sequence[Unit], share: Sequence[Unit]) -> Iterator[Tensor]:
        def loss(ratio: Mapping[int, Tensor]) -> Tensor:
            total = torch.zeros((), device=self.adapted.device)
            for wanted, unwanted in share:
                total = total - F.logsigmoid(self.objective.beta * (ratio[wanted.index] - ratio[unwanted.index]))
                if self.objective.sft:
                    log_prob = ratio[wanted.index] + self.reference[wanted.index]
                    total = total - self.objective.sft * log_prob / wanted.weight
            return total / len(batch)

        return self.ratios(share, loss)


class _ProspectTheory(_OfLogProbs):
    """Mean of d (1 - sigmoid(beta (r - z))) wanted, u (1 - sigmoid(beta (z - r))) not (Ethayarajh et al. 2024).

    z, the policy's distance from its start, is the mean of r over the prompts of a batch, each with the answer of the
    next example of its unit, and at least 0. As in TRL, no gradient flows through it.
    """

    def __init__(self, objective: ProspectTheory, adapted: Adapted, units: Sequence[Unit]) -> None:
        super().__init__(adapted, units)
        self.objective = objective
        limit = int(getattr(adapted.base.config, "max_position_embeddings", 0) or 0)
        following = ((unit[i], unit[(i + 1) % len(unit)]) for unit in units for i in range(len(unit)))
        self.mismatched = {one.index: _mismatched(one, other, limit) for one, other in following}
        self.mismatched_reference = self.compute([e for e in self.mismatched.values() if e.weight])

    def mass(self, batch: Sequence[Unit]) -> float:
        return float(sum(len(unit) for unit in batch))

    def point(self, batch: Sequence[Unit]) -> Tensor:
        """Return the reference point z of a batch."""
        pairs = [self.mismatched[e.index] for e in chain.from_iterable(batch)]
        now = self.compute([e for e in pairs if e.weight])
        if not now:
            return torch.zeros((), device=self.adapted.device)
        return torch.stack([now[i] - self.mismatched_reference[i] for i in now]).mean().clamp(min=0.0)

    def parts(self, batch: Sequence[Unit], share: Sequence[Unit]) -> Iterator[Tensor]:
        o, point = self.objective, self.point(batch)

        def loss(ratio: Mapping[int, Tensor]) -> Tensor:
            total = torch.zeros((), device=self.adapted.device)
            for e in chain.from_iterable(share):
                gain = o.beta * (ratio[e.index] - point)
                wanted, unwanted = o.desirable * (1.0 - gain.sigmoid()), o.undesirable * (1.0 - (-gain).sigmoid())
                total = total + (wanted if e.label > 0 else unwanted)
            return total / self.mass(batch)

        return self.ratios(share, loss)


def _mismatched(one: Tokenised, other: Tokenised, limit: int) -> Tokenised:
    """Return the prompt of one example with the answers of another, as long as the model takes."""
    until, since = (next(i for i, w in enumerate(e.weights) if w and i) for e in (one, other))
    ids = (*one.ids[:until], *other.ids[since:])
    weights = (*(0.0 for _ in range(until)), *other.weights[since:])
    end = limit or len(ids)
    return Tokenised(task=one.task, ids=ids[:end], weights=weights[:end], index=one.index)


class _SelfDistillation:
    """KL(teacher || student), the mean over supervised positions; the teacher is the model without the adapter."""

    def __init__(self, objective: SelfDistillation, adapted: Adapted, shown: Mapping[int, Tokenised]) -> None:
        self.objective, self.adapted, self.shown = objective, adapted, shown

    def mass(self, batch: Sequence[Unit]) -> float:
        return _masses(batch)

    def parts(self, batch: Sequence[Unit], share: Sequence[Unit]) -> Iterator[Tensor]:
        mass = self.mass(batch)

        def size(example: Tokenised) -> int:
            return length(self.shown[example.index])

        examples = sorted(chain.from_iterable(share), key=lambda example: -size(example))
        for part in parts(examples, self.adapted.trainer.batch_tokens, size):
            with torch.no_grad(), self.adapted.bare():
                teacher = self.adapted.logits([self.shown[e.index] for e in part])[0]
            student, _, weights, _ = self.adapted.logits(part)  # (N, V), the same positions in the same order
            yield torch.dot(divergence(teacher, student, self.objective.temperature), weights) / mass


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) in nats (N,) of logits (N, V)."""
    p, q = ((logits / temperature).log_softmax(-1) for logits in (teacher, student))
    return (p.exp() * (p - q)).sum(-1)


class _PolicyGradient:
    """-min(rho A, clip(rho) A) + beta k3, the mean over a group's tokens, then over groups (after Shao et al. 2024).

    Their equation 3 takes the mean over each session's tokens first; the mean over all tokens of a group weighs long
    failures as much as they are long. rho is the ratio of a token's probability now to that at the start of the fit,
    A the example's label; k3 = r - log r - 1 with r = p_base / p estimates the KL to the model without the adapter
    (equation 4).
    """

    def __init__(self, objective: PolicyGradient, adapted: Adapted, units: Sequence[Unit]) -> None:
        self.objective, self.adapted = objective, adapted
        examples = list(chain.from_iterable(units))
        self.start = {e.index: found for e, found in zip(examples, adapted.token_log_probs(examples), strict=True)}
        self.base: dict[int, Tensor] = {}
        if objective.beta:
            with adapted.bare():
                found = adapted.token_log_probs(examples)
            self.base = {e.index: one for e, one in zip(examples, found, strict=True)}

    def mass(self, batch: Sequence[Unit]) -> float:
        return float(len(batch))

    def parts(self, batch: Sequence[Unit], share: Sequence[Unit]) -> Iterator[Tensor]:
        weight = {e.index: _masses([unit]) * len(batch) for unit in share for e in unit}
        low, high = 1.0 - self.objective.clip, 1.0 + self.objective.clip
        for part in parts(_longest_first(share), self.adapted.trainer.batch_tokens):
            losses, weights, rows = self.adapted.cross_entropy(part)
            total = torch.zeros((), device=self.adapted.device)
            for row, e in enumerate(part):
                mine = rows == row
                now = -losses[mine]  # (tokens,)
                ratio = (now - self.start[e.index]).exp()
                loss = -torch.minimum(ratio * e.label, ratio.clamp(low, high) * e.label)
                if self.objective.beta:
                    gap = self.base[e.index] - now
                    loss = loss + self.objective.beta * (gap.exp() - gap - 1.0)
                total = total + torch.dot(loss, weights[mine]) / weight[e.index]
            yield total
