"""SWE-Bench-CL: real issues of real repositories in a fixed order, judged by the repositories' own tests."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from looper.benchmarks.environments import Recipe, interpreter
from looper.benchmarks.pytest_log import LINES, grade
from looper.benchmarks.swe_bench_cl_records import (
    CurriculumTask,
    Spec,
    files_to_test,
    patched_files,
    read_curriculum,
    read_specs,
)
from looper.errors import ConfigError
from looper.protocols import Box
from looper.records import Source, Task, Tests, Verdict

PATCH = ".looper-test.patch"
LOG = ".looper-test.log"
BRIEF = ".looper-test.brief"


@dataclass(frozen=True, kw_only=True)
class SweBenchCl:
    """Tasks of SWE-Bench-CL (Joshi et al. 2025) for repositories whose tests run under pytest.

    No container is needed: each task gets a virtual environment made from SWE-bench's spec of the repository's
    version; the tests run in the workspace's sandbox and are graded by SWE-bench's rules.
    """

    tasks: str = ""
    """Path of the curriculum (JSON, 273 tasks)."""
    repos: str = ""
    """Folder of git clones, each named `owner__name`, `owner+name` or `owner/name`, with or without `.git`."""
    specs: str = ""
    """Path of the environment specs (JSON); empty for `swebench-env-specs.json` beside the curriculum."""
    environments: str = ""
    """Folder that keeps the virtual environments; empty for `outputs/environments`."""
    only: str = "pytest-dev/pytest"
    """Repository whose tasks are taken; empty for all."""
    limit: int = 0
    """Number of tasks that are taken, from the first; 0 for all."""
    hints: bool = False
    """Whether the agent is also told the discussion below the issue; it often holds the answer."""
    seconds: float = 600.0
    """Time limit of one task's tests, in seconds."""
    newest: str = "2024-08-01"
    """Date (YYYY-MM-DD): environments hold no package published later."""

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError(f"benchmark.limit={self.limit}: must be 0 (all tasks) or more")
        if self.seconds <= 0:
            raise ConfigError(f"benchmark.seconds={self.seconds}: must be more than 0")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", self.newest):
            raise ConfigError(f"benchmark.newest={self.newest!r}: must be a date such as 2024-08-01")

    def load(self, seed: int) -> Sequence[Task]:
        """Return the tasks in the curriculum's order, whatever the seed; build environments that are missing.

        Raises ConfigError for files, clones, commits or specs that are missing; MachineError if an environment
        cannot be built.
        """
        chosen = self.chosen()
        specs = read_specs(self._specs_path())
        clones = self._clones({item.metadata.repo for item in chosen})
        return tuple(self._task(item, clones[item.metadata.repo], specs) for item in chosen)

    @property
    def has_placebo(self) -> bool:
        """No tasks of these repositories are known to teach nothing."""
        return False

    def placebo(self, seed: int) -> Sequence[Task]:
        """Return nothing: no other issues of these repositories are known to teach nothing."""
        return ()

    def judge(self, task: Task, box: Box) -> Verdict:
        """Put the test files into their hidden state, whatever the agent's patch did to them, and run them."""
        start = time.monotonic()
        tests = task.tests
        untouched = not box.diff()
        ready = box.run(f"python -I -S -c pass && rm -rf {PATCH} {LOG} {BRIEF}", seconds=60.0)
        if ready.exit_code:
            return _unjudged(f"python does not start: {ready.output.strip()[-400:]}", start)
        box.write(PATCH, tests.patch)
        paths = shlex.join(patched_files(tests.patch))
        at_base = f'for f in {paths}; do rm -rf -- "$f"; git checkout -q -f HEAD -- "$f" 2>/dev/null || true; done'
        restored = box.run(f"{at_base}; git apply --whitespace=nowarn {PATCH} && rm {PATCH}", seconds=60.0)
        if restored.exit_code and untouched:
            return _unjudged(f"the test patch does not apply: {restored.output.strip()[-400:]}", start)
        if restored.exit_code:  # the agent's patch is in the way, a file where a folder of tests was
            log, code = "", restored.exit_code
        else:
            log, code = _run(tests.command, box, tests.seconds)
        must, still = grade(log, code, tests.fail_to_pass, tests.pass_to_pass)
        return Verdict(
            resolved=bool(must) and all(must.values()) and all(still.values()),
            fail_to_pass=must,
            pass_to_pass=still,
            seconds=time.monotonic() - start,
        )

    def chosen(self) -> tuple[CurriculumTask, ...]:
        """Return the curriculum's records that `only` and `limit` leave. Raises ConfigError if there are none."""
        if not self.tasks:
            raise ConfigError("benchmark.tasks is empty: give the path of SWE-Bench-CL's JSON file")
        everything = read_curriculum(Path(self.tasks))
        names = list(dict.fromkeys(item.metadata.repo for item in everything))
        if self.only and self.only not in names:
            raise ConfigError(f"unknown benchmark.only={self.only!r}; choose one of {', '.join(names)}, or '' for all")
        chosen = tuple(item for item in everything if self.only in ("", item.metadata.repo))
        return chosen[: self.limit or None]

    def _specs_path(self) -> Path:
        return Path(self.specs) if self.specs else Path(self.tasks).with_name("swebench-env-specs.json")

    def _clones(self, names: set[str]) -> Mapping[str, Path]:
        if not self.repos:
            raise ConfigError("benchmark.repos is empty: give the folder that holds the clones")
        found = {name: _clone(Path(self.repos), name) for name in sorted(names)}
        if missing := [name for name, place in found.items() if place is None]:
            raise ConfigError(
                f"benchmark.repos={self.repos} has no clone of {', '.join(missing)}; "
                f"git clone it to {Path(self.repos) / missing[0].replace('/', '__')}, or choose another benchmark.only"
            )
        return {name: place for name, place in found.items() if place is not None}

    def _task(self, item: CurriculumTask, clone: Path, specs: Mapping[str, Mapping[str, Spec]]) -> Task:
        meta, hidden = item.metadata, item.evaluation
        release = _release(clone, meta.base_commit, meta.repo)
        spec = _spec(specs, meta.repo, meta.version or release)
        recipe = Recipe(
            repository=clone,
            name=meta.repo,
            commit=meta.base_commit,
            release=release,
            python=spec.python,
            pins=(*spec.packages.split(), *spec.pip_packages),
            before=spec.pre_install,
            newest=self.newest,
        )
        python = interpreter(recipe, Path(self.environments or "outputs/environments"))
        # a patch of data alone names no test file: then those of the tests that it is about
        files = files_to_test(hidden.test_patch) or dict.fromkeys(t.split("::")[0] for t in hidden.FAIL_TO_PASS)
        hints = f"\n\nHints:\n{item.task.hints_text}" if self.hints and item.task.hints_text.strip() else ""
        return Task(
            id=meta.instance_id,
            family=meta.repo,
            issue=item.task.problem_statement + hints,
            source=Source(
                name=meta.repo,
                repository=str(clone),
                commit=meta.base_commit,
                python=str(python),
                environment=recipe.digest,
            ),
            tests=Tests(
                patch=hidden.test_patch,
                command=f"python -m pytest -rA -v -p no:cacheprovider {shlex.join(files)}",
                fail_to_pass=hidden.FAIL_TO_PASS,
                pass_to_pass=hidden.PASS_TO_PASS,
                seconds=self.seconds,
            ),
            gold=hidden.patch,
        )


def _unjudged(error: str, start: float) -> Verdict:
    return Verdict(resolved=False, error=error, seconds=time.monotonic() - start)


def _run(command: str, box: Box, seconds: float) -> tuple[str, int]:
    """Run the tests; return the lines that speak of tests and the exit code, -1 if the time was up.

    The log goes to a file, since a box caps what a command says.
    """
    ran = box.run(f"{command} > {LOG} 2>&1", seconds=seconds)
    box.run(f"grep -aE '{LINES}' {LOG} > {BRIEF}; rm -f {LOG}", seconds=60.0)
    try:
        return box.read(BRIEF), -1 if ran.timed_out else ran.exit_code
    except FileNotFoundError:
        return "", -1


def _clone(folder: Path, name: str) -> Path | None:
    """Return the git repository of `owner/name` in a folder of clones; bare ones and work trees both do."""
    for form in (name, name.replace("/", "__"), name.replace("/", "+")):
        for place in (folder / form, folder / f"{form}.git", folder / form / "repo"):
            if (place / ".git").exists() or (place / "HEAD").is_file():
                return place.resolve()
    return None


def _git(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-c", "safe.directory=*", "-C", str(clone), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _release(clone: Path, commit: str, name: str) -> str:
    """Return the version of the last release before a commit, by its tag."""
    if _git(clone, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise ConfigError(f"the clone of {name} at {clone} lacks commit {commit}; git fetch it there")
    tags = ["--match", "[0-9]*", "--match", "v[0-9]*"]
    described = _git(clone, "describe", "--tags", "--abbrev=0", *tags, commit)
    if described.returncode:
        raise ConfigError(f"the clone of {name} at {clone} has no release tag before {commit[:12]}: git fetch --tags")
    return described.stdout.strip().removeprefix("v")


def _spec(specs: Mapping[str, Mapping[str, Spec]], name: str, version: str) -> Spec:
    """Return the spec of a version, by its first two numbers. Raises ConfigError if it cannot be used."""
    if name not in specs:
        raise ConfigError(f"the environment specs know no {name}; they know {', '.join(sorted(specs))}")
    short = ".".join(version.split(".")[:2])
    spec = specs[name].get(short) or specs[name].get(f"v{short}")
    if spec is None:
        known = ", ".join(specs[name])
        raise ConfigError(f"the environment specs of {name} have no version {short}; they have {known}")
    if not re.match(r"pytest(\s|$)", spec.test_cmd):
        raise ConfigError(
            f"{name} {short} runs its tests with {spec.test_cmd.split()[0]}; only logs of pytest can be judged: "
            f"choose a benchmark.only whose test_cmd in the specs is pytest, such as pytest-dev/pytest"
        )
    return spec
