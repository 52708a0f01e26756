"""The diagonal Fisher information of an adapter: which of its parameters the examples depend on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from looper.errors import TrainingError
from looper.records import Example
from looper.training.adapted import Adapted
from looper.training.batches import length
from looper.training.merging import plain_scale
from looper.training.penalties import PRODUCT, layers
from looper.training.reproducible import reproducible
from looper.training.schedule import TorchSchedule
from looper.training.tokens import Tokenised, usable

LOG = logging.getLogger(__name__)


def importance(
    trainer: TorchSchedule,
    model: Path,
    examples: Sequence[Example],
    adapter: Path,
    out: Path,
    *,
    sampled: bool,
    product: bool,
    seed: int,
    inputs: str,
) -> Path:
    """Measure and write the Fisher information; see TorchTrainer.importance."""
    if _measured(out) == inputs:
        return out
    tokenised, left_out = usable(model, examples)
    with reproducible(trainer.threads, seed):
        adapted = Adapted(trainer, model, max(map(length, tokenised)))
        adapted.activate([adapter], trainable=True)
        random = torch.Generator().manual_seed(seed)
        found = _products(adapted, adapter) if product else _parameters(adapted)
        with found as (sums, add):
            for example in tokenised:
                log_likelihood(adapted, example, random if sampled else None).backward()  # type: ignore[no-untyped-call]
                add()
                adapted.peft.zero_grad(set_to_none=True)
        mean = {name: (total / len(tokenised)).cpu().contiguous() for name, total in sums.items()}
    bad = [name for name, tensor in mean.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise TrainingError(f"the importance of {bad[0]} is not finite; is adapter {adapter} a good one?")
    facts = {"inputs": inputs, "examples": len(tokenised), "left_out": sum(left_out.values())}
    trace = sum(float(tensor.double().sum()) for tensor in mean.values())
    facts |= {"sampled": sampled, "product": product, "trace": trace}
    _write(out, mean, facts)
    return out


def log_likelihood(adapted: Adapted, example: Tokenised, random: torch.Generator | None) -> Tensor:
    """Return the log-likelihood of one example, the weighted sum over its tokens.

    With a random stream, the tokens that are predicted are drawn from the model itself, each after the example's own
    text: the expectation over them is the Fisher information, that of the example's tokens the empirical one.
    """
    logits, tokens, weights, _ = adapted.logits([example])  # (N, V)
    if random is not None:  # drawn on the CPU, so that every device draws alike
        drawn = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=random)
        tokens = drawn.squeeze(1).to(tokens.device)
    return -torch.dot(F.cross_entropy(logits, tokens, reduction="none"), weights)


@contextlib.contextmanager
def _parameters(adapted: Adapted) -> Iterator[tuple[dict[str, Tensor], Callable[[], None]]]:
    """Sum the squared gradients of A and B; the second value adds those of one example."""
    named = adapted.named()
    sums = {name: torch.zeros_like(p) for name, p in named.items()}

    def add() -> None:
        for name, parameter in named.items():
            if parameter.grad is not None:
                sums[name] += parameter.grad.square()

    yield sums, add


@contextlib.contextmanager
def _products(adapted: Adapted, adapter: Path) -> Iterator[tuple[dict[str, Tensor], Callable[[], None]]]:
    """Sum the squared gradients of the entries of every B A; the second value adds those of one example.

    A layer computes y = W x + s (B A + D) x with D = 0, so dL/dD = s * sum over positions of dL/dy x^T: it takes the
    layer's input and the gradient of its output, and no more parameters.
    """
    scale = plain_scale(adapter)
    sums: dict[str, Tensor] = {}
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    handles: list[Any] = []

    def watch(name: str) -> Callable[[Any, Any, Tensor], None]:
        def forward(module: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
            entered = given[0].detach()

            def backward(gradient: Tensor) -> None:
                seen[name] = (entered, gradient)

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward

    for name, (a, b) in layers(adapted.named()).items():
        sums[name + PRODUCT] = torch.zeros(b.shape[0], a.shape[1], device=a.device)
        handles.append(adapted.peft.get_submodule(name).register_forward_hook(watch(name)))

    def add() -> None:
        for name, (entered, gradient) in seen.items():
            outer = gradient.float().flatten(0, -2).T @ entered.float().flatten(0, -2)  # (out, in)
            sums[name + PRODUCT] += (scale * outer).square()
        seen.clear()

    try:
        yield sums, add
    finally:
        for handle in handles:
            handle.remove()


def _measured(path: Path) -> str:
    """Return the digest of what a file was measured from; '' if there is no such file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return ""
    try:
        with safe_open(str(path), framework="pt") as file:
            return str((file.metadata() or {}).get("inputs", ""))
    except (SafetensorError, OSError) as error:
        LOG.warning("%s is unreadable (%s); it is measured again", path, error)
        return ""


def _write(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file(tensors, str(part), metadata={"format": "pt", **{k: str(v) for k, v in facts.items()}})
    part.replace(path)
