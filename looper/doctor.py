"""What this machine has and lacks: findings that `looper doctor` prints."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from looper.workspaces.local import probe_levels

OPTIONAL = {
    "uv": "swe",
    "httpx": "http",
    "ollama": "ollama",
    "mlx_lm": "mlx",
    "gguf": "gguf",
    "wandb": "wandb",
    "tensorboard": "tensorboard",
    "trl": "trl",
}
"""Optional packages: module -> the extra that installs it, where the installed looper has such an extra."""

_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str
    """What was found; where it is missing, what to do."""
    needed: bool = True
    """Whether looper cannot work without it."""


def doctor() -> list[Finding]:
    """Look at Python, git, sandboxes, devices, optional packages and disk space."""
    return [_python(), _git(), *_sandboxes(), *_devices(), *_packages(), _disk()]


def _python() -> Finding:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(name="python", ok=good, text=text if good else f"{text}; looper needs Python 3.11 to 3.13")


def _git() -> Finding:
    program = shutil.which("git")
    if program is None:
        return Finding(name="git", ok=False, text="not on PATH; install git 2.30 or newer")
    text = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10).stdout.strip()
    numbers = tuple(int(part) for part in text.split()[2].split(".")[:2]) if len(text.split()) > 2 else (0,)
    return Finding(name="git", ok=numbers >= (2, 30), text=text if numbers >= (2, 30) else f"{text}; 2.30 is needed")


def _sandboxes() -> list[Finding]:
    return [
        Finding(name=f"workspace={level}", ok=not reason, text=reason or "works", needed=level == "rlimits")
        for level, reason in probe_levels().items()
    ]


def _devices() -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = [Finding(name="cpu", ok=True, text=f"{cores} cores")]
    import torch  # the only way to know what PyTorch can use; takes a second or two

    cuda = torch.cuda.is_available()
    text = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if cuda else "no device"
    found.append(Finding(name="cuda", ok=cuda, text=text, needed=False))
    mps = torch.backends.mps.is_available()
    found.append(Finding(name="mps", ok=mps, text="Apple GPU" if mps else "no device", needed=False))
    return found


def _packages() -> list[Finding]:
    out = []
    for module, extra in OPTIONAL.items():
        there = importlib.util.find_spec(module) is not None
        how = "present" if there else f"absent; pip install '.[{extra}]'"
        out.append(Finding(name=module, ok=there, text=how, needed=False))
    return out


def _disk() -> Finding:
    places = {"here": ".", "temporary files": tempfile.gettempdir()}
    free = {name: shutil.disk_usage(path).free / _GIB for name, path in places.items()}
    text = ", ".join(f"{name}: {gib:.0f} GiB free" for name, gib in free.items())
    low = [name for name, gib in free.items() if gib < 2]
    return Finding(name="disk", ok=not low, text=f"{text}; a run wants 2 GiB" if low else text)


def print_findings() -> None:
    """Print the findings as a table; what is needed and missing is marked."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in doctor():
        mark = "yes" if finding.ok else ("MISSING" if finding.needed else "no")
        table.add_row(mark, finding.name, Text(finding.text))
    Console().print(table)
