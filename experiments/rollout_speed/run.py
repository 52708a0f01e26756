"""Generated tokens per CPU-second: looper's engine on a batch of sessions, and transformers one by one.

Usage: python experiments/rollout_speed/run.py [--sessions 48] [--repeats 3] [--path FOLDER]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

from looper.chat import render
from looper.models.nano.model import FILES, PACKED, Nano
from looper.models.nano.shape import END, PAD, Shape
from looper.models.nano.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from looper.records import Conversation, Message

TURNS, ISSUE, OBSERVATION, REPLY = 4, 150, 60, (10, 40)
SYLLABLES = "ba co di fu ge ha ki lo mu ne po ra si to vu za".split()


def text_of(stream: random.Random, tokenizer: Tokenizer, tokens: int) -> str:
    """Return code-like text of about so many tokens."""
    text = ""
    while len(tokenizer.encode(text).ids) < tokens:
        a, b = ("".join(stream.choices(SYLLABLES, k=2)) for _ in range(2))
        text += f"{a}_{b}({b}, {stream.randrange(99)}) = {a}\n    "
    return text


def random_model(folder: Path) -> Path:
    """Write random weights of the bundled shape, with a tokenizer trained on the texts of this file."""
    stream, shape = random.Random(0), Shape()
    names = ["".join(stream.choices(SYLLABLES, k=3)) for _ in range(4000)]
    save_tokenizer(train_tokenizer([" ".join(names[i : i + 20]) for i in range(0, 4000, 20)], shape.vocab), folder)
    torch.manual_seed(0)
    config = {key: value for key, value in shape.hf_config().items() if key != "architectures"}
    tensors = Qwen2ForCausalLM(Qwen2Config(**config)).to(torch.bfloat16).state_dict()
    tensors.pop("lm_head.weight", None)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(shape.hf_config()))
    return folder


class Sessions:
    """The same sessions for both: fixed issues, observations and reply lengths.

    The text of a reply is replaced by a fixed one of the same length before the next turn, so that both
    engines read exactly the same prompts, whatever they said.
    """

    def __init__(self, count: int, tokenizer: Tokenizer) -> None:
        stream = random.Random(1)
        self.lengths = [[stream.randint(*REPLY) for _ in range(TURNS)] for _ in range(count)]
        self.prompts: list[list[tuple[Message, ...]]] = []
        for lengths in self.lengths:
            messages = [
                Message(role="system", content="You repair a repository with tools."),
                Message(role="user", content="Issue: " + text_of(stream, tokenizer, ISSUE - 20)),
            ]
            turns = []
            for length in lengths:
                turns.append(tuple(messages))
                messages.append(Message(role="assistant", content=text_of(stream, tokenizer, length)))
                messages.append(Message(role="user", content=text_of(stream, tokenizer, OBSERVATION)))
            self.prompts.append(turns)

    @property
    def tokens(self) -> int:
        """Generated tokens of all sessions."""
        return sum(map(sum, self.lengths))


def one_by_one(model: Qwen2ForCausalLM, tokenizer: Tokenizer, sessions: Sessions) -> int:
    """Generate with transformers: each turn one call, greedy, with its key-value cache inside the call."""
    made = 0
    for prompts, lengths in zip(sessions.prompts, sessions.lengths, strict=True):
        for messages, length in zip(prompts, lengths, strict=True):
            ids = torch.tensor([tokenizer.encode(render(messages, reply=True)).ids])
            with torch.inference_mode():
                out = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    min_new_tokens=length,
                    max_new_tokens=length,
                    do_sample=False,
                    eos_token_id=END,
                    pad_token_id=PAD,
                )
            made += out.shape[1] - ids.shape[1]
    return made


def together(model: Nano, sessions: Sessions) -> int:
    """Generate with looper: all sessions advance turn by turn, as they do in a run."""
    made = 0
    for turn in range(TURNS):
        batch = [
            Conversation(id=str(i), messages=prompts[turn], max_tokens=sessions.lengths[i][turn])
            for i, prompts in enumerate(sessions.prompts)
        ]
        made += sum(reply.completion_tokens for reply in model.reply(batch))
    for i in range(len(sessions.prompts)):
        model.forget(str(i))
    return made


def main() -> None:
    """Measure both in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--path", default="", help="folder of a model; default: the packed weights, else random ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        packed = all((PACKED / name).is_file() for name in FILES)
        path = Path(options.path or (PACKED if packed else random_model(Path(scratch))))
        tokenizer = load_tokenizer(path)
        theirs, ours = Qwen2ForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), Nano(path=str(path))
        warm, sessions = Sessions(1, tokenizer), Sessions(options.sessions, tokenizer)
        one_by_one(theirs, tokenizer, warm)
        together(ours, warm)
        speeds: dict[str, list[float]] = {"transformers": [], "looper": []}
        for _ in range(options.repeats):  # in turn, so that a busy machine troubles both
            for name, play in (
                ("transformers", lambda: one_by_one(theirs, tokenizer, sessions)),
                ("looper", lambda: together(ours, sessions)),
            ):
                start = time.process_time()
                made = play()
                speeds[name].append(made / (time.process_time() - start))
    slow, fast = (statistics.median(values) for values in speeds.values())
    ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
    print(f"weights: {'random' if path == Path(scratch) else path.name}; sessions: {options.sessions}; ", end="")
    print(f"tokens a repeat: {sessions.tokens} asked")
    print("| engine | generated tokens per CPU-second (median) | repeats |\n| --- | --- | --- |")
    for name, values in speeds.items():
        print(f"| {name} | {statistics.median(values):.0f} | {', '.join(f'{v:.0f}' for v in values)} |")
    print(f"ratio of the medians: {fast / slow:.1f} (pairs: {', '.join(f'{r:.1f}' for r in ratios)})")


if __name__ == "__main__":
    main()
