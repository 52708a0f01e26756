"""The Fisher information, against a loop of single-example backward passes of plain PEFT."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from looper.training.penalties import layers
from looper.training.tokens import tokenise
from tests.training.conversations import conversation
from tests.training.plainly import gradients, log_prob, network, token_log_probs, token_logits, trainer

pytestmark = pytest.mark.usefixtures("fixed")


@pytest.fixture(scope="module")
def few(examples):
    half = conversation("t20", ["<read>main/f2.py</read>", "<done/>"], [0.5, 1.0])
    return [*examples[:3], half]


def measure(model, examples, adapter, out, **given):
    return load_file(
        trainer().importance(model, examples, adapter, out, **{"sampled": False, "product": False, "seed": 7, **given})
    )


def test_the_empirical_one_is_the_mean_of_squared_gradients(model, few, adapters, tmp_path):
    found = measure(model, few, adapters[0], tmp_path / "f")
    net, expected = network(model, adapters[0]), {}
    for example in tokenise(model, few):
        net.zero_grad()
        log_prob(net, example).backward()
        for name, gradient in gradients(net).items():
            expected[name] = expected.get(name, 0.0) + gradient**2 / len(few)
    assert set(found) == set(expected) == set(load_file(adapters[0] / "adapter_model.safetensors"))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-7)


def test_labels_are_drawn_from_the_model_with_the_seed(model, few, adapters, tmp_path):
    found = measure(model, few, adapters[0], tmp_path / "f", sampled=True)
    net, random, total = network(model, adapters[0]), torch.Generator().manual_seed(7), 0.0
    for example in tokenise(model, few):
        net.zero_grad()
        logits, weights = token_logits(net, example), token_log_probs(net, example)[1]
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=random)
        (logits.log_softmax(-1).gather(1, drawn).squeeze(1) * weights).sum().backward()
        total += sum(float(g.square().sum()) for g in gradients(net).values()) / len(few)
    assert sum(float(t.sum()) for t in found.values()) == pytest.approx(total, rel=1e-3)
    other = measure(model, few, adapters[0], tmp_path / "other", sampled=True, seed=8)
    assert any(not torch.equal(found[name], other[name]) for name in found)


def test_of_products_it_is_that_of_the_dense_weights_times_the_scale(model, few, adapters, tmp_path):
    found = measure(model, few, adapters[0], tmp_path / "f", product=True)
    names = list(layers(load_file(adapters[0] / "adapter_model.safetensors")))
    assert set(found) == {f"{name}.lora_BA.weight" for name in names}
    net = network(model, adapters[0]).merge_and_unload()  # y = (W + s B A) x, s = 2
    net.requires_grad_(True)
    expected = dict.fromkeys(names, 0.0)
    for example in tokenise(model, few):
        net.zero_grad()
        log_prob(net, example).backward()
        for name in names:
            weight = net.get_submodule(name.removeprefix("base_model.model.")).weight
            expected[name] = expected[name] + (2.0 * weight.grad) ** 2 / len(few)
    for name in names:
        torch.testing.assert_close(found[f"{name}.lora_BA.weight"], expected[name], rtol=1e-3, atol=1e-7)


def test_a_measured_file_is_kept_and_tells_what_it_is(model, few, adapters, tmp_path):
    out = tmp_path / "below" / "fisher.safetensors"
    tensors = measure(model, few, adapters[0], out)
    with safe_open(out, framework="pt") as file:
        facts = file.metadata()
    assert (facts["examples"], facts["sampled"], facts["product"], facts["left_out"]) == ("4", "False", "False", "0")
    assert float(facts["trace"]) == pytest.approx(sum(float(t.sum()) for t in tensors.values()), rel=1e-4)
    before = out.stat().st_mtime_ns
    measure(model, few, adapters[0], out)
    assert out.stat().st_mtime_ns == before
    measure(model, few[:2], adapters[0], out)
    assert out.stat().st_mtime_ns != before
