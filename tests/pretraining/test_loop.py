"""The pretraining loop: its parts against references, and a small model that learns to copy."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from looper.errors import ConfigError, TrainingError
from looper.models.nano.shape import Shape
from looper.pretraining.attention import attend
from looper.pretraining.batches import Corpus, epoch, stream
from looper.pretraining.export import load, save
from looper.pretraining.loop import main, pretrain
from looper.pretraining.muon import orthogonalise
from looper.pretraining.network import Network
from looper.pretraining.settings import PretrainSettings, parse
from looper.pretraining.worker import Worker

SMALL = Shape(hidden=64, layers=2, heads=2, kv_heads=1, ff=128, vocab=48, positions=64)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sequences 0, letters, 1, the same letters, 2; only the copy carries weight."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("corpus")
    tokens, weights, offsets = [], [], [0]
    for _ in range(2500):
        letters = random.integers(3, 48, int(random.integers(3, 8)))
        tokens.append(np.concatenate([[0], letters, [1], letters, [2]]))
        weights.append(np.repeat([0.0, 1.0], [len(letters) + 2, len(letters) + 1]))
        offsets.append(offsets[-1] + len(tokens[-1]))
    np.save(folder / "tokens.npy", np.concatenate(tokens).astype(np.uint16))
    np.save(folder / "weights.npy", np.concatenate(weights).astype(np.float16))
    np.save(folder / "offsets.npy", np.array(offsets, dtype=np.int64))
    return folder


def worker(corpus, out, **settings):
    out.mkdir(exist_ok=True)
    settings = {"processes": 1, "batch_tokens": 512, "decay": 0.0, "bf16": False, "held_out": 50, **settings}
    return Worker(corpus, out, PretrainSettings(**settings), SMALL, 0)


def test_attention_and_its_gradients_are_those_of_torch():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 200, n, 16, dtype=torch.float64, requires_grad=True) for n in (4, 2, 2))
    wide = [z.repeat_interleave(2, dim=2) for z in (k, v)]
    reference = F.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, *wide)), is_causal=True)
    weight = torch.randn(2, 200, 64, dtype=torch.float64)
    results = []
    for out in (reference.transpose(1, 2).reshape(2, 200, 64), attend(q, k, v)):
        results.append([out, *torch.autograd.grad((out * weight).sum(), (q, k, v))])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_exported_weights_give_the_same_losses_and_gradients_in_transformers(tmp_path):
    from transformers import AutoModelForCausalLM

    network = Network(SMALL, seed=1)
    for p in network.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    save(network, tmp_path)
    load(network, tmp_path)  # the stored weights are rounded to bfloat16
    other = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.randint(3, 48, (3, 30), generator=torch.Generator().manual_seed(3))
    weights = torch.zeros(3, 30)  # from token 3 on: transformers gives the padding's embedding no gradient
    weights[:, 10:] = 1.0
    losses, kept = network.losses(tokens, weights)
    reference = F.cross_entropy(other(tokens).logits[:, 9:-1].flatten(0, 1), tokens[:, 10:].flatten(), reduction="none")
    torch.testing.assert_close(losses, reference, atol=1e-4, rtol=1e-4)
    (losses * kept).sum().backward()
    reference.sum().backward()
    torch.testing.assert_close(network.embed.grad, other.model.embed_tokens.weight.grad, atol=1e-3, rtol=1e-3)
    first = other.model.layers[0]
    torch.testing.assert_close(network.blocks[0].norm1.grad, first.input_layernorm.weight.grad, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        network.blocks[0].qkv.grad[:64], first.self_attn.q_proj.weight.grad, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("shape", [(3, 32, 64), (2, 64, 32)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0))).float())
    assert 0.6 < values.min() and values.max() < 1.3


def test_an_epoch_reads_every_sequence_once_with_little_padding(corpus):
    lengths = Corpus(corpus).lengths
    batches = epoch(lengths, 512, seed=3, number=0)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    padded = sum(len(b) * int(lengths[b].max()) for b in batches)
    assert padded < 1.05 * lengths.sum()
    assert max(len(b) * int(lengths[b].max()) for b in batches) <= 512
    whole, resumed = stream(lengths, 512, 3), stream(lengths, 512, 3, skip=len(batches) + 5)
    for _ in range(len(batches) + 5):
        next(whole)
    assert all((next(whole) == next(resumed)).all() for _ in range(10))


def test_rows_are_padded_with_weight_zero(corpus):
    tokens, weights = Corpus(corpus).rows([0, 1, 2, 3])
    for row, length in enumerate(Corpus(corpus).lengths[:4]):
        assert tokens[row, length - 1] == 2
        assert weights[row, length:].sum() == 0


def test_resuming_a_killed_training_gives_the_same_weights(corpus, tmp_path, capsys):
    straight = worker(corpus, tmp_path / "straight", tokens=12_000)
    straight.run()
    first = worker(corpus, tmp_path / "resumed", tokens=12_000, checkpoint_minutes=0.0)
    batches = first._batches()
    for _ in range(9):
        first.learn(next(batches))
    first.save(1.0)
    second = worker(corpus, tmp_path / "resumed", tokens=12_000)
    second.run()
    assert second.step == straight.step
    for a, b in zip(straight.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(TrainingError, match="seed=0 there, 5 here"):
        worker(corpus, tmp_path / "resumed", seed=5).run()


def test_a_slow_pace_shortens_the_budget(corpus, tmp_path, capsys):
    slow = worker(corpus, tmp_path / "slow", tokens=1_000_000, minutes=2.0)
    slow._fit(elapsed=60.0, pace=100.0)
    assert slow.budget == 6000.0
    slow._fit(elapsed=60.0, pace=1e6)
    assert slow.budget == 6000.0


def test_two_processes_learn_to_copy_as_one_does(corpus, tmp_path):
    curves = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        settings = PretrainSettings(
            tokens=60_000, batch_tokens=512, processes=processes, held_out=100, warmup=50, bf16=False
        )
        pretrain(corpus, out, settings, SMALL)
        curves.append([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])
        record = json.loads((out / "train.json").read_text())
        assert record["val"] == curves[-1][-1]["val"] < 3.3 < curves[-1][0]["loss"]
        assert (out / "model.safetensors").is_file() and (out / "config.json").is_file()
    assert curves[0][0]["loss"] == pytest.approx(curves[1][0]["loss"], rel=0.02)


def test_wrong_settings_and_corpora_are_named(tmp_path, capsys):
    with pytest.raises(ConfigError, match="unknown setting 'speed=3'"):
        parse(PretrainSettings, ["speed=3"])
    assert parse(PretrainSettings, ["tokens=1_000", "lr=2e-3", "bf16=false", "start=a"]) == {
        "tokens": 1000,
        "lr": 2e-3,
        "bf16": False,
        "start": "a",
    }
    with pytest.raises(TrainingError, match=r"lacks tokens\.npy"):
        Corpus(tmp_path)
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / "out"), "decay=2"])
    assert "choose a value between 0 and 1" in capsys.readouterr().err
