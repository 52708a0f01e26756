"""A model run by mlx-lm: the replies are those of `hf`, with adapters and without, whatever the company."""

import json
import shutil
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from looper.errors import ConfigError, ContextOverflow, MachineError, ModelError
from looper.models.folder import base_of
from looper.models.hugging_face import Device, Dtype, HuggingFace
from looper.models.mlx_model import Mlx
from looper.protocols import Form, Model
from looper.records import Adapter, Conversation, Message, Router, Skill
from tests.models.conftest import SYLLABLES
from tests.models.loopback import asking

pytest.importorskip("mlx_lm")

FULL = {"dtype": Dtype.float32, "width": 2, "cache": 4}
BATCH = [
    asking(
        f"Issue: `{'_'.join(SYLLABLES[: 1 + i])}` is wrong. " + "It says so. " * 2 * i,
        max_tokens=5 + i,
        temperature=0.9 * (i == 2),
        seed=i,
    )
    for i in range(3)
]


@pytest.fixture(scope="module")
def model(tiny):
    return Mlx(name=str(tiny), **FULL)


@pytest.fixture(scope="module")
def peer(tiny):
    return HuggingFace(name=str(tiny), device=Device.cpu, dtype=Dtype.float32, width=2, cache=4)


@pytest.fixture(scope="module")
def adapters(tiny, model, tmp_path_factory):
    """Two random adapters in PEFT's format, on other layers and of other scales."""
    weights, out = load_file(tiny / "model.safetensors"), []
    for i, ends in enumerate((("q_proj", "down_proj"), ("q_proj", "up_proj", "o_proj"))):
        torch.manual_seed(i)
        tensors = {}
        for name, weight in weights.items():
            if name.removesuffix(".weight").endswith(ends):
                module = f"base_model.model.{name.removesuffix('.weight')}"
                tensors[f"{module}.lora_A.weight"] = torch.randn(4, weight.shape[1]) * 0.2
                tensors[f"{module}.lora_B.weight"] = torch.randn(weight.shape[0], 4) * 0.2
        folder = tmp_path_factory.mktemp(f"adapter{i}")
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4 * (1 + i), "target_modules": list(ends), "bias": "none"}
        config |= {"task_type": "CAUSAL_LM", "init_lora_weights": True, "base_model_name_or_path": str(tiny)}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
        out.append(Adapter(path=str(folder), digest=f"digest{i}", base=f"{base_of(tiny)}/cpu-float32"))
    return tuple(out)


def texts(replies):
    return [reply.text for reply in replies]


def test_replies_are_those_of_hf_alone_and_in_company(model, peer):
    here: Model = model
    wanted = peer.reply(BATCH)
    assert list(here.reply(BATCH)) == list(wanted), "tokens, ends and counts, too"
    assert [here.reply([conversation])[0].text for conversation in BATCH[::-1]] == texts(wanted)[::-1]
    assert here.tokens("def ba_co(di)") == peer.tokens("def ba_co(di)")


def test_draws_follow_the_seed_and_the_temperature(model):
    def drawn(temperature, seed):
        return asking("Issue: `ba`", max_tokens=8, temperature=temperature, seed=seed)

    first, again, other = texts(model.reply([drawn(1.0, 1), drawn(1.0, 1), drawn(1.0, 2)]))
    assert first == again != other
    assert len(set(texts(model.reply([drawn(1e-4, 7), drawn(0.0, 0)])))) == 1


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's, not ours
def test_adapters_answer_as_with_hf_and_leave_the_base_as_it_was(model, peer, adapters):
    before = texts(model.reply(BATCH))
    one, both = Skill(adapters=adapters[:1]), Skill(adapters=adapters)
    tuned = model.with_skill(one)
    alone = texts(tuned.reply(BATCH))
    assert alone == texts(peer.with_skill(one).reply(BATCH)) != before
    summed = tuned.with_skill(Skill(adapters=adapters[1:]))
    assert texts(summed.reply(BATCH)) == texts(peer.with_skill(both).reply(BATCH)) != alone
    assert texts(model.reply(BATCH)) == before and texts(tuned.reply(BATCH)) == alone
    assert summed.id == f"{model.id}+digest0+digest1" and tuned.weights == model.weights


def test_a_resumed_conversation_computes_only_what_is_new(tiny, model):
    first = asking("Issue: `ba` is wrong", id="s", max_tokens=6)
    reply = model.reply([first])[0]
    turns = (*first.messages, Message(role="assistant", content=reply.text), Message(role="user", content="seen"))
    second = Conversation(id="s", messages=turns, max_tokens=6)
    resumed = model.reply([second])[0]
    assert 0 < reply.prompt_tokens - 4 < resumed.cached_tokens < resumed.prompt_tokens
    assert resumed.text == Mlx(name=str(tiny), **FULL | {"cache": 0}).reply([second])[0].text
    twins = model.reply([first, second])  # of one session, in one batch
    assert texts(twins) == [reply.text, resumed.text]
    model.forget("s")
    assert model.reply([second])[0].cached_tokens == 0


def test_whatever_thread_asks_is_answered(model):
    found = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(model.reply(BATCH[:1])[0].text))
        thread.start()
        thread.join()
    assert found == texts(model.reply(BATCH[:1])) * 2


def test_weights_that_mlx_quantised_take_adapters_beside_them(tiny, adapters, tmp_path):
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    folder, settings = shutil.copytree(tiny, tmp_path / "m"), {"group_size": 32, "bits": 8}
    whole, config = load_model(folder)
    nn.quantize(whole, **settings)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(whole.parameters())), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config | {"quantization": settings}))
    model = Mlx(name=str(folder), **FULL)
    mine = adapters[0].model_copy(update={"base": model.id})
    plain, tuned = (texts(one.reply(BATCH[:1])) for one in (model, model.with_skill(Skill(adapters=(mine,)))))
    assert plain != tuned and plain[0] and tuned[0]
    with pytest.raises(ModelError, match=f"trained on {adapters[0].base}, but this model is {model.id}"):
        model.with_skill(Skill(adapters=adapters[:1]))


def test_adapters_that_do_not_fit_are_refused(model, adapters, tmp_path):
    before = texts(model.reply(BATCH[:1]))
    with pytest.raises(ModelError, match="mixture"):
        model.with_skill(Skill(adapters=adapters, router=Router(path="r", digest="r")))
    assert model.forms == {Form.single, Form.stack} and model.with_skill(Skill(playbook="p")) is model
    folder = shutil.copytree(adapters[0].path, tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    moved = {name.replace("layers.1", "layers.7"): tensor for name, tensor in tensors.items()}
    save_file(moved, folder / "adapter_model.safetensors")
    broken = adapters[0].model_copy(update={"path": str(folder), "digest": "broken"})
    with pytest.raises(ModelError, match=r"holds base_model\.model\.model\.layers\.7.*fits no linear layer"):
        model.with_skill(Skill(adapters=(broken,))).reply(BATCH[:1])
    config = json.loads((folder / "adapter_config.json").read_text()) | {"rank_pattern": {"q_proj": 2}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="rank_pattern"):
        model.with_skill(Skill(adapters=(broken,))).reply(BATCH[:1])
    assert texts(model.reply(BATCH[:1])) == before


def test_a_prompt_that_fills_the_context_overflows(model):
    with pytest.raises(ContextOverflow, match="reads 512"):
        model.reply([BATCH[0], asking("Issue: " + "wrong " * 600)])


def test_identity_is_the_files_the_library_the_device_and_the_precision(tiny, model):
    assert model.id.startswith(f"{base_of(tiny)}/mlx-") and model.id.endswith("-float32")
    other = Mlx(name=str(tiny), dtype=Dtype.bfloat16)
    assert other.id.endswith("-bfloat16") and other.reply(BATCH[:1])[0].text


def test_a_model_that_cannot_be_loaded_or_is_nowhere_is_named(tiny, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"mlx-lm can load .*up_proj.*model=hf"):
        Mlx(name=str(folder), **FULL).reply(BATCH[:1])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"'nobody/nothing' \(revision main\) is no folder.*give a folder"):
        Mlx(name="nobody/nothing").weights  # noqa: B018


def test_without_the_library_the_command_that_installs_it_is_named(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx_lm", None)  # as if it were not installed
    for ask in (Mlx.check, lambda model: model.id, lambda model: model.reply(BATCH[:1])):
        with pytest.raises(MachineError, match=r"pip install 'looper\[mlx\]', or give model=hf"):
            ask(Mlx(name=str(tiny)))


def test_options_that_cannot_be_had_are_named():
    with pytest.raises(ConfigError, match=r"model\.width=0"):
        Mlx(width=0)
    with pytest.raises(ConfigError, match=r"model\.name is empty"):
        Mlx(name="")
