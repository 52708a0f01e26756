"""Pretraining of the bundled model from a tokenised corpus.

`python -m looper.pretraining.loop CORPUS OUT key=value ...` takes the fields of PretrainSettings, and the model's
sizes as `shape.hidden=192`. The same command goes on from the last checkpoint in OUT.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from looper.errors import LooperError, TrainingError
from looper.models.nano.shape import Shape
from looper.pretraining.settings import PretrainSettings, parse

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # Large tensors come and go at every step: without these glibc gives their pages back to the kernel each time.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_ARENA_MAX": "1",
    "GLOO_SOCKET_IFNAME": "lo",
}


def pretrain(corpus: Path, out: Path, settings: PretrainSettings, shape: Shape | None = None) -> None:
    """Train a model of `shape` on the sequences in `corpus` and write it to `out` in Hugging Face's format.

    Raises TrainingError if a process fails; what it wrote to stderr says why.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        plan = {
            "corpus": str(corpus),
            "out": str(out),
            "settings": dataclasses.asdict(settings),
            "shape": dataclasses.asdict(shape or Shape()),
            "meeting": str(Path(folder) / "meeting"),
        }
        path = Path(folder) / "plan.json"
        path.write_text(json.dumps(plan), encoding="utf-8")
        command = [sys.executable, "-m", "looper.pretraining.loop", "--plan", str(path), "--rank"]
        environment = {**os.environ, **ENVIRONMENT}
        processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(settings.processes)]
        try:
            _wait(processes)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for all; one that fails ends the others, which would wait for it for ever."""
    while True:
        codes = [process.poll() for process in processes]
        if failed := [(rank, code) for rank, code in enumerate(codes) if code]:
            raise TrainingError(
                f"pretraining process {failed[0][0]} ended with code {failed[0][1]}; its message is above"
            )
        if all(code == 0 for code in codes):
            return
        time.sleep(0.1)


def _work(plan: Path, rank: int) -> None:
    import torch
    import torch.distributed as dist

    from looper.pretraining.worker import Worker

    torch.set_num_threads(1)
    given = json.loads(plan.read_text(encoding="utf-8"))
    settings = PretrainSettings(**given["settings"])
    if settings.processes > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{given['meeting']}", rank=rank, world_size=settings.processes
        )
    Worker(Path(given["corpus"]), Path(given["out"]), settings, Shape(**given["shape"]), rank).run()
    if settings.processes > 1:
        dist.destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m looper.pretraining.loop", description=__doc__)
    parser.add_argument("corpus", type=Path, nargs="?", help="folder with tokens.npy, weights.npy, offsets.npy")
    parser.add_argument("out", type=Path, nargs="?", help="folder for the model, its log and its checkpoint")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="a field of PretrainSettings, or shape.FIELD")
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        if given.plan is not None:
            _work(given.plan, given.rank)
            return
        if given.out is None:
            parser.error("a corpus and an output folder are needed")
        sizes = [word.removeprefix("shape.") for word in given.settings if word.startswith("shape.")]
        words = [word for word in given.settings if not word.startswith("shape.")]
        settings = PretrainSettings(**parse(PretrainSettings, words))
        pretrain(given.corpus, given.out, settings, Shape(**parse(Shape, sizes)))
    except LooperError as error:
        parser.exit(1, f"{type(error).__name__}: {error}\n")


if __name__ == "__main__":
    main()
