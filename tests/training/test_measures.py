"""Losses of several adapters, embeddings, divergence and adapters below a new one, against plain computations."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from looper.errors import TrainingError
from looper.training.merging import factors, merge
from looper.training.tokens import tokenise
from tests.training.plainly import log_prob, network, token_logits, trainer

pytestmark = pytest.mark.usefixtures("fixed")


@pytest.fixture(scope="module")
def merged(model, adapters, tmp_path_factory):
    """The model with the first adapter in its weights, as a folder of its own."""
    folder = tmp_path_factory.mktemp("merged")
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    for name, (a, b) in factors(adapters[0]).items():
        tensors[name.removeprefix("base_model.model.") + ".weight"] += 2.0 * (b @ a)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_adapters_add_up(model, merged, examples, adapters):
    together = trainer().losses(model, examples[:3], adapters)
    stacked = trainer().losses(merged, examples[:3], adapters[1:])
    assert together == pytest.approx(stacked, rel=1e-4)
    net = network(merged, adapters[1])
    tokenised = tokenise(model, examples[:3])
    assert together == pytest.approx([float(-log_prob(net, e).detach()) / e.weight for e in tokenised], rel=1e-4)


def test_an_adapter_below_is_a_merged_base(model, merged, examples, adapters, tmp_path):
    below = trainer().fit(model, examples, start=None, out=tmp_path / "below", seed=3, under=[adapters[0]])
    onto = trainer().fit(merged, examples, start=None, out=tmp_path / "onto", seed=3)
    assert below.train_loss == pytest.approx(onto.train_loss, rel=1e-6)
    ours, theirs = (load_file(fit.adapter / "adapter_model.safetensors") for fit in (below, onto))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-5)


def test_only_plain_lora_can_be_below(model, adapters, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((adapters[0] / name).read_bytes())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"is unreadable .*; delete it to train it again"):
        factors(tmp_path)
    for more, said in (({"use_dora": True}, "DoRA.*"), ({"rank_pattern": {"q_proj": 2}}, "ranks of their own")):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | more))
        with pytest.raises(TrainingError, match=f"{said}; only plain LoRA"):
            merge(network(model), tmp_path)


def test_embeddings_are_means_of_the_last_hidden_states_whatever_the_company(model):
    texts = ["Issue: t1 is wrong", "You fix bugs. " * 6, "seen 0"]
    found = trainer(batch_tokens=64).embeddings(model, texts)
    tokenizer, net = Tokenizer.from_file(str(model / "tokenizer.json")), network(model)
    assert found.shape == (3, 32) and found.dtype == np.float32
    for row, text in zip(found, texts, strict=True):
        hidden = net.model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state
        np.testing.assert_allclose(row, hidden[0].mean(0).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert trainer().embeddings(model, ["word " * 900]).shape == (1, 32)  # cut at what the model takes
    with pytest.raises(TrainingError, match="text 1 of 2 has no token"):
        trainer().embeddings(model, ["a", ""])


def test_divergence_is_the_mean_kl_from_the_base(model, merged, examples, adapters):
    total = mass = 0.0
    base, adapted = network(model), network(merged, adapters[1])
    for example in tokenise(model, examples[:3]):
        p, q = (token_logits(net, example).log_softmax(-1).detach() for net in (base, adapted))
        total, mass = total + float((p.exp() * (p - q)).sum()), mass + len(p)
    assert trainer().divergence(model, [examples[:3]], adapters) == [pytest.approx(total / mass, rel=1e-3)]
    assert trainer().divergence(model, [examples[:3]], []) == [0.0]


def test_a_group_that_cannot_be_measured_leaves_the_others_as_they_are(model, examples, adapters):
    alone = [trainer().divergence(model, [group], adapters)[0] for group in (examples[:1], examples[1:3])]
    first, none, last = trainer().divergence(model, [examples[:1], [], examples[1:3]], adapters)
    assert [first, last] == alone and isinstance(none, TrainingError)
    assert [type(one) for one in trainer().divergence(model, [[]], adapters)] == [TrainingError]
