"""What the README says can be typed can be typed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from looper.config import read
from looper.places import config_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Return the command lines of the README's bash blocks, continued lines joined, comments cut."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


LOOPER = [c for c in commands() if c.startswith("python -m looper")]


def test_the_readme_is_short_and_has_the_two_commands() -> None:
    assert len(README.splitlines()) < 200
    assert "pip install -e . && python -m looper" in commands()
    assert "pip install -e '.[test]' && pytest" in commands()
    assert "PLACEHOLDER" not in README


def test_extras_that_are_named_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in re.findall(r"pip install -e '\.\[(\w+)\]'", README):
        assert name in extras


@pytest.mark.parametrize("command", [c for c in LOOPER if "--" in c])
def test_commands_that_print_run(command: str, tmp_path: Path) -> None:
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", [c for c in LOOPER if "--" not in c])
def test_commands_that_run_experiments_compose_and_build(command: str, tmp_path: Path) -> None:
    overrides = [word for word in shlex.split(command)[3:] if word != "-m"]
    single = [re.sub(r"=([^\[,]+),.*", r"=\1", word) for word in overrides]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        read(compose("config", overrides=single))


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("looper ")])
def test_subcommands_exist(command: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "looper.cli", shlex.split(command)[1], "--help"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60).returncode == 0


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
