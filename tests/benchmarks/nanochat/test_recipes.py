"""The memory's recipes on the bundled train.py: what applies trains, what is in it already is seen."""

from __future__ import annotations

import sys
from itertools import islice
from types import ModuleType

import pytest
import torch

from looper.benchmarks.nanochat.benchmark import FIXED, Device, NanoChat
from looper.benchmarks.research import contract
from looper.errors import PatchError
from looper.memory.methods import pack
from looper.memory.methods.recipes import apply
from looper.memory.predicates import present
from looper.memory.syntax import Code
from tests.benchmarks.nanochat.conftest import load, small

TRAIN = NanoChat(device=Device.cpu).files()["train.py"]
METHODS = {method.id: method for method in pack.load()}
OFFERED = (
    *("attention_gate", "bigram_embedding", "cautious_decay", "muon_lr"),
    *("polar_express", "qk_scale", "rope_base", "token_smear"),
)
THERE = {
    *("decay_to_zero", "linear_to_zero", "muon", "no_gradient_clipping", "no_warmup", "qk_norm", "relu_squared"),
    *("residual_lambdas", "rms_norm", "rope", "sliding_window", "softcap", "untied_head", "value_embeddings"),
    "zero_init",
}


def applied(name: str) -> str:
    return apply(METHODS[name], TRAIN, pack=METHODS.values())


def test_what_applies_and_what_is_there_already() -> None:
    found = []
    for name in METHODS:
        try:
            found.append((name, applied(name))[0])
        except PatchError:
            continue
    assert tuple(found) == OFFERED
    assert {name for name, method in METHODS.items() if present(method, Code(TRAIN))} == THERE


@pytest.mark.parametrize("name", OFFERED)
def test_what_applies_keeps_the_contract_and_trains(name: str, prepare: ModuleType) -> None:
    code = applied(name)
    assert contract.objection(code, fixed=FIXED) is None
    torch.manual_seed(1)
    module = load(f"nanochat_{name}", small(code))
    try:
        model = module.GPT(module.GPTConfig())
        updating, losses = list(module.optimisers(model)), []
        for step, (x, y) in enumerate(islice(prepare.batches(8), 12)):
            loss = module.loss_of(model, x, y)
            loss.backward()
            for optimiser in updating:
                optimiser.step(step / 12)
            model.zero_grad()
            losses.append(loss.item())
        x, _ = next(prepare.batches(2))
        changed = x.clone()
        changed[:, -1] = (changed[:, -1] + 1) % 300
        with torch.no_grad():
            assert torch.equal(model(x)[:, :-1], model(changed)[:, :-1])  # sees no later token
        assert losses[-1] < losses[0]
    finally:
        sys.modules.pop(f"nanochat_{name}")
