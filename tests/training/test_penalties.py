"""The penalties and their gradients, against autograd of the sums written out."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from looper.errors import TrainingError
from looper.protocols import Orthogonal, Quadratic
from looper.training.adapted import Adapted
from looper.training.penalties import layers, term
from tests.training.plainly import trainer

pytestmark = pytest.mark.usefixtures("fixed")


def stored(adapter):
    return load_file(str(adapter / "adapter_model.safetensors"))


@pytest.fixture(scope="module")
def fishers(adapters, tmp_path_factory):
    """Made-up importances of the first adapter's A and B, and of its B A."""
    folder, random = tmp_path_factory.mktemp("fisher"), torch.Generator().manual_seed(0)
    tensors = stored(adapters[0])
    save_file({n: torch.rand(t.shape, generator=random) for n, t in tensors.items()}, str(folder / "single"))
    shapes = {f"{n}.lora_BA.weight": (len(b), a.shape[1]) for n, (a, b) in layers(tensors).items()}
    products = {n: torch.rand(shape, generator=random) for n, shape in shapes.items()}
    save_file(products, str(folder / "product"))
    return folder


def squares(fisher, here, then):
    return sum((fisher[n] * (here[n] - then[n]) ** 2).sum() for n in here) / 2


def products(fisher, here, then):
    total = 0.0
    for name, (a, b) in layers(here).items():
        a_then, b_then = layers(then)[name]
        total += (fisher[name + ".lora_BA.weight"] * (b @ a - b_then @ a_then) ** 2).sum() / 2
    return total


def overlap(fisher, here, then):
    return sum((layers(then)[n][0] @ a.T).abs().sum() for n, (a, _) in layers(here).items())


@pytest.mark.parametrize(("kind", "formula"), [("single", squares), ("product", products), ("apart", overlap)])
def test_value_and_gradient_are_those_of_the_formula(kind, formula, model, adapters, fishers):
    adapted = Adapted(trainer(), model, 200)
    adapted.attach(adapters[1])
    if kind == "apart":
        penalty, fisher = Orthogonal(past=(adapters[0],), lam=0.7), {}
    else:
        fisher = load_file(str(fishers / kind))
        penalty = Quadratic(anchor=adapters[0], importance=fishers / kind, lam=0.7, product=kind == "product")
    value = term(penalty, adapted.named()).add()
    here = {name: tensor.requires_grad_() for name, tensor in stored(adapters[1]).items()}
    expected = formula(fisher, here, stored(adapters[0]))
    (0.7 * expected).backward()
    assert value == pytest.approx(float(expected.detach()), rel=1e-5) and value > 0.0
    for name, parameter in adapted.named().items():
        if here[name].grad is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, here[name].grad, rtol=1e-4, atol=1e-6)


def test_lam_0_is_plain_training_and_a_strong_pull_holds(model, examples, adapters, fishers, tmp_path):
    found = {}
    for name, lam in (("plain", None), ("zero", 0.0), ("strong", 1e4)):
        pull = Quadratic(anchor=adapters[0], importance=fishers / "single", lam=lam) if lam is not None else None
        fit = trainer().fit(model, examples, start=adapters[0], out=tmp_path / name, seed=0, penalty=pull)
        found[name] = fit, stored(fit.adapter)
    assert all(torch.equal(found["plain"][1][name], tensor) for name, tensor in found["zero"][1].items())
    assert found["zero"][0].history[0]["penalty"] == 0.0 < found["zero"][0].history[0]["penalty_unweighted"]
    assert "penalty" not in found["plain"][0].history[0]
    row = found["strong"][0].history[0]
    assert row["penalty"] == pytest.approx(1e4 * row["penalty_unweighted"])
    assert row["penalty_unweighted"] < found["zero"][0].history[0]["penalty_unweighted"] / 2


def test_orthogonal_training_keeps_apart_on_top_of_the_past(model, examples, adapters, tmp_path):
    overlaps = []
    for lam in (0.0, 10.0):
        apart = Orthogonal(past=(adapters[0],), lam=lam)
        fit = trainer(epochs=3).fit(
            model, examples, start=None, out=tmp_path / str(lam), seed=0, under=[adapters[0]], penalty=apart
        )
        overlaps.append(float(overlap({}, stored(fit.adapter), stored(adapters[0]))))
    assert overlaps[1] < overlaps[0] - 1.0


def test_what_does_not_fit_is_named(model, adapters, fishers, tmp_path):
    adapted = Adapted(trainer(rank=2, alpha=4), model, 200)
    adapted.attach(None)
    with pytest.raises(TrainingError, match=r"with shape \(4, 32\), the adapter \(2, 32\)"):
        term(Quadratic(anchor=adapters[0], importance=fishers / "single", lam=1.0), adapted.named())
    adapted = Adapted(trainer(), model, 200)
    adapted.attach(adapters[0])
    with pytest.raises(TrainingError, match=r"has no importance of .* measure it with the same adapter"):
        term(Quadratic(anchor=adapters[0], importance=fishers / "product", lam=1.0), adapted.named())
    with pytest.raises(TrainingError, match="there is no importance file"):
        term(Quadratic(anchor=adapters[0], importance=tmp_path / "none", lam=1.0), adapted.named())
    (tmp_path / "half").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"importance file .* is unreadable .*; delete it"):
        term(Quadratic(anchor=adapters[0], importance=tmp_path / "half", lam=1.0), adapted.named())
