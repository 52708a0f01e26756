"""A model in Hugging Face's format: the replies are those of transformers and PEFT, whatever the company."""

import json
import shutil

import pytest
import torch

from looper.chat import render
from looper.errors import ConfigError, ContextOverflow, MachineError, ModelError
from looper.models.folder import base_of, ends_of, template_of
from looper.models.hugging_face import Device, Dtype, HuggingFace
from looper.models.nano.tokenizer import load_tokenizer
from looper.protocols import Model
from looper.records import Adapter, Conversation, Message, Router, Skill
from tests.models.conftest import SYLLABLES
from tests.models.loopback import asking

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's, not ours

CPU = {"device": Device.cpu, "width": 4, "cache": 4}
BATCH = [
    asking(f"Issue: `{'_'.join(SYLLABLES[: 1 + i])}` is wrong. " + "It says so. " * 3 * i, max_tokens=8 + i)
    for i in range(6)
]


@pytest.fixture(scope="module")
def model(tiny):
    return HuggingFace(name=str(tiny), **CPU)


@pytest.fixture(scope="module")
def adapters(tiny, model, tmp_path_factory):
    """Two random adapters, made by PEFT."""
    from peft import LoraConfig, get_peft_model

    out = []
    for i in range(2):
        torch.manual_seed(i)
        config = LoraConfig(r=4, lora_alpha=8 * (1 + i), target_modules="all-linear", init_lora_weights=False)
        folder = tmp_path_factory.mktemp(f"adapter{i}")
        tuned = get_peft_model(loaded(tiny), config)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
        tuned.save_pretrained(folder)
        out.append(Adapter(path=str(folder), digest=f"digest{i}", base=model.id))
    return tuple(out)


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def generated(network, folder, conversation):
    """The greedy reply as transformers' own generate gives it."""
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(render(conversation.messages, reply=True), add_special_tokens=False).ids
    prompt = torch.tensor([ids])
    out = network.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=conversation.max_tokens, do_sample=False
    )
    return tokenizer.decode(out[0, len(ids) :].tolist(), skip_special_tokens=True)


def texts(replies):
    return [reply.text for reply in replies]


def test_greedy_replies_are_those_of_generate(tiny, model):
    here: Model = model
    network = loaded(tiny)
    replies = here.reply(BATCH)
    assert texts(replies) == [generated(network, tiny, conversation) for conversation in BATCH]
    assert all(reply.completion_tokens <= c.max_tokens for reply, c in zip(replies, BATCH, strict=True))
    assert replies[0].prompt_tokens == model.tokens(render(BATCH[0].messages, reply=True))


def test_a_reply_ends_at_an_end_token(tiny, model, tmp_path):
    whole = model.reply(BATCH[:1])[0]
    ids = load_tokenizer(tiny).encode(whole.text, add_special_tokens=False).ids
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    settings["eos_token_id"] = [ids[3]]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    cut = HuggingFace(name=str(folder), **CPU).reply(BATCH[:1])[0]
    assert cut.finish == "stop" and whole.finish == "length"
    assert whole.text.startswith(cut.text) and cut.completion_tokens == ids.index(ids[3]) + 1


def test_company_changes_no_reply(tiny, model):
    batch = [c.model_copy(update={"temperature": 0.9 * (i % 2), "seed": i}) for i, c in enumerate(BATCH)]
    together = texts(model.reply(batch))
    alone = [model.reply([conversation])[0].text for conversation in batch]
    assert together == alone == texts(model.reply(batch[::-1]))[::-1]
    assert texts(HuggingFace(name=str(tiny), device=Device.cpu, width=1, cache=0).reply(batch)) == together


def test_draws_follow_the_seed_and_the_temperature(tiny, model):
    def drawn(temperature, seed):
        return model.reply([asking("Issue: `ba`", max_tokens=16, temperature=temperature, seed=seed)])[0].text

    assert drawn(1.0, 1) == drawn(1.0, 1) != drawn(1.0, 2)
    assert drawn(1e-4, 7) == drawn(0.0, 0)


def test_drawn_tokens_have_the_models_probabilities():
    from looper.models.jobs import drawn

    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(4000, 4)
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = torch.bincount(drawn(logits, torch.full((4000,), 0.5), draws), minlength=4) / 4000
    assert torch.allclose(shares, (logits[0] / 0.5).softmax(0), atol=0.02)


def test_a_resumed_conversation_computes_only_what_is_new(tiny):
    model = HuggingFace(name=str(tiny), **CPU)
    first = asking("Issue: `ba` is wrong", id="s", max_tokens=6)
    reply = model.reply([first])[0]
    assert reply.cached_tokens == 0
    turns = (*first.messages, Message(role="assistant", content=reply.text), Message(role="user", content="seen"))
    second = Conversation(id="s", messages=turns, max_tokens=6)
    resumed = model.reply([second])[0]
    assert 0 < reply.prompt_tokens - 4 < resumed.cached_tokens < resumed.prompt_tokens
    assert resumed.text == HuggingFace(name=str(tiny), **CPU).reply([second])[0].text
    model.forget("s")
    assert model.reply([second])[0].cached_tokens == 0
    model.reply(BATCH)  # more than are kept
    assert model.reply([second])[0].cached_tokens == 0


def test_an_adapter_answers_as_in_peft(tiny, model, adapters):
    from peft import PeftModel

    before = texts(model.reply(BATCH))
    tuned = model.with_skill(Skill(adapters=adapters[:1]))
    network = PeftModel.from_pretrained(loaded(tiny), adapters[0].path).eval()
    replies = texts(tuned.reply(BATCH))
    assert replies == [generated(network, tiny, conversation) for conversation in BATCH]
    assert replies != before == texts(model.reply(BATCH)), "the base is as it was"
    assert tuned.id == f"{model.id}+digest0" and tuned.weights == model.weights
    tuned.forget("x")


def test_several_adapters_are_summed(tiny, model, adapters):
    from peft import PeftModel

    network = loaded(tiny)
    for adapter in adapters:
        network = PeftModel.from_pretrained(network, adapter.path).merge_and_unload()
    both = model.with_skill(Skill(adapters=adapters[:1])).with_skill(Skill(adapters=adapters[1:]))
    assert texts(both.reply(BATCH)) == [generated(network, tiny, conversation) for conversation in BATCH]
    assert both.id == f"{model.id}+digest0+digest1"
    alone = model.with_skill(Skill(adapters=adapters[1:]))
    before = texts(alone.reply(BATCH))  # the first one is taken out of memory, and comes back
    assert model.engine._adapters == {"digest1"}
    assert texts(both.reply(BATCH)) != before == texts(alone.reply(BATCH))


def test_adapters_that_do_not_fit_are_refused(model, adapters, tmp_path):
    stranger = adapters[0].model_copy(update={"base": "hf-000000000000/cpu-float32"})
    with pytest.raises(ModelError, match=f"trained on hf-000000000000/cpu-float32, but this model is {model.id}"):
        model.with_skill(Skill(adapters=(stranger,)))
    with pytest.raises(ModelError, match="holds no adapter"):
        model.with_skill(Skill(adapters=(adapters[0].model_copy(update={"path": str(tmp_path)}),)))
    with pytest.raises(ModelError, match="twice"):
        model.with_skill(Skill(adapters=adapters[:1] * 2))
    with pytest.raises(ModelError, match="mixture"):
        model.with_skill(Skill(adapters=adapters, router=Router(path="r", digest="r")))
    assert model.with_skill(Skill(playbook="p")) is model


@pytest.mark.parametrize("more", [{"use_dora": True}, {"bias": "all"}, {"init_lora_weights": "pissa"}])
def test_an_adapter_that_would_not_sum_or_marks_the_base_is_refused(model, adapters, tmp_path, more):
    folder = shutil.copytree(adapters[0].path, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | more))
    with pytest.raises(ModelError, match=f"{next(iter(more))}=.*only plain LoRA"):
        model.with_skill(Skill(adapters=(adapters[0].model_copy(update={"path": str(folder)}),)))


def test_weights_that_are_not_there_are_missed(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        HuggingFace(name=str(folder), **CPU).reply(BATCH[:1])
    parts = {name: "model-00002-of-00002.safetensors" for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(ModelError, match="lacks model-00002-of-00002"):
        HuggingFace(name=str(folder), **CPU).weights  # noqa: B018


def test_a_template_that_cannot_render_a_session_is_named(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(ModelError, match="chat template cannot render"):
        HuggingFace(name=str(folder), **CPU).reply(BATCH[:1])


def test_an_adapter_whose_tensors_do_not_fit_is_refused(tiny, adapters, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "adapter"
    shutil.copytree(adapters[0].path, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if "layers.0" in name)
    save_file({k.replace("layers.0", "layers.7") if k == name else k: v for k, v in tensors.items()}, folder / "w")
    (folder / "w").replace(folder / "adapter_model.safetensors")
    broken = adapters[0].model_copy(update={"path": str(folder), "digest": "broken"})
    model = HuggingFace(name=str(tiny), **CPU)
    with pytest.raises(ModelError, match="is missing or extra"):
        model.with_skill(Skill(adapters=(broken,))).reply(BATCH[:1])
    with pytest.raises(ModelError, match="no longer the base's"):
        model.reply(BATCH[:1])


def test_a_model_that_was_unloaded_answers_the_same(tiny, adapters):
    model = HuggingFace(name=str(tiny), **CPU)
    model.release()  # before the first reply
    adapted = model.with_skill(Skill(adapters=adapters))
    before, engine = [texts(each.reply(BATCH[:2])) for each in (adapted, model)], model.engine
    model.release()
    assert model.engine is engine, "on a CPU nothing is to be gained"
    model._unload()
    assert [texts(each.reply(BATCH[:2])) for each in (adapted, model)] == before
    assert model.engine is not engine


@pytest.mark.gpu
def test_a_released_model_gives_the_cards_memory_back(tiny):
    model = HuggingFace(name=str(tiny), device=Device.cuda, width=4, cache=4)
    before = texts(model.reply(BATCH[:2]))
    held = torch.cuda.memory_allocated()
    model.release()
    assert torch.cuda.memory_allocated() < held and "engine" not in vars(model)
    assert texts(model.reply(BATCH[:2])) == before


def test_a_prompt_that_fills_the_context_overflows(model):
    with pytest.raises(ContextOverflow, match="reads 512"):
        model.reply([BATCH[0], asking("Issue: " + "wrong " * 600)])
    long = asking("Issue: " + "ba " * 10, max_tokens=10_000)
    reply = model.reply([long])[0]
    assert reply.prompt_tokens + reply.completion_tokens <= 512


def test_identity_is_the_files_the_device_and_the_precision(tiny, model, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    copy = HuggingFace(name=str(folder), **CPU)
    assert copy.id == model.id == f"{base_of(tiny)}/cpu-float32"
    assert HuggingFace(name=str(tiny), device=Device.cpu, dtype=Dtype.bfloat16).id == f"{base_of(tiny)}/cpu-bfloat16"
    assert HuggingFace(name=str(tiny), dtype=Dtype.bfloat16, device=Device.cpu).reply(BATCH[:1])[0].text
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert copy.id != model.id and template_of(folder).startswith("{% for m in")


def test_a_model_that_is_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"'nobody/nothing' \(revision main\) is no folder, is not in the hub's cache"):
        HuggingFace(name="nobody/nothing").weights  # noqa: B018
    with pytest.raises(ModelError, match="neither a folder nor a hub's name"):
        HuggingFace(name="no/such/folder").weights  # noqa: B018
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        HuggingFace(name=str(tmp_path)).weights  # noqa: B018


def test_options_that_cannot_be_had_are_named(tiny):
    with pytest.raises(ConfigError, match=r"four_bit=true needs model.device=cuda"):
        HuggingFace(four_bit=True, device=Device.cpu)
    with pytest.raises(ConfigError, match=r"model\.width=0"):
        HuggingFace(width=0)
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match=r"model\.device=cuda is not on this machine"):
            HuggingFace(name=str(tiny), device=Device.cuda).id  # noqa: B018
    if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        with pytest.raises(MachineError, match="needs a CUDA device"):
            HuggingFace(name=str(tiny), four_bit=True).id  # noqa: B018


def test_a_folder_that_names_no_end_is_refused(tmp_path):
    with pytest.raises(ModelError, match="eos_token_id"):
        ends_of(tmp_path, {})
