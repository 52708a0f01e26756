"""The adapter as llama.cpp applies it, on the base as llama.cpp reads it: the logits of transformers and PEFT.

Opt-in (`pytest -m slow tests/training/test_gguf_served.py`), where llama-cpp-python[server] is installed.
"""

import contextlib
import ctypes
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

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


def write_base(model, path, vocabulary=False):
    """A Qwen2 folder as one GGUF file in float32; without its vocabulary tokens are given by number."""
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
    if vocabulary:
        add_vocabulary(writer, json.loads((model / "tokenizer.json").read_text()), config["vocab_size"])
    else:
        writer.add_tokenizer_model("no_vocab")
    for shard in sorted(model.glob("*.safetensors")):
        for name, tensor in load_file(shard).items():
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_vocabulary(writer, tokenizer, size):
    from gguf import TokenType

    known = {number: text for text, number in tokenizer["model"]["vocab"].items()}
    special = {t["id"]: t["content"] for t in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([special.get(i) or known.get(i, f"<unused{i}>") for i in range(size)])
    plain_text = known.keys() - special.keys()
    writer.add_token_types([TokenType.NORMAL if i in plain_text else TokenType.CONTROL for i in range(size)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)


@contextlib.contextmanager
def server(base, adapter):
    """llama.cpp's OpenAI-compatible server on loopback; yields a function that posts to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"model": base, "lora_path": adapter, "host": "127.0.0.1", "port": port, "n_ctx": 256, "n_threads": 1}
    settings |= {"n_threads_batch": 1, "type_k": 0, "type_v": 0, "logits_all": "true", "flash_attn": "false"}
    words = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    process = subprocess.Popen([sys.executable, "-m", "llama_cpp.server", *words], stderr=subprocess.DEVNULL)

    def post(path, **body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    try:
        for _ in range(120):
            assert process.poll() is None, "the server has ended"
            with contextlib.suppress(urllib.error.URLError):
                post("/extras/tokenize", input="a")
                break
            time.sleep(0.5)
        yield post
    finally:
        process.terminate()
        process.wait(timeout=20)


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
def plain(folder, adapter=None, ids=IDS):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    model = model if adapter is None else PeftModel.from_pretrained(model, str(adapter))
    return model(torch.tensor([ids])).logits[0]


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


def test_llama_cpp_serves_the_exported_adapter_as_peft_does(tmp_path):
    pytest.importorskip("llama_cpp.server.app")
    pytest.importorskip("gguf")
    adapter = made(PACKED, tmp_path / "adapter", r=8, lora_alpha=12, init_lora_weights=True)
    out = export(adapter, to=Target.gguf, base=PACKED, out=tmp_path / "gguf")
    prompt = "def total(values):\n    return sum(values)\n"
    with server(write_base(PACKED, tmp_path / "base.gguf", vocabulary=True), out / gguf_file.FILE) as post:
        ids = post("/extras/tokenize", input=prompt)["tokens"]
        said = post("/v1/completions", prompt=prompt, max_tokens=1, echo=True, logprobs=1, temperature=0)
    assert len(ids) > 10
    # llama-cpp-python 0.3 pairs a token with the logits after it (row i holds what follows token i), and so does this.
    told = torch.tensor(said["choices"][0]["logprobs"]["token_logprobs"][1 : len(ids)])

    def expected(*adapters):
        rows = plain(PACKED, *adapters, ids=ids).log_softmax(-1)
        return rows.gather(1, torch.tensor(ids)[:, None])[1:, 0]

    assert float((expected() - told).abs().max()) > 0.1, "the adapter changes what is served"
    assert off(told, expected(adapter)) <= 1e-3


def off(got, wanted):
    """Largest difference as a share of the largest logit."""
    return float((got - wanted).abs().max() / wanted.abs().max())
