"""Which pairs of tree names does the bundled model choose between about evenly?

Claim:    the pair of the two-copy families is balanced for the base model: the teacher-forced probability of reading
          each copy is .35 to .65 on average, so that the control is decided by choice, not by difficulty.
Command:  python experiments/controls/screen.py
Cost:     1 minute on one core
Expected: experiments/controls/README.md

Only the base model is asked, before anything is learned: the choice of a pair says nothing about transfer.
"""

from __future__ import annotations

import argparse
import math

import torch
from tokenizers import Tokenizer

from looper.actions import Bash, Read, render
from looper.agents.loop import Agent, Budget
from looper.agents.prompt import Prompt
from looper.benchmarks.bugs.benchmark import EVALUATION
from looper.benchmarks.bugs.draw import draw
from looper.benchmarks.bugs.family import conventions_family
from looper.benchmarks.bugs.words import PAIRS
from looper.chat import render as render_chat
from looper.models.nano.model import Nano
from looper.pretraining.box import MemoryBox
from looper.records import Message, Recall


def probability(model: torch.nn.Module, tokenizer: Tokenizer, prompt: str, reply: str) -> float:
    """Return the probability of a reply's tokens after a prompt."""
    head, tail = tokenizer.encode(prompt).ids, tokenizer.encode(reply).ids
    with torch.inference_mode():
        logits = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].log_softmax(-1)
    return math.exp(float(sum(logits[i, token] for i, token in enumerate(tail))))


def screened(model: torch.nn.Module, tokenizer: Tokenizer, pair: tuple[str, str], tasks: int) -> list[float]:
    """Return for each task the first tree's share of the probability of reading either copy."""
    agent = Agent(prompt=Prompt(), budget=Budget())
    shares = []
    for i in range(tasks):
        drawn = draw(conventions_family(pair), EVALUATION + i, world="A")
        search = f'git grep -n "def {drawn.bug.function}"'
        seen = MemoryBox(drawn.task.source.files).run(search, seconds=1).output.rstrip()
        messages = [
            *agent.opening(drawn.task, Recall(), terse=True),
            Message(role="assistant", content=render(Bash(command=search))),
            Message(role="user", content=seen),
        ]
        prompt = render_chat(messages, reply=True)
        assert drawn.bug.other is not None
        lines = {line.split(":")[0]: int(line.split(":")[1]) for line in seen.split("\n")}
        p = []
        for site in (drawn.bug.site, drawn.bug.other):
            first = lines[site.path]
            p.append(probability(model, tokenizer, prompt, render(Read(path=site.path, first=first, last=first + 9))))
        shares.append(p[0] / sum(p))
    return shares


def main() -> None:
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Nano().weights
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    print("pair                 mean share of the first   greedily the first   tasks")
    for pair in PAIRS:
        shares = screened(model, tokenizer, pair, arguments.tasks)
        mean, greedy = sum(shares) / len(shares), sum(s > 0.5 for s in shares) / len(shares)
        print(f"{'/'.join(pair):<24}{mean:>16.2f}{greedy:>21.2f}{len(shares):>12}", flush=True)


if __name__ == "__main__":
    main()
