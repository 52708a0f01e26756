"""Mixtures of experts: categories, router, Arrow, and the strategy on a tiny model."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from looper.errors import ConfigError, StoreError, TrainingError
from looper.lab import LearningLab
from looper.learning import router
from looper.learning.arrow import prototypes, top_right
from looper.learning.categories import begun, clusters, extended, kmeans, split_rank
from looper.learning.mole import Category, Mole, Routing
from looper.learning.sft import Sft
from looper.models.nano.model import Nano
from looper.models.nano.shape import Shape
from looper.models.nano.tokenizer import save_tokenizer, train_tokenizer
from looper.pretraining.export import save
from looper.pretraining.network import Network
from looper.protocols import Past, Trainer
from looper.records import Conversation, Example, Message, Skill
from looper.training.torch_trainer import TorchTrainer

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's, not ours


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A lab on a temporary folder."""

    trainer: Trainer
    model_path: Path
    model_id: str
    root: Path
    seed: int = 0
    past: tuple[Past, ...] = ()
    episodes: tuple = ()
    notes: dict[str, object] = field(default_factory=dict)

    def out(self, name: str) -> Path:
        return self.root / name

    def note(self, facts: Mapping[str, object]) -> None:
        LearningLab.note(self, facts)  # type: ignore[arg-type]


def example(task, issue, reply):
    told = (Message(role="system", content="Fix."), Message(role="user", content=issue))
    messages = (*told, Message(role="assistant", content=reply))
    return Example(task=task, episode=f"e-{task}", messages=messages, weights=(0.0, 0.0, 1.0))


def issues(start=0):
    """Six tasks of two kinds, in turns."""
    kinds = ("cart price total sum wrong tax", "{{{{ ;;;; 000 111 222 333")
    return [example(f"k{i % 2}/{i}", f"{kinds[i % 2]} {i}", f"<read>m{i}.py</read>") for i in range(start, start + 6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    texts = [m.content for e in [*issues(), *issues(6)] for m in e.messages]
    save_tokenizer(train_tokenizer(texts, vocab=300), folder)
    network = Network(Shape(hidden=32, layers=2, heads=2, kv_heads=1, ff=64, vocab=300, positions=256))
    network.embed.data.mul_(10.0)
    save(network, folder)
    return folder


@pytest.fixture
def lab(model, tmp_path):
    trainer = TorchTrainer(rank=5, alpha=10, lr=1e-2, batch=2, epochs=2, held_out=0.0)
    return Bench(trainer=trainer, model_path=model, model_id=Nano(path=str(model)).id, root=tmp_path / "first")


def after(lab, name, **more):
    return Bench(**{**vars(lab), "root": lab.root.parent / name, "notes": {}, **more})


MOLE = Mole(experts=2, least=2, top_k=2, steps=60)


def blobs(sizes, seed=0):
    random = np.random.default_rng(seed)
    parts = [random.normal(10.0 * i, 1.0, (n, 3)) for i, n in enumerate(sizes)]
    return np.concatenate(parts).astype(np.float32)


def test_kmeans_finds_blobs_and_dissolves_what_is_too_small():
    labels = kmeans(blobs([8, 5, 2]), 3, seed=1)
    assert labels.tolist() == [0] * 8 + [1] * 5 + [2] * 2  # numbered as they appear
    assert kmeans(blobs([8, 5, 2]), 3, seed=1, least=4).tolist() == [0] * 8 + [1] * 7
    assert kmeans(blobs([8, 5, 2]), 3, seed=1, least=99).tolist() == [0] * 15
    assert kmeans(np.ones((4, 2), np.float32), 3, seed=0).tolist() == [0] * 4


def test_ranks_are_split_wholly():
    assert split_rank(16, 3) == (6, 5, 5) and split_rank(16, 1) == (16,)
    with pytest.raises(TrainingError, match=r"trainer\.rank=2 cannot be split among 3"):
        split_rank(2, 3)


def test_later_tasks_go_to_their_own_expert_their_familys_or_the_nearest():
    points = blobs([4, 4])
    names = [f"t{i}" for i in range(8)]
    known = clusters(points, names, rank=8, experts=4, least=3, seed=0)
    assert known.experts == 2 and known.ranks == (4, 4)
    grown = extended(known, np.concatenate([points[7:], points[:1] + 1.0]), ["t0", "new"], None)
    assert grown.tasks == {**known.tasks, "t0": 0, "new": 0}  # t0 stays, wherever it is now
    families = {f"t{i}": "ab"[i // 4] for i in range(8)} | {"c": "c", "d": "d"}
    first = extended(begun(points, (2, 2, 2)), points[:4], names[:4], families)
    assert (first.experts, first.families) == (1, ("a",))
    second = extended(first, np.concatenate([points[4:], blobs([1, 1, 1])[2:]]), [*names[4:], "c"], families)
    assert (
        second.families == ("a", "b", "c")
        and second.tasks["c"] == 2
        and np.array_equal(second.centres[0], first.centres[0])
    )
    full = extended(second, points[4:5], ["d"], families)
    assert full.families == second.families and full.tasks["d"] == 1  # no rank is left: the nearest
    with pytest.raises(TrainingError, match="the family of task 'x' is unknown"):
        extended(first, points[:1], ["x"], families)


SETTINGS = router.Settings(hidden=8, steps=100, lr=0.02, balance=0.01, top_k=2, seed=0)


def test_the_router_learns_the_categories_and_keeps_the_best():
    points, labels = blobs([20, 20, 20]) / 10.0, np.repeat(np.arange(3), 20)
    trained = router.train(points, labels, 3, SETTINGS)
    weights = router.shares(trained, points, 2)
    assert (weights.argmax(1) == labels).mean() > 0.95
    assert ((weights > 0).sum(1) == 2).all() and np.allclose(weights.sum(1), 1.0)
    assert router.accuracy(points, labels, 3, SETTINGS) > 0.9
    assert router.accuracy(points[:4], labels[:4], 3, SETTINGS) is None
    noise = np.random.default_rng(0).integers(0, 3, 60)
    assert router.accuracy(points, noise, 3, SETTINGS) < 0.6  # measured on tasks it did not see
    again = router.train(points, labels, 3, SETTINGS)
    assert all(torch.equal(trained[name], again[name]) for name in trained)


def test_the_balance_loss_spreads_and_usage_says_so():
    points, labels = blobs([57, 3]) / 100.0, np.repeat([0, 1], [57, 3])
    told = [
        router.usage(router.shares(router.train(points, labels, 2, s), points, 2))
        for s in (SETTINGS, router.Settings(**{**vars(SETTINGS), "balance": 5.0}))
    ]
    assert told[1]["usage_entropy"] > told[0]["usage_entropy"]
    assert sum(told[0]["usage"]) == pytest.approx(1.0)
    even = router.usage(np.full((4, 2), 0.5, np.float32))
    assert even["entropy"] == pytest.approx(math.log(2)) == even["usage_entropy"]
    assert router.usage(np.eye(2, dtype=np.float32))["entropy"] == 0.0


def adapters(model, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2ForCausalLM

    folders = []
    for i in range(2):
        torch.manual_seed(i)
        config = LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", init_lora_weights=False)
        tuned = get_peft_model(Qwen2ForCausalLM.from_pretrained(model, dtype=torch.float32), config)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.data *= torch.tensor([1.0, 0.2, 0.1])  # a clear first direction, for a power iteration's sake
        tuned.save_pretrained(tmp_path / str(i))
        folders.append(tmp_path / str(i))
    return folders


def test_arrows_prototypes_are_pefts(model, tmp_path):
    from peft import ArrowConfig, create_arrow_model
    from transformers import Qwen2ForCausalLM

    folders = adapters(model, tmp_path)
    base = Qwen2ForCausalLM.from_pretrained(model, dtype=torch.float32)
    reference = create_arrow_model(base, [str(f) for f in folders], ArrowConfig(top_k=1))
    with torch.inference_mode():
        reference(torch.tensor([[5, 6, 7]]))  # PEFT makes them on first use
    modules = {
        name.removeprefix("base_model.model."): module.lora_arrow["arrow_router"].prototypes
        for name, module in reference.named_modules()
        if hasattr(module, "lora_arrow") and len(module.lora_arrow)
    }
    ours = prototypes(folders)
    assert {f"arrow.{name}" for name in modules} == set(ours) and len(ours) == 14
    for name, theirs in modules.items():
        alike = torch.nn.functional.cosine_similarity(ours[f"arrow.{name}"], theirs).abs()
        assert alike.min() > 0.9999, name


def test_the_top_right_vector_is_the_dense_ones():
    stream = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 30, generator=stream), torch.randn(20, 4, generator=stream)
    dense = torch.linalg.svd(b @ a).Vh[0]
    assert abs(float(dense @ top_right(a, b))) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(top_right(a, b), top_right(-a, -b))


def test_one_expert_is_sft(lab):
    alone = Mole(experts=1, top_k=1).learn(Skill(), issues(), lab)
    assert alone.digest == Sft().learn(Skill(), issues(), after(lab, "sft")).digest
    assert alone.router is None


def test_a_mixture_is_as_large_as_one_adapter_and_runs(lab):
    skill = MOLE.learn(Skill(), issues(), lab)
    ranks = [json.loads((Path(a.path) / "adapter_config.json").read_text())["r"] for a in skill.adapters]
    assert ranks == [3, 2] and sum(ranks) == lab.trainer.rank
    assert [(e["tasks"], e["examples"], e["rank"]) for e in lab.notes["experts"]] == [(3, 3, 3), (3, 3, 2)]
    one, two = (load_file(Path(a.path) / "adapter_model.safetensors") for a in skill.adapters)
    starts = [torch.cosine_similarity(one[n][:2], two[n]).abs().mean() for n in one if "lora_A" in n]
    assert max(starts) < 0.6  # every expert from a random start of its own
    told = lab.notes["router"]
    assert told["fit_accuracy"] == 1.0 and told["accuracy"] == 1.0 and len(told["usage"]) == 2
    assert lab.notes["train_loss"] > 0.0 and lab.notes["steps"] == 8
    known = router.load(Path(skill.router.path))
    assert known.tasks == {f"k{i % 2}/{i}": i % 2 for i in range(6)}
    again = MOLE.learn(Skill(), issues(), after(lab, "again"))
    assert again.digest == skill.digest
    assert Mole(**{**vars(MOLE), "top_k": 1}).learn(Skill(), issues(), lab).digest != skill.digest

    running = Nano(path=str(lab.model_path)).with_skill(skill)
    assert running.id.endswith(skill.router.digest)
    asked = [Conversation(id=e.task, messages=e.messages[:2], max_tokens=4) for e in issues()]
    assert len(running.reply(asked)) == 6
    texts = [e.messages[1].content for e in issues()]
    points = known.standardised(lab.trainer.embeddings(lab.model_path, texts))
    wanted = router.shares(load_file(f"{skill.router.path}/router.safetensors"), points, 2)
    engine = running._engine
    with torch.inference_mode():
        found = [engine._routing.shares(engine._encode(text)) for text in texts]
    assert np.allclose(found, wanted, atol=0.02)  # training may have embedded the texts in bfloat16


def test_later_stages_continue_the_experts_and_train_the_router_on_all(lab):
    first = MOLE.learn(Skill(), issues(), lab)
    later = [e for e in issues(6) if e.task.startswith("k1")]
    past = (Past(examples=tuple(issues()), skill=first),)
    second_lab = after(lab, "second", past=past)
    second = MOLE.learn(first, later, second_lab)
    assert second.adapters[0] == first.adapters[0]  # nothing new for this one
    assert second.adapters[1].digest != first.adapters[1].digest
    assert second.router.digest != first.router.digest
    assert second_lab.notes["router"]["tasks"] == 9
    assert [(e["tasks"], e["all_tasks"]) for e in second_lab.notes["experts"]] == [(0, 3), (3, 6)]
    anew = Mole(**{**vars(MOLE), "fresh": True}).learn(second, issues(), after(lab, "anew"))
    assert anew.digest == first.digest


def test_families_are_experts_and_arrow_needs_no_training(lab):
    episodes = tuple(SimpleNamespace(task=e.task, family=e.task[:2]) for e in [*issues(), *issues(6)])
    mole = Mole(experts=3, category=Category.family, routing=Routing.arrow, top_k=1)
    only = [e for e in issues() if e.task.startswith("k0")]
    first = mole.learn(Skill(), only, after(lab, "one", episodes=episodes))
    assert len(first.adapters) == 1
    second = mole.learn(first, issues(6), after(lab, "two", episodes=episodes))
    assert len(second.adapters) == 2
    known = router.load(Path(second.router.path))
    assert known.families == ("k0", "k1") and known.ranks == (2, 2, 1)
    running = Nano(path=str(lab.model_path)).with_skill(second)
    with torch.inference_mode():
        assert sorted(running._engine._routing.shares([5, 6, 7])) == [0.0, 1.0]


def test_what_cannot_be_is_refused(lab, tmp_path):
    with pytest.raises(ConfigError, match=r"strategy\.top_k=0"):
        Mole(top_k=0)
    with pytest.raises(ConfigError, match=r"strategy\.temperature=0\.0"):
        Mole(temperature=0.0)
    plain = Sft().learn(Skill(), issues(), lab)
    with pytest.raises(TrainingError, match="are no mixture"):
        MOLE.learn(plain, issues(), lab)
    with pytest.raises(StoreError, match="unreadable"):
        router.load(tmp_path)
    told = {"tasks": {}, "families": [], "ranks": []}
    (tmp_path / "router.json").write_text(json.dumps(told))
    (tmp_path / "router.safetensors").write_bytes(b"half a file")
    with pytest.raises(StoreError, match=r"unreadable .*strategy\.fresh=true"):
        router.load(tmp_path)
