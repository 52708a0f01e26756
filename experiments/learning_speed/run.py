"""Fine-tune the bundled model on the same sessions with TRL's SFTTrainer and with looper; print the ratio.

    python experiments/learning_speed/run.py [--sessions 48] [--rounds 3]

Both train a LoRA adapter of rank 16 on all linear layers for one epoch, with two sessions a step, on one thread, and
count the loss on the assistant's turns alone. TRL is given the tokens and labels, runs without gradient checkpointing,
and is measured in fp32 and in bf16; its better figure counts. Only the training is timed: process time of `train()`
against that of `fit()`, which also reads the model, tokenises and saves.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from looper.models.nano.model import Nano
from looper.pretraining.sessions import Mix, oracle_session
from looper.records import Example
from looper.training.tokens import tokenise
from looper.training.torch_trainer import TorchTrainer

BATCH = 2


def sessions(count: int) -> list[Example]:
    """Return sessions of the oracle as examples."""
    made = []
    for number in range(count):
        session = oracle_session(number, 4242, Mix())
        weights = tuple(
            w if m.role == "assistant" else 0.0 for m, w in zip(session.messages, session.weights, strict=True)
        )
        made.append(Example(task=f"t{number}", episode=f"e{number}", messages=session.messages, weights=weights))
    return made


def ours(model: Path, examples: list[Example]) -> tuple[float, float]:
    """Return CPU seconds and the loss of one epoch."""
    trainer = TorchTrainer(epochs=1, batch=BATCH, held_out=0.0)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        fit = trainer.fit(model, examples, start=None, out=Path(folder) / "adapter", seed=0)
        return time.process_time() - begun, fit.train_loss


def trl(model: Path, rows: list[dict[str, Any]], bf16: bool) -> tuple[float, float]:
    """Return CPU seconds and the loss of one epoch."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=1e-3,
            warmup_steps=0.05,
            gradient_checkpointing=False,
            max_length=2048,
            bf16=bf16,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="epoch",
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
        )
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=PreTrainedTokenizerFast.from_pretrained(model),
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        begun = time.process_time()
        result = trainer.train()
        return time.process_time() - begun, result.training_loss


def main() -> None:
    """Run both in turn and print tokens per CPU-second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    model, examples = Nano().weights, sessions(asked.sessions)
    units = tokenise(model, examples)
    rows = [
        {
            "input_ids": list(u.ids),
            "labels": [i if w > 0 else -100 for i, w in zip(u.ids, u.weights, strict=True)],
        }
        for u in units
    ]
    tokens = sum(len(row["input_ids"]) for row in rows)
    ratios = []
    for number in range(asked.rounds):
        mine, loss = ours(model, examples)
        theirs = {bf16: trl(model, rows, bf16) for bf16 in (False, True)}
        best = min(seconds for seconds, _ in theirs.values())
        ratios.append(best / mine)
        print(
            f"round {number + 1}: looper {tokens / mine:,.0f} tokens/CPU-s (loss {loss:.4f}); TRL fp32 "
            f"{tokens / theirs[False][0]:,.0f}, bf16 {tokens / theirs[True][0]:,.0f} (loss {theirs[False][1]:.4f}); "
            f"ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"{tokens} tokens in {len(rows)} sessions; median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
