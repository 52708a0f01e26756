"""The bundled model as an option: identity, skills, and what it says when something is wrong."""

import json
import random
import shutil
import subprocess
import sys

import pytest

from looper.errors import ConfigError, ModelError
from looper.models.nano.model import Nano
from looper.protocols import Model
from looper.records import Adapter, Conversation, Message, Skill

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's, not ours


def ask(**more):
    return Conversation(id="a", messages=(Message(role="user", content="fix mune_pora"),), max_tokens=12, **more)


def adapter(folder, base, seed, **settings):
    """Make a LoRA adapter with PEFT; return its record and the logits that PEFT computes with it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(seed)
    model = Qwen2ForCausalLM.from_pretrained(base.weights, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, **settings)
    tuned = get_peft_model(model, config).eval()
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.05)
    tuned.save_pretrained(folder)
    return Adapter(path=str(folder), digest=f"d{seed}", base=base.id), tuned


def logits(model, ids):
    import torch

    from looper.models.nano.cache import Pool
    from looper.models.nano.rows import Job, Rows
    from looper.models.nano.tiles import prefill

    network, caught = model._engine._network, []
    pool, rows = Pool(network.shape, 8), Rows(network, 1)
    job = Job(0, ask(), ids, held=pool.take("a"))
    with torch.inference_mode():
        pool.resize(job.held, len(ids) - 1, ())
        prefill(network, pool, [(job.held, ids[:-1])])
        rows.admit(job, pool)
        rows._choose = lambda found: caught.append(found) or [7]
        rows.step()
    return caught[0][0]


def test_it_is_a_model_and_its_identity_is_its_files(tiny, tmp_path):
    model: Model = Nano(path=str(tiny))
    assert model.id.startswith("nano-") and model.knows_protocol and model.weights == tiny.resolve()
    assert model.tokens("def mune(pora):\n    return 12") == model.tokens("def mune(pora):") + 5
    assert model.reply([ask()])[0] == Nano(path=str(tiny), width=3).reply([ask()])[0]
    model.forget("a")
    shutil.copytree(tiny, tmp_path / "other")
    assert Nano(path=str(tmp_path / "other")).id == model.id
    config = json.loads((tiny / "config.json").read_text()) | {"rms_norm_eps": 1e-5}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    assert Nano(path=str(tmp_path / "other")).id != model.id


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}])
def test_a_merged_adapter_gives_the_logits_of_peft(tiny, tmp_path, settings):
    import torch

    base = Nano(path=str(tiny))
    found, tuned = adapter(tmp_path / "one", base, 1, **settings)
    model = base.with_skill(Skill(adapters=(found,)))
    ids = [random.Random(0).randrange(400) for _ in range(30)]
    with torch.inference_mode():
        theirs = tuned(torch.tensor([ids])).logits[0, -1]
        plain = logits(base._running, ids)
    ours = logits(model, ids)
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max().clamp(min=1)
    assert (plain - theirs).abs().max() > 0.1
    assert model.id == f"{base.id}+d1" and model.knows_protocol


def test_adapters_sum(tiny, tmp_path):
    import torch

    base = Nano(path=str(tiny))
    one, two = (adapter(tmp_path / str(seed), base, seed)[0] for seed in (1, 2))
    both = base.with_skill(Skill(adapters=(one, two)))
    one_by_one = base.with_skill(Skill(adapters=(one,))).with_skill(Skill(adapters=(two,)))
    ids = [random.Random(1).randrange(400) for _ in range(9)]
    assert torch.equal(logits(both, ids), logits(one_by_one, ids))
    assert both.id == one_by_one.id == f"{base.id}+d1+d2"


def test_the_scale_multiplies_what_an_adapter_adds(tiny, tmp_path):
    base = Nano(path=str(tiny))
    record, _ = adapter(tmp_path / "a", base, 1)
    twin = shutil.copytree(tmp_path / "a", tmp_path / "half")
    config = json.loads((twin / "adapter_config.json").read_text())
    (twin / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] / 2}))
    half = Nano(path=str(tiny), scale=0.5).with_skill(Skill(adapters=(record,)))
    same = base.with_skill(Skill(adapters=(record.model_copy(update={"path": str(twin)}),)))
    ids = [5, 9, 300, 4, 77]
    assert (logits(half, ids) == logits(same, ids)).all()
    none = Nano(path=str(tiny), scale=0.0)
    assert (logits(none.with_skill(Skill(adapters=(record,))), ids) == logits(none._running, ids)).all()
    assert none.id == half.base == base.id and half.id != same.id
    with pytest.raises(ConfigError, match=r"scale=-1.0 is no factor"):
        Nano(scale=-1.0)


def test_a_skill_without_adapters_is_the_model_itself(tiny):
    model = Nano(path=str(tiny))
    assert model.with_skill(Skill(playbook="Read first.")) is model


def test_an_adapter_of_another_base_is_refused(tiny):
    model = Nano(path=str(tiny))
    with pytest.raises(ModelError, match=rf"trained on nano-other, but this model is {model.id}"):
        model.with_skill(Skill(adapters=(Adapter(path="x", digest="d", base="nano-other"),)))


def test_an_adapter_that_is_more_than_a_sum_is_refused(tiny, tmp_path):
    base = Nano(path=str(tiny))
    found, _ = adapter(tmp_path / "dora", base, 1, use_dora=True)
    with pytest.raises(ModelError, match=r"use_dora=True: .*; only plain LoRA"):
        base.with_skill(Skill(adapters=(found,))).reply([ask()])


def test_missing_files_and_wrong_values_are_named(tiny, tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing; make the model with `looper pretrain`"):
        _ = Nano(path=str(tmp_path)).id
    shutil.copytree(tiny, tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        Nano(path=str(tmp_path / "half")).reply([ask()])
    with pytest.raises(ConfigError, match="width=0"):
        Nano(width=0)
    config = json.loads((tiny / "config.json").read_text()) | {"model_type": "llama"}
    (tmp_path / "half" / "config.json").write_text(json.dumps(config))
    shutil.copy(tiny / "model.safetensors", tmp_path / "half")
    with pytest.raises(ModelError, match="model_type='llama'"):
        Nano(path=str(tmp_path / "half")).reply([ask()])


def test_importing_the_option_imports_no_torch():
    code = "import sys, looper.models.nano.model, looper.models.replay; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
