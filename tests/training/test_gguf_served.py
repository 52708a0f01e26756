"""The adapter as llama.cpp applies it, on the base as llama.cpp reads it: the logits of transformers and PEFT.

Opt-in (`pytest -m slow tests/training/test_gguf_served.py`), where llama-cpp-python is installed.
"""

import ctypes
import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from looper.models.nano.model import PACKED
from looper.training.formats import gguf_file
from looper.training.formats.export import export
from looper.training.formats.targets import Precision, Target
from tests.training.test_formats import made

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]

IDS = list(range(3, 120))


def write_base(model, path):
    """A Qwen2 folder as one GGUF file in float32, without its vocabulary: tokens are given by number."""
    import gguf

    config = json.loads((model / "config.json").read_text())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    for shard in sorted(model.glob("*.safetensors")):
        for name, tensor in load_file(shard).items():
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def served(llama, base, adapter=None):
    """Logits of all tokens (T, V) as llama.cpp computes them, everything in float32."""
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(str(base).encode(), llama.llama_model_default_params())
    assert model, f"llama.cpp does not load {base}"
    settings = llama.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_threads = 256, 256, 256, 1
    settings.type_k = settings.type_v = 0  # GGML_TYPE_F32
    settings.flash_attn_type = 0  # it multiplies in float16
    context = llama.llama_init_from_model(model, settings)
    if adapter is not None:
        lora = llama.llama_adapter_lora_init(model, str(adapter).encode())
        assert lora, f"llama.cpp does not load {adapter}"
        many = (llama.llama_adapter_lora_p_ctypes * 1)(lora)
        assert llama.llama_set_adapters_lora(context, many, 1, (ctypes.c_float * 1)(1.0)) == 0
    batch = llama.llama_batch_init(len(IDS), 0, 1)
    batch.n_tokens = len(IDS)
    for i, token in enumerate(IDS):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    assert llama.llama_decode(context, batch) == 0
    width = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    rows = np.ctypeslib.as_array(llama.llama_get_logits(context), shape=(len(IDS), width)).copy()
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    llama.llama_model_free(model)
    return torch.from_numpy(rows)


@torch.no_grad()
def plain(folder, adapter=None):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    model = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
    return model(torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize("bundled", [False, True], ids=["tiny", "bundled"])
def test_llama_cpp_applies_the_exported_adapter_as_peft_does(bundled, model, tmp_path):
    llama = pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    folder = PACKED if bundled else model
    adapter = made(folder, tmp_path / "adapter", r=8, lora_alpha=12, init_lora_weights=True)
    out = export(adapter, to=Target.gguf, base=folder, out=tmp_path / "gguf")
    base = write_base(folder, tmp_path / "base.gguf")
    bare, adapted = plain(folder), plain(folder, adapter)
    assert off(adapted, bare) > 0.1, "the adapter changes something"
    assert off(served(llama, base), bare) <= 1e-3
    assert off(served(llama, base, out / gguf_file.FILE), adapted) <= 1e-3
    merged = export(adapter, to=Target.merged, base=folder, out=tmp_path / "merged", precision=Precision.float32)
    assert off(served(llama, write_base(merged, tmp_path / "merged.gguf")), adapted) <= 1e-3


def off(got, wanted):
    """Largest difference as a share of the largest logit."""
    return float((got - wanted).abs().max() / wanted.abs().max())
