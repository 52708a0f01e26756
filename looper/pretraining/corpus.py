"""The pretraining corpus: sessions to tokens on disk, made by several processes, the same for any number of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from looper.chat import render, spans
from looper.errors import TrainingError
from looper.models.nano.shape import Shape
from looper.models.nano.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from looper.pretraining.sessions import Mix, OracleSession, oracle_session

SHARD = 1000
"""Sessions made by one task of the pool."""


def make_tokenizer(folder: Path, *, seed: int, mix: Mix, sessions: int = 2500) -> None:
    """Train the tokenizer on the first sessions of the corpus and write it to `folder`."""
    texts = (render(oracle_session(i, seed, mix).messages) for i in range(sessions))
    save_tokenizer(train_tokenizer(texts, Shape().vocab), folder)


def make_corpus(
    out: Path, tokenizer: Path, *, sessions: int, seed: int, mix: Mix, processes: int = 2
) -> dict[str, Any]:
    """Write tokens.npy, weights.npy (weight of predicting each token), offsets.npy and corpus.json.

    Sessions longer than the model's positions are left out and counted.
    """
    import numpy as np

    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    shards = [
        (start, min(SHARD, sessions - start), seed, mix, str(tokenizer), str(parts))
        for start in range(0, sessions, SHARD)
    ]
    tokens, weights, lengths, dropped = [], [], [], 0
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for path in pool.map(_shard, shards):
            part = np.load(path)
            tokens.append(part["ids"])
            weights.append(part["loss"])
            lengths.append(part["sizes"])
            dropped += int(part["dropped"])
    if dropped > sessions // 200:
        raise TrainingError(f"{dropped} of {sessions} oracle sessions failed or are too long: the script is wrong")
    sizes = np.concatenate(lengths)
    np.save(out / "tokens.npy", np.concatenate(tokens))
    np.save(out / "weights.npy", np.concatenate(weights))
    np.save(out / "offsets.npy", np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]))
    facts = {
        "sessions": len(sizes),
        "left_out": dropped,
        "tokens": int(sizes.sum()),
        "mean_length": float(sizes.mean()),
        "p95_length": float(np.percentile(sizes, 95)),
        "longest": int(sizes.max()),
        "assistant_share": float((np.concatenate(weights) == 1.0).mean()),
        "seed": seed,
        "mix": vars(mix),
    }
    (out / "corpus.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def _shard(job: tuple[int, int, int, Mix, str, str]) -> str:
    """Write one part of the corpus and return its path; a finished part is kept."""
    import numpy as np

    start, count, seed, mix, folder, parts = job
    path = Path(parts, f"{start:08d}.npz")
    if path.is_file():
        return str(path)
    limit = Shape().positions
    ids: list[int] = []
    loss: list[float] = []
    sizes: list[int] = []
    dropped = 0
    for number in range(start, start + count):
        try:
            row, weight = encode(oracle_session(number, seed, mix), folder)
        except TrainingError:  # a bug that its author cannot tell from its twins; counted above
            dropped += 1
            continue
        if len(row) > limit:
            dropped += 1
            continue
        ids += row
        loss += weight
        sizes.append(len(row))
    draft = path.with_suffix(".draft.npz")
    np.savez(
        draft,
        ids=np.array(ids, np.uint16),
        loss=np.array(loss, np.float16),
        sizes=np.array(sizes, np.int64),
        dropped=np.array(dropped),
    )
    draft.replace(path)
    return str(path)


def encode(session: OracleSession, folder: str) -> tuple[list[int], list[float]]:
    """Return a session's token ids and the loss weight of predicting each."""
    tokenizer = load_tokenizer(Path(folder))
    ids: list[int] = []
    weights: list[float] = []
    for text, weight in _pieces(session):
        piece = tokenizer.encode(text).ids
        ids += piece
        weights += [weight] * len(piece)
    return ids, weights


def _pieces(session: OracleSession) -> Iterator[tuple[str, float]]:
    """Yield texts with their weights; what the agent reads keeps its own small weight."""
    split = iter(spans(session.messages, session.weights))
    for message, weight in zip(session.messages, session.weights, strict=True):
        if message.role != "assistant":
            yield next(split).text, weight
        elif weight == 0.0:
            yield next(split).text, 0.0
        else:
            opened, body, tail = next(split), next(split), next(split)
            yield opened.text, 0.0
            yield body.text, body.weight
            yield tail.text, 0.0
