"""How a judged run ended, from what it left in its box: the report of its scripts, its output, its exit code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from looper.benchmarks.research.measurement import LOG_CHARS, Cheat
from looper.errors import WorkspaceError
from looper.protocols import Box
from looper.records import CommandResult

ROOM = ".judge"
"""Folder of a box with what is not the agent's."""
REPORT_BYTES = 100_000
MOST = 2**62
"""What a count stays below: a store takes 64 bits."""
COUNTED = ("steps", "tokens", "train_seconds", "peak_memory_mb")
"""What a report counts, by the names of a measurement's fields."""


def refused(cheat: Cheat, reason: str) -> dict[str, Any]:
    """Return a refusal as fields of a measurement."""
    return {"status": "refused", "cheat": cheat, "reason": reason}


def report_in(box: Box) -> dict[str, Any]:
    """Return what a script reported; {} if that is missing or no report, as the code may have written there."""
    try:
        found = json.loads(box.read_bytes(f"{ROOM}/report.json", limit=REPORT_BYTES))
    except (OSError, ValueError, RecursionError, WorkspaceError):
        return {}
    if not isinstance(found, dict):
        return {}
    kinds = {"steps": int, "tokens": int, "train_seconds": float, "peak_memory_mb": float, "handed_over": bool}
    kinds |= {"error": str, "reason": str, "cheat": str}
    out = {key: _plain(value) for key, value in found.items() if isinstance(value, kinds.get(key, ()))}
    out = {key: value for key, value in out.items() if key not in COUNTED or 0 <= value < MOST}
    return out if out.get("cheat", Cheat.SCORE) in set(Cheat) and ("cheat" not in out or "reason" in out) else {}


def _plain(value: Any) -> Any:
    """Return a text as UTF-8 can say it, anything else as it is."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def weights_in(box: Box, limit: int) -> tuple[bytes, dict[str, Any]]:
    """Return the weights that were handed over, b'' for none, and a report on why they cannot be read."""
    try:
        return box.read_bytes(f"{ROOM}/model.pt", limit=limit), {}
    except FileNotFoundError:
        return b"", {}
    except (IsADirectoryError, WorkspaceError) as error:
        return b"", {"error": f"the weights cannot be read: {error}"}


def facts_of(done: CommandResult, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run counted, printed and said, as fields of a measurement."""
    said = printed(done.output)
    counted = {key: report[key] for key in COUNTED if key in report}
    return counted | {"reported_bpb": said[-1] if said else None, "log": done.output[-LOG_CHARS:]}


def status_of(done: CommandResult, report: Mapping[str, Any], weights: bool, limit: float) -> dict[str, Any]:
    """Say how a run ended, apart from its score; `weights` is whether there are any."""
    if "cheat" in report:
        return refused(Cheat(report["cheat"]), report["reason"])
    if done.timed_out:
        return {"status": "timeout", "reason": f"the run was stopped after {limit:g} seconds"}
    said = printed(done.output)
    if said:
        reason = f"val_bpb {said[-1]:g} was printed, and a judged run has no validation data to compute it from"
        return refused(Cheat.PRINTED, reason)
    if "error" in report:
        return {"status": "crash", "reason": report["error"]}
    if done.exit_code != 0:
        return {"status": "crash", "reason": why_it_died(done)}
    if not report.get("handed_over") or not weights:
        return {"status": "crash", "reason": "train.py ended without handing a model over; call evaluate_bpb(model)"}
    return {"status": "ok"}


def unanswered(changes: dict[str, Any], again: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Say why a trained model gave no answers, from what an answering process left.

    What code says that has seen validation windows may hold them: `again` asks it about training windows, and returns
    what is to be said of that, {} if it answers.
    """
    if changes["status"] == "timeout":
        return {"status": "timeout", "reason": changes["reason"]}
    reason = "the model answers training windows, and fails on validation windows"
    return again() or {"status": "crash", "reason": reason}


def why_it_died(done: CommandResult) -> str:
    """Say why a run ended that did not end well, as far as its exit code and output tell."""
    memory = ("MemoryError", "can't allocate memory", "OutOfMemoryError", "out of memory")
    if done.exit_code in (125, 137) or any(word in done.output for word in memory):
        return f"the run used up its memory or disk (exit code {done.exit_code})"
    return f"the run ended with exit code {done.exit_code}"


def printed(output: str) -> list[float]:
    """Return the finite values of val_bpb in an output, in order."""
    values = []
    for text in re.findall(r"^\s*val_bpb\s*[:=]\s*([-+.\deE]+)\s*$", output, re.MULTILINE):
        try:
            values.append(float(text))
        except ValueError:
            continue
    return [value for value in values if math.isfinite(value)]
