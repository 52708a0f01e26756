"""What each recipe of the method pack does to the bundled train.py, paired by seed.

Claim:    several methods of the pack improve the bundled baseline by more than two standard deviations of the seed.
Command:  python experiments/method_pack/run.py --seeds 3
Cost:     about 10 minutes on one core; goes on after a kill
Expected: experiments/method_pack/README.md
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import math
import multiprocessing
import os
import re
import runpy
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from looper.memory.methods import pack, recipes
from looper.memory.rows import Method

TASK = Path(pack.__file__).parents[2] / "benchmarks" / "research"
ROWS = Path(__file__).parent / "results.tsv"
FIELDS = ("code", "method", "seed", "val_bpb", "cpu_seconds", "steps", "params_M")


def train_in(folder: str, seed: int) -> None:
    """Run the folder's train.py as a program would; what it prints goes to its log."""
    os.environ.update(RESEARCH_SEED=str(seed), OMP_NUM_THREADS="1")
    sys.path.insert(0, folder)
    started = time.process_time()
    with (Path(folder) / "log").open("w") as log, contextlib.redirect_stdout(log):
        runpy.run_path(str(Path(folder) / "train.py"), run_name="__main__")
        print(f"cpu_seconds: {time.process_time() - started:.2f}")


def score(code: str, seed: int) -> dict[str, str]:
    """Train in a process of its own, forked from one that has imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(TASK / "prepare.py", folder)
        (Path(folder) / "train.py").write_text(code)
        process = context.Process(target=train_in, args=(folder, seed))
        process.start()
        process.join()
        log = (Path(folder) / "log").read_text()
    if process.exitcode != 0:
        return {"val_bpb": "nan", "cpu_seconds": "nan", "steps": "0", "params_M": "nan"}
    found = dict(re.findall(r"^(\w+):\s+(\S+)$", log, re.MULTILINE))
    names = {"val_bpb": "val_bpb", "cpu_seconds": "cpu_seconds", "steps": "num_steps", "params_M": "num_params_M"}
    return {ours: found[theirs] for ours, theirs in names.items()}


def reference(method: Method, methods: Sequence[Method], code: str) -> str:
    """Return the code that the method is compared with: the baseline with what the method builds on."""
    for other in methods:
        if other.id in method.couples_with:
            code = recipes.apply(other, code, pack=methods)
    return code


def digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def stored() -> dict[tuple[str, int], dict[str, str]]:
    if not ROWS.exists():
        return {}
    with ROWS.open() as file:
        return {(row["code"], int(row["seed"])): row for row in csv.DictReader(file, delimiter="\t")}


def measure(jobs: dict[str, str], seeds: Sequence[int]) -> None:
    """Score all codes on all seeds, seed by seed; rows that are stored are not run again."""
    for seed in seeds:
        for name, code in jobs.items():
            if (digest(code), seed) not in stored():
                row = {"code": digest(code), "method": name, "seed": str(seed), **score(code, seed)}
                new = not ROWS.exists()
                with ROWS.open("a") as file:
                    writer = csv.DictWriter(file, FIELDS, delimiter="\t", lineterminator="\n")
                    if new:
                        writer.writeheader()
                    writer.writerow(row)


def line_of(method: Method, before: str, after: str, noise: float) -> tuple[float, str]:
    """Return a method's mean gain and its line of the table, from the seeds that both codes were scored on."""
    rows = stored()
    seeds = [seed for code, seed in rows if code == digest(after) and (digest(before), seed) in rows]
    pairs = [(rows[digest(before), seed], rows[digest(after), seed]) for seed in seeds]
    gains = [float(one["val_bpb"]) - float(other["val_bpb"]) for one, other in pairs]
    if not gains:
        return -math.inf, f"| {method.id} | | 0 | not measured | | |"
    gain, half = statistics.mean(gains), 0.0
    if len(gains) > 1:
        half = float(stats.t.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / len(gains) ** 0.5
    interval = f"[{gain - half:+.4f}, {gain + half:+.4f}]" if half else ""
    # Each side of a pair is one run, and the seed's noise is in both.
    clear = abs(gain) > max(half, 2 * noise * (2 / len(gains)) ** 0.5)
    verdict = ("better" if gain > 0 else "worse") if clear else ""
    against = ", ".join(method.couples_with) or "baseline"
    return gain, f"| {method.id} | {against} | {len(gains)} | {gain:+.4f} | {interval} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="0: only the table of what is stored")
    seeds = range(1, parser.parse_args().seeds + 1)
    methods = pack.load()
    baseline = (TASK / "train.py").read_text()
    able = [method for method in methods if method.recipe]
    jobs = {method.id: recipes.apply(method, baseline, pack=methods) for method in able}
    measure({"baseline": baseline}, seeds)
    measure(jobs, seeds)
    plain = [float(row["val_bpb"]) for (code, _), row in stored().items() if code == digest(baseline)]
    noise = statistics.stdev(plain)
    print(f"baseline: {statistics.mean(plain):.4f} bpb, standard deviation of {len(plain)} seeds {noise:.4f}\n")
    print("| method | against | seeds | gain, bpb | 95 % interval | beyond 2 sd |")
    print("| --- | --- | --- | --- | --- | --- |")
    lines = [line_of(method, reference(method, methods, baseline), jobs[method.id], noise) for method in able]
    print("\n".join(line for _, line in sorted(lines, reverse=True)))


if __name__ == "__main__":
    main()
