"""Judge reference patches and empty patches of SWE-Bench-CL; see README.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from looper.benchmarks.environments import MARKER
from looper.benchmarks.swe_bench_cl import SweBenchCl
from looper.records import Task, Verdict
from looper.workspaces.local import LocalWorkspace

HERE = Path(__file__).parent


def share(tests: dict[str, bool]) -> str:
    return f"{sum(tests.values())}/{len(tests)}"


def python_of(task: Task) -> str:
    built = json.loads((Path(task.source.python).parent.parent / MARKER).read_text())
    return (
        built["python"]
        if built["python"] == built["wanted_python"]
        else f"{built['python']} for {built['wanted_python']}"
    )


def misses(verdict: Verdict) -> str:
    failed = [test for tests in (verdict.fail_to_pass, verdict.pass_to_pass) for test, ok in tests.items() if not ok]
    return verdict.error or "; ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")


def table(rows: list[tuple[Task, Verdict, Verdict]], level: str, seconds: float) -> str:
    n = len(rows)
    reached = sum(all(gold.fail_to_pass.values()) for _, gold, _ in rows)
    lines = [
        "# Result",
        "",
        f"* FAIL_TO_PASS tests all pass with the reference patch: {reached}/{n}",
        f"* reference patch resolved (PASS_TO_PASS too): {sum(gold.resolved for _, gold, _ in rows)}/{n}",
        f"* empty patch resolved: {sum(empty.resolved for *_, empty in rows)}/{n}",
        f"* FAIL_TO_PASS tests that pass with the empty patch: {sum(sum(e.fail_to_pass.values()) for *_, e in rows)}"
        f" of {sum(len(e.fail_to_pass) for *_, e in rows)}",
        f"* sandbox: {level}; {seconds:.0f} s for {2 * n} judgements",
        "",
        "| task | Python | F2P gold | P2P gold | resolved | F2P empty | P2P empty | s | misses of gold |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for task, gold, empty in rows:
        lines.append(
            f"| {task.id} | {python_of(task)} | {share(gold.fail_to_pass)} | {share(gold.pass_to_pass)} "
            f"| {'yes' if gold.resolved else 'no'} | {share(empty.fail_to_pass)} | {share(empty.pass_to_pass)} "
            f"| {gold.seconds:.1f} | {misses(gold)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tasks", required=True, help="the curriculum's JSON file")
    options.add_argument("--repos", required=True, help="folder of clones")
    options.add_argument("--specs", default="", help="environment specs; default: beside the tasks")
    options.add_argument("--environments", default="", help="folder of virtual environments")
    options.add_argument("--only", default="pytest-dev/pytest", help="repository")
    options.add_argument("--limit", type=int, default=0, help="number of tasks; 0 for all")
    benchmark = SweBenchCl(**vars(options.parse_args()))
    workspace = LocalWorkspace()
    tasks = benchmark.load(0)
    rows = []
    start = time.monotonic()
    for task in tasks:
        verdicts = []
        for patch in (task.gold, ""):
            with workspace.open(task.source, patch) as box:
                verdicts.append(benchmark.judge(task, box))
        rows.append((task, *verdicts))
        print(
            task.id, *(f"{name}={v.resolved}" for name, v in zip(("gold", "empty"), verdicts, strict=True)), flush=True
        )
    text = table(rows, workspace.level, time.monotonic() - start)
    print(text)
    if not benchmark.limit:
        (HERE / "result.md").write_text(text)
    return 0 if all(gold.resolved and not empty.resolved for _, gold, empty in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
