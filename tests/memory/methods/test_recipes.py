"""Recipes apply to the bundled train.py, train, stay causal, and go together; what does not fit says why."""

from __future__ import annotations

import pytest
import torch

from looper.errors import PatchError
from looper.memory.methods import pack, recipes
from looper.memory.predicates import present
from looper.memory.rows import Method, MethodSource
from tests.trainable import STEPS, TASK, module_of, prepared, small

CODE = (TASK / "train.py").read_text()
METHODS = {method.id: method for method in pack.load()}
ABLE = [method for method in METHODS.values() if method.recipe]


def applied(name: str) -> str:
    return recipes.apply(METHODS[name], CODE, pack=METHODS.values())


@pytest.mark.parametrize("name", [method.id for method in ABLE])
def test_a_recipe_trains_and_stays_causal(name: str) -> None:
    code = applied(name)
    assert not present(METHODS[name], CODE) and present(METHODS[name], code)
    train = module_of(small(code))
    torch.manual_seed(1)
    model = train.GPT(train.GPTConfig())
    x, y = next(prepared().batches(16, seed=99, budget=2000))
    with torch.no_grad():
        before = train.loss_of(model, x, y).item()
    steps = train.train(model)
    assert steps == STEPS
    with torch.no_grad():
        assert train.loss_of(model, x, y).item() < before - 0.2
        changed = x.clone()
        changed[:, 40:] = (changed[:, 40:] + 1) % 256
        seen, unseen = model(x), model(changed)
    assert seen.shape == (*x.shape, 256)
    torch.testing.assert_close(seen[:, :40], unseen[:, :40])
    assert not torch.allclose(seen[:, 40:], unseen[:, 40:])


@pytest.mark.slow
def test_any_two_recipes_go_together_unless_one_excludes_the_other() -> None:
    refused = set()
    for first in ABLE:
        code = applied(first.id)
        for second in ABLE:
            if present(second, code):
                continue
            if recipes.excluded(second, code, METHODS.values()):
                refused.add((first.id, second.id))
                continue
            both = recipes.apply(second, code, pack=METHODS.values())
            assert present(first, both), (first.id, second.id)
    assert refused == {
        ("relu_squared", "swiglu"), ("swiglu", "relu_squared"),
        ("linear_to_zero", "warmdown"), ("warmdown", "linear_to_zero"),
    }  # fmt: skip


@pytest.mark.parametrize("order", [1, -1])
def test_all_that_go_together_train_together(order: int) -> None:
    code = CODE
    for method in ABLE[::order]:
        if not present(method, code) and not recipes.excluded(method, code, METHODS.values()):
            code = recipes.apply(method, code, pack=METHODS.values())
    left_out = {method.id for method in ABLE if not present(method, code)}
    assert left_out == ({"swiglu", "warmdown"} if order == 1 else {"relu_squared", "linear_to_zero"})
    train = module_of(small(code))
    torch.manual_seed(1)
    assert train.train(train.GPT(train.GPTConfig())) == STEPS


def test_what_a_method_builds_on_comes_first() -> None:
    muon_lr, muon = METHODS["muon_lr"], METHODS["muon"]
    with pytest.raises(PatchError, match="couples with muon, apply that first"):
        recipes.apply(muon_lr, CODE)
    step_by_step = recipes.apply(muon_lr, recipes.apply(muon, CODE))
    assert step_by_step == recipes.apply(muon_lr, CODE, pack=METHODS.values())
    assert present(muon, step_by_step)


def test_what_does_not_fit_says_why() -> None:
    with pytest.raises(PatchError, match="'mixture_of_experts' has no recipe; its summary says why"):
        recipes.apply(METHODS["mixture_of_experts"], CODE)
    with pytest.raises(PatchError, match="'muon' is in the code already"):
        recipes.apply(METHODS["muon"], applied("muon"))
    with pytest.raises(PatchError, match="'swiglu' does not go with 'relu_squared'"):
        recipes.apply(METHODS["swiglu"], applied("relu_squared"), pack=METHODS.values())
    with pytest.raises(PatchError, match=r"'F.gelu\(self.up\(x\)\)', is in the code 0 times"):
        recipes.apply(METHODS["relu_squared"], CODE.replace("F.gelu", "F.silu"))
    twice = CODE.replace("DEPTH = 2\n", "DEPTH = 2\nDEPTH = 2\n")
    with pytest.raises(PatchError, match="'DEPTH = 2', is in the code 2 times; it has to be there once"):
        recipes.apply(METHODS["deeper"], twice)


@pytest.mark.parametrize(
    ("replace", "says"),
    [("HEADS = (", "leaves invalid Python at line"), ("HEADS = 4", 'but knob\\("HEADS"\\) == 8 does not hold')],
)
def test_a_recipe_that_breaks_the_code_or_misses_its_aim_is_refused(replace: str, says: str) -> None:
    method = Method(
        id="heads", name="More heads", category="attention", summary="Twice as many heads.",
        recipe=({"search": "HEADS = 4", "replace": replace},), present_if='knob("HEADS") == 8',
        sources=(MethodSource(paper="arxiv:1706.03762v7"),),
    )  # fmt: skip
    with pytest.raises(PatchError, match=says):
        recipes.apply(method, CODE)
