"""Fine-tune a random model of 7B shape on a GPU with looper and with TRL: tokens a second, MFU, peak memory.

    python experiments/learning_speed/gpu.py [--sessions 64] [--peak 989]

The model is Qwen2.5-7B's shape with random weights (15 GB on disk, in a temporary folder, bf16), its tokenizer the
bundled one. Both train a LoRA adapter of rank 16 on all linear layers in bf16, two sessions a step, loss on the
assistant's turns. Each is run on a quarter of the sessions and on all of them, and the difference counts: reading the
model and the first steps are in both. Model FLOPs are 4 per parameter and token (forward, and backward through frozen
weights) and attention's 12 per channel and place that a token looks at. `--hidden 64 --layers 2 --heads 4 --kv-heads 2
--intermediate 128 --vocab 1024` tries the script on any machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from run import BATCH, sessions  # the script beside this one

from looper.models.nano.model import Nano
from looper.models.nano.tokenizer import load_tokenizer, save_tokenizer
from looper.records import Example
from looper.training.schedule import Precision, Process
from looper.training.tokens import tokenise
from looper.training.torch_trainer import TorchTrainer


def made(folder: Path, shape: argparse.Namespace) -> tuple[Path, int]:
    """Write a random model and return its folder and how many parameters multiply a token."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate or 4 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(usual)
    model.save_pretrained(str(folder))
    save_tokenizer(load_tokenizer(Nano().weights), folder)
    count = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    return folder, count


def synchronised() -> float:
    """Return the clock once the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def ours(model: Path, examples: list[Example]) -> float:
    """Return the seconds of one epoch, everything in."""
    trainer = TorchTrainer(epochs=1, batch=BATCH, held_out=0.0, precision=Precision.bf16, process=Process.here)
    with tempfile.TemporaryDirectory() as folder:
        begun = synchronised()
        trainer.fit(model, examples, start=None, out=Path(folder) / "adapter", seed=0)
        return synchronised() - begun


def trl(model: Path, examples: list[Example]) -> float:
    """Return the seconds of one epoch, everything in."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"input_ids": list(u.ids), "labels": [i if w > 0 else -100 for i, w in zip(u.ids, u.weights, strict=True)]}
        for u in tokenise(model, examples)
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "output_dir": folder,
            "per_device_train_batch_size": BATCH,
            "num_train_epochs": 1,
            "learning_rate": 1e-3,
            "gradient_checkpointing": False,
            "max_length": 4096,
            "bf16": True,
            "use_cpu": not torch.cuda.is_available(),
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "remove_unused_columns": False,
        }
        begun = synchronised()
        SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16),
            args=SFTConfig(**settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=PreTrainedTokenizerFast.from_pretrained(model),
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        ).train()
        return synchronised() - begun


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--peak", type=float, default=989.0, help="dense bf16 TFLOP/s of the card (H100: 989)")
    defaults = {"hidden": 3584, "layers": 28, "heads": 28, "kv-heads": 4, "intermediate": 18944, "vocab": 152064}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    every = sessions(asked.sessions)
    few = every[: max(BATCH, len(every) // 4)]
    with tempfile.TemporaryDirectory() as place:
        model, count = made(Path(place) / "model", asked)
        lengths = [len(unit.ids) for unit in tokenise(model, every)]
        tokens = sum(lengths[len(few) :])
        context = sum(n * n for n in lengths) / sum(lengths) / 2  # tokens that a token looks at, causally
        flops = 4.0 * count + 12.0 * context * asked.hidden * asked.layers
        print(
            f"{count / 1e9:.2f}e9 parameters, {tokens} tokens more in the longer run, {flops / 1e9:.2f} GFLOP a token"
        )
        for name, train in (("looper", ours), ("TRL", trl)):
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            train(model, few)  # the first one in a process is slower by seconds
            shorter, longer = train(model, few), train(model, every)
            rate = tokens / (longer - shorter)
            memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")
            mfu = rate * flops / (asked.peak * 1e12)
            print(
                f"{name}: {rate:,.0f} tokens/s, MFU {mfu:.1%}, peak {memory:.1f} GiB, {longer:.0f} s in all", flush=True
            )


if __name__ == "__main__":
    main()
