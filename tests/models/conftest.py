"""A tiny random model and a tokenizer of its own, in a folder in Hugging Face format."""

import json
import random

import pytest

SYLLABLES = "ba co di fu ge ha ki lo mu ne po ra si to vu".split()


def words(stream, count):
    return ["".join(stream.choices(SYLLABLES, k=stream.randint(1, 3))) for _ in range(count)]


@pytest.fixture(scope="session")
def lines():
    stream = random.Random(0)
    out = []
    for _ in range(300):
        a, b, c = words(stream, 3)
        out.append(f"def {a}_{b}({c}, {b}):\n    if {c} <= {b} + 1:\n        return {a}[{c}]\n    return {b}.{c}\n")
        out.append(f"Issue: `{a}_{b}` returns the wrong {c}, not {b}.\n<read>{a}/{b}.py:12-21</read>\n")
    return out


@pytest.fixture(scope="session")
def tokenizer(lines):
    from looper.models.nano.tokenizer import train_tokenizer

    return train_tokenizer(lines, 400)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, tokenizer):
    """Folder of a random model that transformers made."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from looper.models.nano.shape import Shape
    from looper.models.nano.tokenizer import save_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    shape = Shape(hidden=64, layers=2, heads=4, kv_heads=2, ff=96, vocab=400, positions=512)
    config = {k: v for k, v in shape.hf_config().items() if k != "architectures"}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**config)).float()
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
        else:
            torch.nn.init.normal_(weight, std=0.3 if "bias" in name or "embed" in name else 0.15)
    tensors = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(shape.hf_config()))
    save_tokenizer(tokenizer, folder)
    return folder
