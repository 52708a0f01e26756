"""Data, tokenizer, clock and score of the task: bits per byte on documents that were never trained on. Do not change.

`python prepare.py` prepares Python's standard library, which is always at hand; `--data` takes a folder or a file of
text or parquet, or the name of a data set of the Hugging Face hub. A document belongs to the validation split if the
digest of its text says so; a second copy of it is left out. manifest.json is written last: it holds the digest that
belongs beside every score.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

MPS = torch.backends.mps.is_available()
DEVICE = os.environ.get("NANOCHAT_DEVICE", "cuda" if torch.cuda.is_available() else "mps" if MPS else "cpu")
"""Where the model is trained and scored."""
LARGE = DEVICE.startswith("cuda")
"""Whether the defaults here and in train.py are those of a large GPU, or small enough for any machine."""
CACHE = Path(os.environ.get("NANOCHAT_CACHE", "~/.cache/nanochat")).expanduser()
"""Folder of the prepared data."""
VOCABULARY = int(os.environ.get("NANOCHAT_VOCABULARY", 8192))
"""Tokens: the start of a document, 256 bytes, and merges of byte pairs; 257 is plain bytes."""
CONTEXT = int(os.environ.get("NANOCHAT_CONTEXT", 2048 if LARGE else 256))
"""Tokens that the model sees, in training and when it is scored."""
TIME_BUDGET = float(os.environ.get("NANOCHAT_SECONDS", 300))
"""Seconds of training."""
TOKEN_BUDGET = int(os.environ.get("NANOCHAT_TOKENS", 0))
"""Tokens of training instead of seconds; 0: seconds decide."""
UNCOUNTED_STEPS = 10 if LARGE else 2
"""First steps of a training, which compile and warm up: what they take longer than the others does not count."""
VALIDATION_TOKENS = int(os.environ.get("NANOCHAT_VALIDATION_TOKENS", 10 * 2**20 if LARGE else 2**14))
"""Tokens that are scored; all of the split if it has fewer."""
SEED = int(os.environ.get("NANOCHAT_SEED", 1))
"""Decides the initial weights and the order of the data."""
SPLIT = os.environ.get("NANOCHAT_SPLIT", "0")
"""Which documents are held out; every number is a split of its own."""

START = 0
"""The token before each document; it stands for no byte."""
VALIDATION_SHARE = 0.05
SCORED_AT_ONCE = 2**16 if LARGE else 2**12  # tokens
TOKENIZER_BYTES = 200_000_000  # of training text that the tokenizer is made from
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}


class Corpus(NamedTuple):
    """The prepared splits, as memory-mapped tokens."""

    train: np.ndarray[Any, np.dtype[np.uint16]]
    validation: np.ndarray[Any, np.dtype[np.uint16]]
    lengths: Tensor
    """Bytes that each token stands for."""
    manifest: dict[str, Any]
    """What was prepared; `digest` decides the data and the tokens."""


@cache
def corpus() -> Corpus:
    """Open the prepared data."""
    path = CACHE / "manifest.json"
    if not path.exists():
        raise SystemExit(
            f"nothing is prepared in {CACHE}; run `python prepare.py` for Python's standard library, "
            "`python prepare.py --data FOLDER` for your own texts, or set NANOCHAT_CACHE"
        )
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest["vocabulary"] != VOCABULARY:
        raise SystemExit(
            f"{CACHE} was prepared with {manifest['vocabulary']} tokens, and VOCABULARY is {VOCABULARY}; "
            f"set NANOCHAT_VOCABULARY={manifest['vocabulary']}, or prepare again"
        )
    train, validation = (np.memmap(CACHE / f"{name}.bin", np.uint16, "r") for name in ("train", "validation"))
    return Corpus(train, validation, torch.from_numpy(np.load(CACHE / "lengths.npy")), manifest)


def rows_at(data: np.ndarray[Any, np.dtype[np.uint16]], starts: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
    """Return the tokens of windows and one more each: (B) to (B, T + 1)."""
    return torch.from_numpy(data[starts[:, None] + np.arange(CONTEXT + 1)].astype(np.int64))


def order(rows: int, seed: int) -> Iterator[int]:
    """Give all rows in a random order, and again in another, without end."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(rows, generator=draw).tolist()


given = [0]  # tokens of all batches so far


def batches(size: int, *, seed: int = SEED) -> Iterator[tuple[Tensor, Tensor]]:
    """Give training batches without end, on the device: inputs and the tokens after them, both (B, T).

    Documents are packed: a row goes on with the next one where one ends. The rows are the seed's, whatever the size.
    """
    data = corpus().train
    stream = order((len(data) - 1) // CONTEXT, seed)
    while True:
        rows = rows_at(data, np.fromiter(islice(stream, size), np.int64, size) * CONTEXT)
        given[0] += size * CONTEXT
        if LARGE:
            rows = rows.pin_memory()
        rows = rows.to(DEVICE, non_blocking=LARGE)
        yield rows[:, :-1], rows[:, 1:]


def validation_rows() -> Tensor:
    """Return the windows that are scored, spread evenly over the validation split: (N, T + 1)."""
    data = corpus().validation
    count = min(VALIDATION_TOKENS, len(data) - 1) // CONTEXT
    return rows_at(data, np.linspace(0, len(data) - CONTEXT - 1, count).astype(np.int64))


@torch.no_grad()
def evaluate_bpb(logits: Callable[[Tensor], Tensor], size: int = max(1, SCORED_AT_ONCE // CONTEXT)) -> float:
    """Return the bits per byte of the validation windows under `logits`: tokens (B, T) to scores (B, T, V).

    Targets that stand for no byte, the starts of documents, are not scored. With NANOCHAT_HANDOVER set nothing is
    scored: the weights are saved under that path, for a judge, and the answer is nan.
    """
    handover = os.environ.get("NANOCHAT_HANDOVER")
    if handover is not None and isinstance(logits, nn.Module):
        torch.save({name.removeprefix("_orig_mod."): w.cpu() for name, w in logits.state_dict().items()}, handover)
        return math.nan
    rows, lengths = validation_rows(), corpus().lengths.to(DEVICE)
    nats, scored_bytes = 0.0, 0
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        x, y = part[:, :-1].to(DEVICE), part[:, 1:].to(DEVICE)
        scores = logits(x)
        if scores.shape != (*x.shape, VOCABULARY):
            raise ValueError(f"logits have shape {tuple(scores.shape)}; it has to be {(*x.shape, VOCABULARY)}")
        loss = F.cross_entropy(scores.float().flatten(0, 1), y.flatten(), reduction="none")
        reach = lengths[y.flatten()]
        nats += loss.masked_fill(reach == 0, 0).cpu().double().sum().item()
        scored_bytes += int(reach.sum())
    return nats / (math.log(2) * scored_bytes)


def synchronise() -> None:
    """Wait until the device has done what it was asked to."""
    if DEVICE != "cpu":
        (torch.mps if DEVICE == "mps" else torch.cuda).synchronize()


class Clock:
    """Measures the steps that count; tick it after each step, and stop when `progress` is 1."""

    def __init__(self) -> None:
        """Start with the first step."""
        self.steps, self.seconds, self.uncounted, self.last = 0, 0.0, 0.0, time.perf_counter()
        self.tokens = self.step_tokens = 0

    def tick(self) -> float:
        """End a step and return its seconds."""
        synchronise()
        now = time.perf_counter()
        taken, self.last = now - self.last, now
        self.steps += 1
        self.step_tokens, self.tokens = given[0] - self.tokens, given[0]
        if self.steps > UNCOUNTED_STEPS:
            self.seconds += taken
        else:
            self.uncounted += taken
        return taken

    @property
    def progress(self) -> float:
        """Share of the budget that is spent; of a budget of tokens, 1 when no further step fits."""
        if TOKEN_BUDGET:
            return self.tokens / TOKEN_BUDGET if self.tokens + self.step_tokens <= TOKEN_BUDGET else 1.0
        usual = self.seconds / max(1, self.steps - UNCOUNTED_STEPS)
        return min(1.0, (self.seconds + min(self.uncounted, UNCOUNTED_STEPS * usual)) / TIME_BUDGET)


def library_files() -> list[Path]:
    """Return the sources of this Python, without its tests and what a build wrote for one machine."""
    root = Path(sysconfig.get_path("stdlib"))
    found = [path for path in sorted(root.rglob("*.py")) if not LEFT_OUT.intersection(path.relative_to(root).parts)]
    return [path for path in found if not path.name.startswith("_sysconfigdata")]


def text_files(paths: Iterable[Path]) -> Iterator[str]:
    """Give the files that are UTF-8, each as a document."""
    for path in paths:
        try:
            yield path.read_bytes().decode()
        except UnicodeDecodeError:
            print(f"left out, as it is not UTF-8: {path}")


def parquet_files(paths: Iterable[Path], column: str) -> Iterator[str]:
    """Give the texts of one column; needs pyarrow."""
    from pyarrow import parquet

    for path in paths:
        with parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise SystemExit(f"{path} has no column {column!r}; choose --column of {file.schema_arrow.names}")
            for batch in file.iter_batches(columns=[column], batch_size=1024):
                yield from (text for text in batch.column(0).to_pylist() if text)


def hub(name: str, column: str) -> Iterator[str]:
    """Give the texts of the training split of a data set of the Hugging Face hub; needs datasets and the network."""
    from datasets import load_dataset

    yield from (row[column] for row in load_dataset(name, split="train", streaming=True) if row[column])


def documents(data: str, column: str) -> Iterator[str]:
    """Give the documents of a folder, a file, a data set by name, or of the standard library if the name is empty."""
    path = Path(data).expanduser()
    if not data:
        return (path.read_text(encoding="utf-8", errors="replace") for path in library_files())
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        files = [file for file in files if not any(part[0] == "." for part in file.relative_to(path).parts)]
        tables = [file for file in files if file.suffix == ".parquet"]
        return parquet_files(tables, column) if tables else text_files(files)
    if path.is_file():
        return parquet_files([path], column) if path.suffix == ".parquet" else text_files([path])
    if data.count("/") > 1 or data[0] in "./~":
        raise SystemExit(f"{data} is no folder, no file and no name of a data set (owner/name)")
    return hub(data, column)


class Document(NamedTuple):
    """One text and its place."""

    text: str
    digest: str
    held_out: bool


def is_held_out(digest: str, split: str = SPLIT) -> bool:
    """Whether the document of this digest belongs to the validation split."""
    drawn = digest if split == "0" else hashlib.sha256(f"{split}:{digest}".encode()).hexdigest()
    return int(drawn[:8], 16) < VALIDATION_SHARE * 2**32


def dealt(texts: Iterable[str], limit: int) -> Iterator[Document]:
    """Give each text once, with its split, until there are `limit` bytes."""
    seen: set[bytes] = set()
    total = 0
    for text in texts:
        content = text.encode(errors="replace")
        digest = hashlib.sha256(content)
        if not content or digest.digest() in seen:
            continue
        if total + len(content) > limit:
            print(f"stopped before {limit / 1e6:g} million bytes; --limit takes more")
            return
        seen.add(digest.digest())
        total += len(content)
        yield Document(content.decode(), digest.hexdigest(), is_held_out(digest.hexdigest()))


def tokenizer_of(texts: Iterable[str]) -> Any:
    """Learn a byte-level BPE; its ids are one below ours, as START comes first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - 1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def within(texts: Iterable[str], characters: int) -> Iterator[str]:
    """Give texts until there are so many characters."""
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return


def write(tokenizer: Any, found: Iterator[Document], files: tuple[BinaryIO, BinaryIO]) -> dict[str, Any]:
    """Write the tokens of both splits and return what was written."""
    count, size, tokens, digest = 0, [0, 0], [0, 0], hashlib.sha256(tokenizer.to_str().encode())
    while block := list(islice(found, 1024)):
        for document, encoding in zip(block, tokenizer.encode_batch([d.text for d in block]), strict=True):
            ids = np.array([START, *(i + 1 for i in encoding.ids)], np.uint16)
            files[document.held_out].write(ids.tobytes())
            tokens[document.held_out] += len(ids)
            size[document.held_out] += len(document.text.encode())
            digest.update(document.digest.encode())
            count += 1
    splits = {name: {"tokens": tokens[i], "bytes": size[i]} for i, name in enumerate(("train", "validation"))}
    return {"documents": count, **splits, "digest": digest.hexdigest()}


def prepare(data: str = "", *, column: str = "text", limit: int = 4_000_000_000) -> dict[str, Any]:
    """Write both splits and the tokenizer into CACHE and return the manifest; the same texts give the same files."""
    if not 257 <= VOCABULARY <= 2**16:
        raise SystemExit(f"NANOCHAT_VOCABULARY is {VOCABULARY}; it has to be 257 (plain bytes) to {2**16}")
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "manifest.json").unlink(missing_ok=True)
    training = (document.text for document in dealt(documents(data, column), limit) if not document.held_out)
    tokenizer = tokenizer_of(within(training, TOKENIZER_BYTES))
    tokenizer.save(str(CACHE / "tokenizer.json"))
    lengths = np.zeros(VOCABULARY, np.int64)
    for token, index in tokenizer.get_vocab().items():
        lengths[index + 1] = len(token)  # a byte-level token has one character a byte
    np.save(CACHE / "lengths.npy", lengths)
    with (CACHE / "train.bin").open("wb") as train, (CACHE / "validation.bin").open("wb") as validation:
        written = write(tokenizer, dealt(documents(data, column), limit), (train, validation))
    for name in ("train", "validation"):
        if written[name]["tokens"] <= CONTEXT:
            raise SystemExit(
                f"the {name} split has {written[name]['tokens']} tokens and needs more than CONTEXT, {CONTEXT}; "
                f"{written['documents']} documents are too few: add some, or split them into more files"
            )
    manifest = {"data": data or "Python's standard library", "vocabulary": VOCABULARY, **written}
    (CACHE / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def main() -> None:
    """Prepare what the command line names."""
    parser = argparse.ArgumentParser(description="Prepare the data and the tokenizer, once.")
    parser.add_argument("--data", default="", help="folder or file of text or parquet, or name of a data set")
    parser.add_argument("--column", default="text", help="column of the texts in parquet or a data set")
    parser.add_argument("--limit", type=float, default=4000, help="millions of bytes to take at most")
    given = parser.parse_args()
    for name, value in prepare(given.data, column=given.column, limit=int(given.limit * 1e6)).items():
        print(f"{name}: {value}")
    print(f"prepared in {CACHE}")


if __name__ == "__main__":
    main()
