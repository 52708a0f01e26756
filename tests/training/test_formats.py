"""Adapters in other formats: the same logits as PEFT's own, the same bits on the way back, refusals by name."""

import importlib.util
import json
import math
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from looper.cli import app
from looper.errors import LooperError, StoreError, TrainingError
from looper.learning.adapters import adapter_at
from looper.models.nano.model import NAME, PACKED
from looper.training.adapters import data_digest
from looper.training.formats import export as exporting
from looper.training.formats import gguf_file, mlx_folder, peft_folder
from looper.training.formats.base_model import found
from looper.training.formats.export import export
from looper.training.formats.lora import Lora
from looper.training.formats.targets import Precision, Target
from looper.training.torch_trainer import TorchTrainer
from tests.training.conversations import conversation

needs_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs the extra gguf")
needs_mlx = pytest.mark.skipif(importlib.util.find_spec("mlx_lm") is None, reason="needs the extra mlx")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT calls what transformers has renamed

IDS = torch.arange(3, 33).reshape(2, 15)


def base_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def made(model, out, **settings):
    """A random adapter as PEFT itself saves it."""
    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    adapted = get_peft_model(base_model(model), LoraConfig(**settings))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(str(out), save_embedding_layers=False)
    return out


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    return made(model, tmp_path_factory.mktemp("adapter") / "a")


@pytest.fixture(scope="module")
def expected(model, adapter):
    return logits(PeftModel.from_pretrained(base_model(model), str(adapter)))


def with_lora(model, lora):
    """The base with an adapter added by hand."""
    whole = base_model(model)
    for name, (a, b) in lora.factors.items():
        whole.get_submodule(name).weight.data += lora.scale * (b.float() @ a.float())
    return logits(whole)


def close(got, wanted):
    return (got - wanted).abs().max() / wanted.abs().max() < 1e-4


def test_the_adapter_read_is_the_one_that_peft_applies(model, adapter, expected):
    assert not close(logits(base_model(model)), expected)
    assert close(with_lora(model, peft_folder.read(adapter)), expected)


def test_merged_is_a_plain_folder_with_the_same_logits(model, adapter, expected, tmp_path):
    out = export(adapter, to=Target.merged, base=model, out=tmp_path / "m", precision=Precision.float32)
    assert close(logits(base_model(out)), expected)
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == "float32" and config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    tensors = load_file(out / "model.safetensors")
    assert "lm_head.weight" not in tensors, "tied embeddings stay tied"
    assert {p.name for p in out.iterdir()} >= {"tokenizer.json", "tokenizer_config.json", "README.md"}


def test_merged_is_stored_as_the_base_is_and_its_logits_differ_by_that_rounding_alone(model, adapter, tmp_path):
    exact, stored = (
        export(adapter, to=Target.merged, base=model, out=tmp_path / precision.value, precision=precision)
        for precision in (Precision.float32, Precision.base)
    )
    kept, wanted = logits(base_model(stored)), logits(base_model(exact))
    assert 1e-4 < float((kept - wanted).norm() / wanted.norm()) < 0.1
    assert json.loads((stored / "config.json").read_text())["dtype"] == "bfloat16"
    assert "which are stored in bfloat16, as the base has them. Rounding" in (stored / "README.md").read_text()
    assert "which are stored in float32. Rounding" in (exact / "README.md").read_text()
    rounded = base_model(exact)
    for module in peft_folder.read(adapter).factors:
        weight = rounded.get_submodule(module).weight
        weight.data = weight.data.to(torch.bfloat16).float()
    assert close(kept, logits(rounded)), "only the changed weights were rounded, once"


def test_merged_in_the_base_precision_says_what_rounding_took(model, adapter, tmp_path, caplog):
    adapter = shutil.copytree(adapter, tmp_path / "small")  # small enough that rounding takes a good part of it
    factors = load_file(adapter / peft_folder.WEIGHTS)
    save_file({n: t * 0.0005 if ".lora_B." in n else t for n, t in factors.items()}, adapter / peft_folder.WEIGHTS)
    out = export(adapter, to=Target.merged, base=model, out=tmp_path / "m")
    stored = load_file(out / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    text = (out / "README.md").read_text()
    assert "give --precision float32" in caplog.text
    share = float(text.split("Rounding to the stored precision took ")[1].split("%")[0])
    exact = load_file(
        export(adapter, to=Target.merged, base=model, out=tmp_path / "e", precision=Precision.float32)
        / "model.safetensors"
    )
    before = load_file(model / "model.safetensors")
    changed = [name for name in stored if not torch.equal(stored[name], before[name])]
    off = math.sqrt(sum(float((stored[n].float() - exact[n]).square().sum()) for n in changed))
    moved = math.sqrt(sum(float((exact[n] - before[n].float()).square().sum()) for n in changed))
    assert share == pytest.approx(100 * off / moved, abs=0.01)


@pytest.mark.parametrize(("rank", "alpha"), [(4, 8), (4, 3), (3, 7), (16, 32), (5, 1)])
def test_to_mlx_and_back_is_bit_exact_for_every_whole_alpha(rank, alpha, tmp_path, model):
    source = made(model, tmp_path / "a", r=rank, lora_alpha=alpha)
    there = export(source, to=Target.mlx, base=model, out=tmp_path / "mlx")
    back = export(there, to=Target.peft, base=model, out=tmp_path / "peft")
    old, new = load_file(source / peft_folder.WEIGHTS), load_file(back / peft_folder.WEIGHTS)
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    config = json.loads((back / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (rank, alpha)
    assert config["base_model_name_or_path"] == model.name, "no path of this machine travels along"
    assert config["target_modules"] == sorted(f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up", "down"))


def test_peft_reads_what_was_written_back(model, adapter, expected, tmp_path):
    there = export(adapter, to=Target.mlx, base=model, out=tmp_path / "mlx")
    back = export(there, to=Target.peft, base=model, out=tmp_path / "peft")
    assert torch.equal(logits(PeftModel.from_pretrained(base_model(model), str(back))), expected)


def test_a_rank_stabilised_scale_is_folded_to_within_a_bit(model, tmp_path):
    source = made(model, tmp_path / "a", r=8, lora_alpha=6, use_rslora=True)
    wanted = logits(PeftModel.from_pretrained(base_model(model), str(source)))
    back = export(source, to=Target.peft, base=model, out=tmp_path / "p")
    assert close(logits(PeftModel.from_pretrained(base_model(model), str(back))), wanted)
    config = json.loads((back / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["use_rslora"]) == (8, False)
    lora, folded = peft_folder.read(source), peft_folder.read(back)
    for name, (a, b) in lora.factors.items():
        exact = (b.double() * lora.scale).float()
        assert torch.equal(folded.factors[name][0], a)
        assert torch.all((folded.factors[name][1] - exact).abs() <= torch.finfo().eps * exact.abs())
    assert "folded into B" in (back / "README.md").read_text()


def test_the_mlx_folder_is_as_mlx_lm_wants_it(model, adapter, tmp_path):
    out = export(adapter, to=Target.mlx, base=model, out=tmp_path / "mlx")
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["fine_tune_type"] == "lora" and config["num_layers"] == 2
    assert config["lora_parameters"]["scale"] == 2.0 and config["lora_parameters"]["rank"] == 4
    assert "self_attn.q_proj" in config["lora_parameters"]["keys"]
    a = load_file(adapter / peft_folder.WEIGHTS)["base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"]
    assert torch.equal(load_file(out / mlx_folder.WEIGHTS)["model.layers.1.mlp.up_proj.lora_a"], a.T)


@needs_mlx
def test_mlx_lm_gives_the_same_logits(model, adapter, expected, tmp_path):
    import mlx.core as mx
    import numpy as np
    from mlx_lm.utils import load_adapters, load_model

    out = export(adapter, to=Target.mlx, base=model, out=tmp_path / "mlx")
    whole, _ = load_model(model)
    whole.set_dtype(mx.float32)
    whole = load_adapters(whole, str(out))
    got = torch.from_numpy(np.array(whole(mx.array(IDS.numpy()))))
    assert (got - expected).abs().max() < 1e-4 * max(1.0, float(expected.abs().max()))


@needs_gguf
def test_gguf_holds_the_adapter_under_the_names_of_llama_cpp(model, adapter, expected, tmp_path):
    from gguf import MODEL_ARCH, GGUFReader, get_tensor_name_map

    out = export(adapter, to=Target.gguf, base=model, out=tmp_path / "g")
    reader = GGUFReader(str(out / gguf_file.FILE))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "qwen2" and fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora" and fields["adapter.lora.alpha"] == 8.0
    shapes = {tensor.name: list(tensor.shape) for tensor in reader.tensors}
    assert shapes["blk.0.attn_q.weight.lora_a"] == [32, 4] and shapes["blk.0.attn_q.weight.lora_b"] == [4, 32]
    assert shapes["blk.1.ffn_down.weight.lora_a"] == [64, 4] and len(shapes) == 28
    known = get_tensor_name_map(MODEL_ARCH.QWEN2, 2)
    for module in peft_folder.read(adapter).factors:
        assert known.get_name(f"{module}.weight", try_suffixes=(".weight",)) == gguf_file.tensor_name(module)
    assert close(with_lora(model, gguf_file.read(out / gguf_file.FILE)), expected)
    with pytest.raises(StoreError, match=r"does not name its base model; .*--base"):
        export(out, to=Target.peft, out=tmp_path / "back")
    back = export(out, to=Target.peft, base=model, out=tmp_path / "back")
    assert close(with_lora(model, peft_folder.read(back)), expected)
    theirs = tmp_path / "llama" / gguf_file.FILE
    theirs.parent.mkdir()
    theirs.write_bytes((out / gguf_file.FILE).read_bytes().replace(b"qwen2", b"llama"))
    with pytest.raises(TrainingError, match="architecture 'llama'; adapters are read for qwen2, qwen3"):
        export(theirs.parent, to=Target.peft, base=model, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"peft_type": "IA3"}, "IA3"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused_by_name(adapter, model, settings, word, tmp_path):
    source = shutil.copytree(adapter, tmp_path / "a")
    path = source / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    for target in Target:
        with pytest.raises(TrainingError, match=word):
            export(source, to=target, base=model, out=tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"], "nothing is left behind"


def test_half_an_adapter_is_refused(adapter, model, tmp_path):
    there = export(adapter, to=Target.mlx, base=model, out=tmp_path / "mlx")
    for folder, weights in (
        (shutil.copytree(adapter, tmp_path / "a"), peft_folder.WEIGHTS),
        (there, mlx_folder.WEIGHTS),
    ):
        tensors = load_file(folder / weights)
        for lost in sorted(tensors)[:2]:
            save_file({k: v for k, v in tensors.items() if k != lost}, folder / weights)
            with pytest.raises(StoreError, match=f"but no {lost}"):
                exporting.read(folder)


def test_a_base_in_the_hubs_cache_has_the_hubs_name(adapter, model, tmp_path):
    place = tmp_path / "models--some--base-1" / "snapshots" / "0123abcd"
    out = export(adapter, to=Target.peft, base=shutil.copytree(model, place), out=tmp_path / "out")
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "some/base-1"


def test_layers_that_a_format_cannot_name_are_refused(adapter, model, tmp_path):
    some = peft_folder.read(adapter)
    a, b = next(iter(some.factors.values()))
    head = Lora(rank=4, scale=2.0, factors={"lm_head": (a, b)})
    with pytest.raises(TrainingError, match="lm_head"):
        mlx_folder.write(head, tmp_path / "m", base=model)
    with pytest.raises(TrainingError, match="lm_head"):
        gguf_file.tensor_name("lm_head")
    with pytest.raises(TrainingError, match="not rank 5"):
        Lora(rank=5, scale=2.0, factors=some.factors)


def test_another_base_is_refused_by_its_shapes(adapter, model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(8, 32)
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(TrainingError, match=r"64 x 32.*8 x 32"):
        export(adapter, to=Target.peft, base=other, out=tmp_path / "out")


def test_the_card_says_what_the_adapter_was_trained_on(model, examples, tmp_path):
    fit = TorchTrainer(epochs=1, rank=4, alpha=8).fit(model, examples[:2], start=None, out=tmp_path / "a", seed=0)
    out = export(fit.adapter, to=Target.mlx, base=model, out=tmp_path / "mlx")
    text = (out / "README.md").read_text()
    manifest = json.loads((fit.adapter / "looper.json").read_text())
    for fact in (adapter_at(fit.adapter, "x").digest, manifest["inputs"], "qwen2", model.name, "| rank | 4 |"):
        assert fact in text
    assert f"| digest of the data | {manifest['data']} |" in text and '"lr": 0.001' in text
    assert manifest["data"] == data_digest(examples[:2]) != data_digest(examples[:3])


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """An adapter of the bundled model, as a run leaves it."""
    example = conversation("t", ["<read>a.py</read>", "<done/>"])
    fit = TorchTrainer(epochs=1, rank=2, alpha=4).fit(
        PACKED, [example], start=None, out=tmp_path_factory.mktemp("packed") / "a", seed=0
    )
    return fit.adapter


def test_the_base_is_found_where_the_adapter_says_it_is(packed, model, adapter, tmp_path):
    done = CliRunner().invoke(app, ["export", str(packed), "--to", "peft", "--out", str(tmp_path / "peft")])
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    card = (tmp_path / "peft" / "README.md").read_text()
    assert config["base_model_name_or_path"] == NAME and f"| base model | {NAME} |" in card
    assert card.startswith(f'---\nbase_model: "{NAME}"\n')
    again = export(tmp_path / "peft", to=Target.merged, out=tmp_path / "m", known={NAME: PACKED})  # now by its name
    assert f"| base model | {NAME} |" in (again / "README.md").read_text()
    out = export(adapter, to=Target.peft, out=tmp_path / "tiny")  # PEFT wrote the folder
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == model.name


def test_a_base_that_moved_is_known_by_its_weights_and_another_in_its_place_is_not_taken(packed, tmp_path, caplog):
    moved = shutil.copytree(packed, tmp_path / "a")
    path = moved / "adapter_config.json"

    def stated(place):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(place)}))

    stated("/gone/weights")
    assert found(moved, "/gone/weights", {NAME: PACKED}) == PACKED
    with pytest.raises(StoreError, match=r"names '/gone/weights' as its base model, which is not here.*--base"):
        export(moved, to=Target.peft, out=tmp_path / "o")
    other = shutil.copytree(PACKED, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    stated(other)
    with pytest.raises(StoreError, match="not here any more, or with other weights; give the folder"):
        export(moved, to=Target.peft, out=tmp_path / "o")
    export(moved, to=Target.peft, base=other, out=tmp_path / "o")
    assert "was trained on other weights than those in" in caplog.text
    with pytest.raises(StoreError, match="does not name its base model"):
        found(tmp_path, "", {NAME: PACKED})


def test_the_command(adapter, model, tmp_path, capsys):
    out = tmp_path / "new" / "mlx"
    words = ["export", str(adapter), "--base", str(model), "--out", str(out)]
    done = CliRunner().invoke(app, [*words, "--to", "mlx"])
    assert done.exit_code == 0 and done.output.strip() == str(out)
    again = CliRunner().invoke(app, [*words, "--to", "mlx"])
    assert isinstance(again.exception, StoreError) and "give a new folder" in str(again.exception)
    assert CliRunner().invoke(app, [*words, "--to", "onnx"]).exit_code == 2
    with pytest.raises(LooperError, match="holds no adapter"):
        export(tmp_path, to=Target.mlx, base=model, out=tmp_path / "o")
