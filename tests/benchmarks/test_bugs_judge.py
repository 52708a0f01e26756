"""Draws executed for real: git, subprocesses, the visible suite and the hidden checks."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import pytest

from looper.benchmarks.bugs.benchmark import Bugs, FamilyKind
from looper.benchmarks.bugs.draw import Draw, draw
from looper.benchmarks.bugs.family import mix_family, natural_family, two_copy_mix_family
from looper.benchmarks.repair import judge_repair, parse_results, token_of
from looper.errors import ConfigError
from looper.records import CommandResult, Task, Verdict
from looper.workspaces.local import LocalWorkspace

DRAWS = [(mix_family, natural_family, two_copy_mix_family)[i % 3](i) for i in range(21)]


class FolderBox:
    """A box without a sandbox: a folder and real subprocesses."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.root = root
        for path, text in files.items():
            self.write(path, text)

    def run(self, command: str, *, seconds: float) -> CommandResult:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                ["sh", "-c", f"exec {command}"],  # no shell between us and what a time-out must end
                cwd=self.root,
                env=env,
                timeout=seconds,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return CommandResult(exit_code=-9, output="", timed_out=True)
        return CommandResult(exit_code=done.returncode, output=done.stdout)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def diff(self) -> str:
        return ""

    def edit(self, site) -> None:
        lines = self.read(site.path).splitlines()
        assert lines[site.line - 1] == site.broken
        lines[site.line - 1] = site.fixed
        self.write(site.path, "\n".join(lines) + "\n")

    def visible(self) -> str:
        return self.run("python -m unittest -q 2>&1 | tail -1", seconds=20).output.strip()


def judged(task: Task, box: FolderBox) -> Verdict:
    verdict = judge_repair(task, box)
    assert not verdict.error
    return verdict


@pytest.mark.parametrize("number", range(len(DRAWS)))
def test_a_draw_is_what_it_says(number, tmp_path):
    d = draw(DRAWS[number], number)
    base = FolderBox(tmp_path / "base", d.task.source.files)
    assert base.visible().startswith("FAILED")
    verdict = judged(d.task, base)
    assert not verdict.resolved and not any(verdict.fail_to_pass.values()) and all(verdict.pass_to_pass.values())

    gold = FolderBox(tmp_path / "gold", d.task.source.files)
    subprocess.run(["git", "init", "-q"], cwd=gold.root, check=True)
    subprocess.run(["git", "apply", "-"], input=d.task.gold, text=True, cwd=gold.root, check=True)
    assert gold.read(d.bug.site.path).splitlines()[d.bug.site.line - 1] == d.bug.site.fixed
    assert gold.visible() == "OK"
    assert judged(d.task, gold).resolved
    if d.bug.other is not None:
        wrong = FolderBox(tmp_path / "wrong", d.task.source.files)
        wrong.edit(d.bug.other)
        assert wrong.visible() == "OK"
        assert not judged(d.task, wrong).resolved


@pytest.mark.parametrize("number", range(0, 9))
def test_decoys_leave_the_visible_suite_failing(number, tmp_path):
    d = draw(DRAWS[number], number)
    for n, decoy in enumerate(d.bug.decoys[:1]):
        box = FolderBox(tmp_path / str(n), d.task.source.files)
        box.edit(decoy)
        assert box.visible().startswith("FAILED")


@pytest.fixture
def sample() -> Draw:
    return draw(mix_family(1), 3)


SPY = """
import gc, os, re, sys

PARENT = f"/proc/{os.getppid()}"


def search(data):
    data = data if isinstance(data, bytes) else str(data).encode()
    with open("found.txt", "ab") as file:
        file.write(b"looked " + b" ".join(re.findall(rb"(?<![0-9a-f])[0-9a-f]{24}(?![0-9a-f])", data)))


def read(*path):
    search(os.read(os.open(os.path.join(*path), os.O_RDONLY | os.O_NONBLOCK), 1 << 20))


def read_memory(process):
    with open(f"{process}/maps") as maps, open(f"{process}/mem", "rb", 0) as memory:
        for line in maps:
            first, last = (int(place, 16) for place in line.split()[0].split("-"))
            if " rw" in line and last < 1 << 47:
                memory.seek(first)
                search(memory.read(last - first))


search(b"")
"""
"""Writes down all tokens that it finds: with the real one a patch could sign results of its own."""

CHEATS = {
    "prints": "import os, sys\nprint('{token}'); print('PASS x')\nos.write(1, b'PASS x')\n",
    "exits": "raise SystemExit(0)\n",
    "leaves": "import os\nos._exit(0)\n",
    "hangs": "while True:\n    pass\n",
    "floods": "import os\nwhile True:\n    os.write(int(os.listdir('/proc/self/fd')[-2]), b'1' * 65536 + b'\\n')\n",
    "kills": "import os\nos.kill(os.getppid(), 9)\n",
}
"""Works with or without a sandbox."""

SPYING = {
    "the_file": "read('hidden_checks.py')\n",
    "frames": "f = sys._getframe()\nwhile f:\n    search([f.f_locals, f.f_globals])\n    f = f.f_back\n",
    "all_objects": "for thing in gc.get_objects():\n    search(thing)\n",
    "command": "read(PARENT, 'cmdline')\n",
    "environment": "read(PARENT, 'environ')\n",
    "open_files": "for name in os.listdir(PARENT + '/fd'):\n    read(PARENT, 'fd', name)\n",
    "memory": "read_memory(PARENT)\n",
    "memory_of_its_own": "read_memory('/proc/self')\n",
}
"""Works as one unprivileged user in a sandbox: root may look into every process."""


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_repository_cannot_pass_by_cheating(cheat, sample, tmp_path):
    task = sample.task.model_copy(update={"tests": sample.task.tests.model_copy(update={"seconds": 1.0})})
    box = FolderBox(tmp_path, task.source.files)
    path = sample.bug.site.path
    box.write(path, CHEATS[cheat].replace("{token}", "0" * 24) + box.read(path))
    verdict = judged(task, box)
    assert not verdict.resolved and not any(verdict.fail_to_pass.values())


@pytest.mark.parametrize("place", SPYING)
def test_a_repository_cannot_find_what_signs_results(place, sample):
    with LocalWorkspace().open(sample.task.source) as box:
        path = sample.bug.site.path
        body = "".join(f"    {line}\n" for line in SPYING[place].splitlines())
        box.write(path, f"{SPY}\ntry:\n{body}except OSError:\n    pass\n\n\n{box.read(path)}")
        verdict = judge_repair(sample.task, box)
        found = box.read("found.txt")
    assert "looked" in found and token_of(sample.task.tests) not in found
    assert not verdict.error and not verdict.resolved and all(verdict.pass_to_pass.values())


def test_the_code_that_is_judged_knows_neither_token_nor_expectations(sample, tmp_path):
    """The forgeries find nothing because there is nothing: all that the child gets is written down and searched."""
    task = sample.task
    box = FolderBox(tmp_path, task.source.files)
    path = sample.bug.site.path
    box.write(path, "import sys\nopen('got.txt', 'w').write(repr(sys.orig_argv))\n" + box.read(path))
    judge_repair(task, box)
    got = box.read("got.txt")
    assert sample.bug.site.path.rpartition("/")[2].removesuffix(".py") in got
    assert token_of(task.tests) not in got
    assert not [name for name in (*task.tests.fail_to_pass, *task.tests.pass_to_pass) if name in got]


def test_prints_raised_errors_and_odd_values_of_sound_code_change_nothing(sample, tmp_path):
    box = FolderBox(tmp_path, sample.task.source.files)
    box.edit(sample.bug.site)
    noise = "import atexit, sys\nprint('RESULTS' * 9999)\nsys.stderr.write('x')\natexit.register(print, 'end')\n"
    box.write(sample.bug.site.path, noise + box.read(sample.bug.site.path))
    assert judged(sample.task, box).resolved


@pytest.mark.parametrize("value", ["[1] * 10 ** 7", "10 ** 9999", "print", "float('nan')", "a", "{1: print}", "exit()"])
def test_odd_values_fail_their_own_test_only(value, sample, tmp_path):
    box = FolderBox(tmp_path, sample.task.source.files)
    lines = box.read(sample.bug.site.path).splitlines()
    name = sample.task.tests.fail_to_pass[0].rpartition("-")[0]
    made = "    a = []\n    a.append(a)\n    return " + value
    lines = [f"{line}\n{made}" if line.startswith(f"def {name}(") else line for line in lines]
    box.write(sample.bug.site.path, "\n".join(lines) + "\n")
    verdict = judged(sample.task, box)
    assert not any(verdict.fail_to_pass.values())
    others = {test: passed for test, passed in verdict.pass_to_pass.items() if not test.startswith(f"{name}-")}
    assert others and all(others.values())


def test_values_that_claim_to_be_equal_do_not_pass(sample, tmp_path):
    box = FolderBox(tmp_path, sample.task.source.files)
    lines = box.read(sample.bug.site.path).splitlines()
    body = "class Any(int):\n    __eq__ = lambda self, other: True\n    __hash__ = None\n\n\n"
    lines = [f"{line}\n    return Any()" if line.startswith("def ") else line for line in lines]
    box.write(sample.bug.site.path, body + "\n".join(lines) + "\n")
    assert not judged(sample.task, box).resolved


def test_a_command_that_cannot_start_is_an_error(sample, tmp_path):
    class Broken(FolderBox):
        """A machine on which no program starts."""

        def run(self, command, *, seconds):
            return super().run("/no/such/program", seconds=seconds)

    verdict = judge_repair(sample.task, Broken(tmp_path, sample.task.source.files))
    assert "python does not start" in verdict.error and not verdict.resolved


def test_a_folder_in_the_place_of_the_hidden_tests_does_not_stop_the_judge(sample, tmp_path):
    box = FolderBox(tmp_path, sample.task.source.files)
    (hidden,) = sample.task.tests.files
    box.write(f"{hidden}/x.py", "")
    box.edit(sample.bug.site)
    verdict = judge_repair(sample.task, box)
    assert verdict.resolved and not verdict.error


def signed(token, *lines):
    signature = blake2b("\n".join(lines).encode(), key=token.encode(), digest_size=32).hexdigest()
    return "\n".join(["RESULTS", *lines, f"SIGNED {signature}", ""])


def test_only_a_complete_signed_block_counts():
    token = "ab" * 12
    block = signed(token, "PASS b", "FAIL c")
    assert parse_results(f"PASS a\n{block}PASS d\nSIGNED {'0' * 64}\n", token) == {"b": True, "c": False}
    assert parse_results(block.replace("FAIL", "PASS"), token) == {}
    assert parse_results(block.partition("SIGNED")[0], token) == {}
    assert parse_results(signed("cd" * 12, "PASS b"), token) == {}
    assert parse_results(f"RESULTS\nPASS z\n{block}", token) == {"b": True, "c": False}
    assert parse_results(signed(token, "PASS b", "FAIL b"), token) == {"b": False}


def test_hidden_files_without_a_token_are_refused(sample):
    with pytest.raises(ValueError, match="TOKEN"):
        token_of(sample.task.tests.model_copy(update={"files": {"x.py": ""}}))


def test_the_option_loads_disjoint_tasks_by_seed():
    option = Bugs(size=7, probe_tasks=5)
    tasks, again, other = option.load(0), option.load(0), option.load(1)
    assert list(tasks) == list(again)
    assert [t.family for t in tasks] == ["conventions"] * 14 + ["natural"] * 5 + ["seen"] * 5
    assert [t.world for t in tasks[:4]] == ["A", "B", "A", "B"]
    assert len({t.id for t in tasks}) == 24
    assert not {t.id for t in tasks} & {t.id for t in other}
    placebo = option.placebo(0)
    assert [t.public() for t in placebo] == [t.public() for t in tasks[:14] if t.world == "A"]
    assert {t.family for t in placebo} == {"unlearnable"}


def test_the_primary_family_is_not_probed_twice():
    families = [t.family for t in Bugs(family=FamilyKind.NATURAL, size=2, probe_tasks=1).load(0)]
    assert families == ["natural", "natural", "seen"]


def test_the_placebo_of_the_negative_control_is_another_draw():
    option = Bugs(family=FamilyKind.UNLEARNABLE, size=3, probes=[])
    assert not {t.pair for t in option.load(0)} & {t.pair for t in option.placebo(0)}


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="size=0"):
        Bugs(size=0)
    with pytest.raises(ConfigError, match="main/backup"):
        Bugs(pair="up/down")
    with pytest.raises(ConfigError, match="repeat a family"):
        Bugs(probes=[FamilyKind.SEEN, FamilyKind.SEEN])
    with pytest.raises(ConfigError, match="seed -1"):
        Bugs().load(-1)
