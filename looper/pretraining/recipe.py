"""The recipe of the bundled model, from nothing to packed weights: tokenizer, corpus, training, card."""

from __future__ import annotations

import json
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from looper.pretraining.corpus import make_corpus, make_tokenizer
from looper.pretraining.sessions import Mix, oracle_session
from looper.pretraining.settings import PretrainSettings
from looper.records import digest_of
from looper.store import write_json

PACKED = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Files that make up the packed model, besides its card."""

PROBED = 60
"""Sessions that the digest of what the model reads and writes is taken over."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the bundled model."""

    sessions: int = 130_000
    """Oracle sessions in the corpus."""
    seed: int = 11
    """Seed of the corpus."""
    tokens: int = 62_000_000
    """Tokens to train on (sessions repeat once they are used up)."""
    minutes: float = 0.0
    """Wall-clock limit of the training; 0 is none."""
    processes: int = 2
    """Processes of one thread each, for the corpus and the training."""


def language_digest(seed: int = 11) -> str:
    """Return a digest of what the model reads and writes: prompts, tools, notes, tasks, chat template.

    It is taken over whole oracle sessions, so any change to code that words them changes it. The packed
    model's card holds the digest that it was trained with; a test compares.
    """
    from looper.chat import render

    return digest_of([render(oracle_session(i, seed, Mix()).messages) for i in range(PROBED)])


def make(out: Path, recipe: Recipe) -> None:
    """Make a model folder; finished steps are kept, so the same call goes on after a kill."""
    from looper.pretraining.loop import pretrain

    mix = Mix()
    out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    if not (out / "tokenizer.json").is_file():
        make_tokenizer(out, seed=recipe.seed, mix=mix)
    corpus = out / "corpus"
    if not (corpus / "corpus.json").is_file():
        facts = make_corpus(
            corpus, out, sessions=recipe.sessions, seed=recipe.seed, mix=mix, processes=recipe.processes
        )
        print(json.dumps(facts), flush=True)
    print(f"corpus ready after {time.time() - started:.0f} s", flush=True)
    pretrain(
        corpus,
        out,
        PretrainSettings(tokens=recipe.tokens, minutes=recipe.minutes, processes=recipe.processes),
    )
    write_json(out / "card.json", card(out, recipe))


def card(out: Path, recipe: Recipe) -> dict[str, Any]:
    """Return the model card's facts: data, training figures, seeds, licence."""
    train = json.loads((out / "train.json").read_text())
    corpus = json.loads((out / "corpus" / "corpus.json").read_text())
    return {
        "name": "nano",
        "licence": "MIT",
        "made_from": "nothing but this repository: sessions of a scripted oracle on generated tasks",
        "language": language_digest(recipe.seed),
        "recipe": asdict(recipe),
        "corpus": corpus,
        "training": train,
        "machine": f"{platform.machine()}, {recipe.processes} one-thread processes",
    }


def install(made: Path, package: Path) -> None:
    """Copy a made model's files over the packed ones."""
    package.mkdir(parents=True, exist_ok=True)
    for name in (*PACKED, "card.json"):
        shutil.copyfile(made / name, package / name)
