"""Experts weighed session by session: the engine computes the written-out sum, and company still changes nothing."""

import json
import random

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen2ForCausalLM

from looper.errors import ModelError
from looper.models.nano.cache import Pool
from looper.models.nano.model import Nano
from looper.models.nano.rows import Job, Rows
from looper.models.nano.tiles import prefill
from looper.records import Adapter, Conversation, Message, Router, Skill

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's, not ours

WORDS = "baco digu neha kilo mune pora sito vu return if x".split()


@pytest.fixture(scope="module")
def experts(tiny, tmp_path_factory):
    """Three adapters of different ranks, the last one of the attention only."""
    found = []
    for i, (rank, targets) in enumerate([(3, "all-linear"), (2, "all-linear"), (2, ["q_proj", "v_proj", "o_proj"])]):
        folder = tmp_path_factory.mktemp(f"expert-{i}")
        torch.manual_seed(i)
        model = Qwen2ForCausalLM.from_pretrained(tiny, dtype=torch.float32)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, init_lora_weights=False)
        tuned = get_peft_model(model, config)
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.08)
        tuned.save_pretrained(folder)
        found.append(Adapter(path=str(folder), digest=f"d{i}", base=Nano(path=str(tiny)).id))
    return found


def routed(folder, experts, kind="mlp", top_k=2, **tensors):
    """Write a random router for some experts; return the skill."""
    folder.mkdir(exist_ok=True)
    stream = torch.Generator().manual_seed(7)
    if kind == "mlp":
        sizes = {"hidden.weight": (8, 64), "hidden.bias": (8,), "output.weight": (len(experts), 8)}
        tensors = {name: torch.randn(*size, generator=stream) for name, size in sizes.items()}
        tensors |= {"output.bias": torch.zeros(len(experts)), "mean": torch.full((64,), 0.1)}
        tensors["scale"] = torch.full((64,), 2.0)
    save_file(tensors, folder / "router.safetensors")
    (folder / "router.json").write_text(json.dumps({"kind": kind, "top_k": top_k, "temperature": 1.0}))
    return Skill(adapters=tuple(experts), router=Router(path=str(folder), digest=f"{kind}{top_k}"))


def conversations(count=12):
    stream = random.Random(3)
    out = []
    for i in range(count):
        user = " ".join(stream.choices(WORDS, k=stream.randint(3, 90)))
        messages = (Message(role="system", content="Fix it."), Message(role="user", content=user))
        more = {"seed": i, "temperature": float(i % 2), "max_tokens": stream.randint(3, 16)}
        out.append(Conversation(id=f"c{i}", messages=messages, **more))
    return out


def logits(engine, prompts, shares):
    """Return the logits after some prompts, computed side by side under these weights."""
    network, caught = engine._network, []
    pool, rows = Pool(network.shape, 64), Rows(network, 4)
    jobs = [Job(i, Conversation(id=str(i), messages=()), ids, held=pool.take(str(i))) for i, ids in enumerate(prompts)]
    with torch.inference_mode():
        for job, weights in zip(jobs, shares, strict=True):
            pool.resize(job.held, len(job.prompt) - 1, ())
            job.held.shares = weights
        prefill(network, pool, [(job.held, job.prompt[:-1]) for job in jobs])
        for job in jobs:
            rows.admit(job, pool)
        rows._choose = lambda found: caught.append(found) or [7] * 4
        rows.step()
    return [caught[0][row].clone() for row in range(len(jobs))]


def written_out(folder, experts, weights):
    """Return transformers' model with W' = W + sum_i w_i * scale_i * B_i A_i, in so many words."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    state = model.state_dict()
    for expert, weight in zip(experts, weights, strict=True):
        lora = load_file(f"{expert.path}/adapter_model.safetensors")
        for name in [n for n in lora if "lora_A" in n]:
            target = name.replace("base_model.model.", "").replace("lora_A.", "")
            state[target] += weight * 2.0 * lora[name.replace("lora_A", "lora_B")] @ lora[name]
    return model.eval()


def test_the_engine_computes_the_weighted_sum_row_by_row(tiny, experts, tmp_path):
    engine = Nano(path=str(tiny)).with_skill(routed(tmp_path / "r", experts))._engine
    stream = random.Random(1)
    prompts = [[stream.randrange(400) for _ in range(n)] for n in (30, 150, 61)]
    shares = [(0.25, 0.75, 0.0), (0.5, 0.2, 0.3), (0.0, 0.0, 1.0)]
    together = logits(engine, prompts, shares)
    for ids, weights, ours in zip(prompts, shares, together, strict=True):
        with torch.inference_mode():
            theirs = written_out(tiny, experts, weights)(torch.tensor([ids])).logits[0, -1]
            plain = written_out(tiny, experts, (0.0, 0.0, 0.0))(torch.tensor([ids])).logits[0, -1]
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max().clamp(min=1)
        assert (plain - theirs).abs().max() > 0.1
        assert torch.equal(logits(engine, [ids], [weights])[0], ours)  # company changes no bit
    base = Nano(path=str(tiny))._running._engine
    assert torch.equal(logits(engine, prompts, [()] * 3)[1], logits(base, prompts, [()] * 3)[1])


def test_the_router_sees_what_transformers_sees(tiny, experts, tmp_path):
    skill = routed(tmp_path / "r", experts)
    engine = Nano(path=str(tiny)).with_skill(skill)._engine
    text = conversations()[0].messages[1].content
    ids = engine._encode(text)
    with torch.inference_mode():
        found = engine._routing.shares(ids)
        reference = Qwen2ForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
        mean = reference.model(torch.tensor([ids])).last_hidden_state[0].mean(0)
    t = load_file(f"{skill.router.path}/router.safetensors")
    hidden = torch.relu(t["hidden.weight"] @ ((mean - t["mean"]) / t["scale"]) + t["hidden.bias"])
    wanted = torch.softmax(t["output.weight"] @ hidden + t["output.bias"], 0)
    wanted[wanted.argmin()] = 0.0  # the best two of three
    assert torch.allclose(torch.tensor(found), wanted / wanted.sum(), atol=1e-5)
    assert found.count(0.0) == 1 and sum(found) == pytest.approx(1.0)


def test_one_expert_is_the_merged_adapter(tiny, experts, tmp_path):
    base = Nano(path=str(tiny))
    alone = base.with_skill(routed(tmp_path / "r", experts[:1], top_k=1))
    merged = base.with_skill(Skill(adapters=tuple(experts[:1])))
    assert alone.id == f"{merged.id}+mlp1" != merged.id
    assert alone._engine._routing.shares([5, 6, 7]) == (1.0,)
    ids = [random.Random(2).randrange(400) for _ in range(70)]
    ours, theirs = logits(alone._engine, [ids], [(1.0,)])[0], logits(merged._engine, [ids], [()])[0]
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max().clamp(min=1)
    asked = conversations(6)
    assert [r.text for r in alone.reply(asked)] == [r.text for r in merged.reply(asked)]


@pytest.mark.parametrize("top_k", [1, 2])
def test_replies_do_not_depend_on_company_or_cache(tiny, experts, tmp_path, top_k):
    base = Nano(path=str(tiny))
    skill = routed(tmp_path / "r", experts, top_k=top_k)

    def play(batch, cached=True):
        model, said, computed = base.with_skill(skill), {}, 0
        now = {c.id: c for c in conversations()}
        for _ in range(2):
            order = list(now)
            random.Random(batch).shuffle(order)
            for start in range(0, len(order), batch):
                group = [now[i] for i in order[start : start + batch]]
                for c, reply in zip(group, model.reply(group), strict=True):
                    said.setdefault(c.id, []).append(reply.text)
                    computed += reply.prompt_tokens - reply.cached_tokens
                    more = (Message(role="assistant", content=reply.text), Message(role="user", content="pora vu"))
                    now[c.id] = c.model_copy(update={"messages": c.messages + more})
                    if not cached:
                        model.forget(c.id)
        return (
            said,
            computed,
            {model._engine._routing.shares(model._engine._encode(c.messages[1].content)) for c in now.values()},
        )

    alone, computed, weights = play(1)
    assert len(weights) > 1  # the sessions are not all of one kind
    afresh, everything, _ = play(12, cached=False)
    assert play(5)[0] == play(12)[0] == alone == afresh
    assert computed < 0.8 * everything
    plain = [r.text for r in base.reply(conversations())]
    assert plain != [alone[c.id][0] for c in conversations()]


def test_a_session_that_begins_anew_under_its_old_name_gets_new_weights(tiny, experts, tmp_path):
    skill = routed(tmp_path / "r", experts)
    model = Nano(path=str(tiny)).with_skill(skill)
    first, *_, last = conversations()
    model.reply([first])
    renamed = last.model_copy(update={"id": first.id})
    assert model.reply([renamed])[0].text == Nano(path=str(tiny)).with_skill(skill).reply([last])[0].text


def test_arrow_scores_are_those_of_hooks_on_transformers(tiny, experts, tmp_path):
    from pathlib import Path

    from looper.learning.arrow import prototypes

    tensors = prototypes([Path(e.path) for e in experts[:2]])
    model = Nano(path=str(tiny)).with_skill(routed(tmp_path / "r", experts[:2], "arrow", 2, **tensors))
    ids = [random.Random(4).randrange(400) for _ in range(170)]  # more than one step of tiles
    reference, seen = Qwen2ForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval(), []
    for name, rows in tensors.items():
        module = reference.get_submodule(name.removeprefix("arrow."))
        module.register_forward_pre_hook(lambda _, given, rows=rows: seen.append((given[0][0] @ rows.T).abs().mean(0)))
    with torch.inference_mode():
        reference(torch.tensor([ids]))
        found = model._engine._routing.shares(ids)
    assert len(seen) == 14
    assert torch.allclose(torch.tensor(found), torch.softmax(torch.stack(seen).mean(0), 0), atol=1e-5)
    assert model.reply(conversations(3))[0].completion_tokens > 0


def test_what_does_not_fit_is_refused(tiny, experts, tmp_path):
    base = Nano(path=str(tiny))
    skill = routed(tmp_path / "r", experts)
    fewer = skill.model_copy(update={"adapters": tuple(experts[:2])})
    with pytest.raises(ModelError, match="weighs 3 experts, the skill has 2"):
        base.with_skill(fewer).reply(conversations(1))
    with pytest.raises(ModelError, match="cannot be added to a mixture"):
        base.with_skill(skill).with_skill(Skill(adapters=tuple(experts[:1])))
    with pytest.raises(ModelError, match="nor a mixture to adapters"):
        base.with_skill(Skill(adapters=tuple(experts[:1]))).with_skill(skill)
    routed(tmp_path / "r", experts, kind="arrows", **{"arrow.x": torch.zeros(3, 2)})
    with pytest.raises(ModelError, match="'arrows'; this engine has mlp and arrow"):
        base.with_skill(skill).reply(conversations(1))
    routed(tmp_path / "r", experts, top_k=0)
    with pytest.raises(ModelError, match="top_k=0"):
        base.with_skill(skill).reply(conversations(1))
    routed(tmp_path / "r", experts, kind="arrow")
    with pytest.raises(ModelError, match="weighs no experts"):
        base.with_skill(skill).reply(conversations(1))
    routed(tmp_path / "r", experts)
    save_file({"output.bias": torch.zeros(3)}, tmp_path / "r" / "router.safetensors")
    with pytest.raises(ModelError, match=r"lacks hidden\.bias"):
        base.with_skill(skill).reply(conversations(1))
    (tmp_path / "r" / "router.json").unlink()
    with pytest.raises(ModelError, match="unreadable"):
        base.with_skill(skill).reply(conversations(1))


def test_a_skills_digest_counts_the_router_and_is_what_it_was_without_one(experts):
    from looper.records import digest_of

    plain = Skill(adapters=tuple(experts), playbook="p")
    assert plain.digest == digest_of([["d0", "d1", "d2"], "p"])
    mixed = plain.model_copy(update={"router": Router(path="a", digest="r")})
    assert mixed.digest == mixed.model_copy(update={"router": Router(path="b", digest="r")}).digest != plain.digest
