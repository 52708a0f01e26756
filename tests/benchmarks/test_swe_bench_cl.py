import json
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import distribution
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from looper.benchmarks.environments import MARKER
from looper.benchmarks.interpreters import interpreters, nearest_interpreter
from looper.benchmarks.swe_bench_cl import SweBenchCl
from looper.benchmarks.swe_bench_cl_records import files_to_test, patched_files, read_curriculum
from looper.errors import ConfigError, MachineError
from looper.records import Task
from looper.workspaces.local import LocalWorkspace


def test_an_interpreter_near_the_wanted_one_is_found():
    here = sys.version_info[:2]
    assert here in interpreters()
    assert nearest_interpreter(f"{here[0]}.{here[1]}")[0] == f"{here[0]}.{here[1]}"
    with pytest.raises(MachineError, match=r"no Python near 3\.99; this machine has "):
        nearest_interpreter("3.99")


# ---------------------------------------------------------------- a miniature repository

BACKEND = """
import zipfile
from pathlib import Path

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    info = "mini-1.0.dist-info"
    files = {f"{info}/METADATA": "Metadata-Version: 2.1\\nName: mini\\nVersion: 1.0\\n"}
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\\nGenerator: mini\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files["mini/__init__.py"] = Path("src/mini/__init__.py").read_text()
    files["mini/_version.py"] = "version = '1.0'\\n"
    files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(Path(wheel_directory) / "mini-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "mini-1.0-py3-none-any.whl"
"""
TREE = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": BACKEND,
    "src/mini/__init__.py": "from mini._version import version\n\n\ndef add(a, b):\n    return a - b\n",
    "tests/test_add.py": "from mini import add\n\n\ndef test_zero():\n    assert add(1, 0) == 1\n",
}
FIXED = "from mini._version import version\n\n\ndef add(a, b):\n    return a + b\n"
HIDDEN = {
    "tests/test_add.py": TREE["tests/test_add.py"] + "\n\ndef test_sum():\n    assert add(1, 2) == 3\n",
    "tests/test_version.py": textwrap.dedent(
        """\
        import subprocess
        import sys

        import pytest


        def test_elsewhere(tmp_path):
            code = "import mini; print(mini.version, mini.add(1, 1))"
            out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
            assert out.stdout == "1.0 2\\n", out.stderr


        @pytest.mark.skip(reason="never")
        def test_skipped():
            pass
        """
    ),
}


def git(folder, *arguments):
    identity = ["-c", "user.name=Mini", "-c", "user.email=mini@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def write(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def patch_to(folder, files):
    """Return the patch from HEAD to HEAD with `files`, and leave HEAD as it was."""
    write(folder, files)
    git(folder, "add", "-A")
    patch = git(folder, "diff", "--cached")
    git(folder, "reset", "-q", "--hard")
    return patch


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A benchmark of one task: clone, curriculum, specs; its environment is built without a network."""
    pytest.importorskip("uv", reason="environments are built with uv")
    root = tmp_path_factory.mktemp("swe")
    clone = root / "clones" / "owner__mini"
    clone.mkdir(parents=True)
    git(clone, "init", "-q")
    write(clone, {"notes.txt": "first\n"})
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "first")
    git(clone, "tag", "v1.0.2")
    write(clone, TREE)
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "second")
    record = {
        "metadata": {
            "instance_id": "owner__mini-1",
            "repo": "owner/mini",
            "base_commit": git(clone, "rev-parse", "HEAD").strip(),
        },
        "task": {"problem_statement": "add subtracts", "hints_text": "use +"},
        "evaluation": {
            "patch": patch_to(clone, {"src/mini/__init__.py": FIXED}),
            "test_patch": patch_to(clone, HIDDEN),
            "FAIL_TO_PASS": ["tests/test_add.py::test_sum", "tests/test_version.py::test_elsewhere"],
            "PASS_TO_PASS": ["tests/test_add.py::test_zero", "tests/test_version.py::test_skipped"],
        },
    }
    (root / "tasks.json").write_text(json.dumps({"sequences": [{"repo": "owner/mini", "tasks": [record]}]}))
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (root / "specs.json").write_text(json.dumps({"owner/mini": {"1.0": {"python": python, "test_cmd": "pytest -rA"}}}))
    return SweBenchCl(
        tasks=str(root / "tasks.json"),
        repos=str(root / "clones"),
        specs=str(root / "specs.json"),
        environments=str(root / "environments"),
        only="owner/mini",
        seconds=30.0,
    )


@pytest.fixture(scope="module")
def task(mini) -> Task:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_OFFLINE", "1")
        (task,) = mini.load(0)
    site = next(Path(task.source.python).parent.parent.glob("lib/python*/site-packages"))
    for name in ("pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        for file in distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), site / file)
    return task


@pytest.fixture(scope="module")
def workspace():
    return LocalWorkspace()


def judged(mini, workspace, task, patch):
    with workspace.open(task.source, patch) as box:
        return mini.judge(task, box)


def test_the_task_holds_what_is_told_and_what_is_hidden(mini, task):
    assert task.issue == "add subtracts"
    assert "use +" not in json.dumps(task.public())
    assert task.family == "owner/mini"
    assert task.tests.command.endswith(" tests/test_add.py tests/test_version.py")
    assert mini.placebo(0) == ()


def test_an_environment_is_built_once_and_holds_no_code_of_the_package(mini, task):
    home = Path(task.source.python).parent.parent
    built = json.loads((home / MARKER).read_text())
    assert (built["repository"], built["release"]) == ("owner/mini", "1.0.2")
    assert not list(home.glob("lib/python*/site-packages/mini"))
    before = (home / MARKER).stat().st_mtime_ns
    assert mini.load(1)[0] == task
    assert (home / MARKER).stat().st_mtime_ns == before


def test_the_reference_patch_is_resolved(mini, workspace, task):
    verdict = judged(mini, workspace, task, task.gold)
    assert verdict.resolved, verdict
    assert verdict.error == ""
    assert all(verdict.fail_to_pass.values())


def test_the_empty_patch_is_not_resolved_and_breaks_nothing(mini, workspace, task):
    verdict = judged(mini, workspace, task, "")
    assert not verdict.resolved
    assert verdict.error == ""
    assert not any(verdict.fail_to_pass.values())
    assert all(verdict.pass_to_pass.values())


def test_a_patch_cannot_change_the_tests(mini, workspace, task):
    clone = Path(task.source.repository)
    easy = "def test_zero():\n    pass\n\n\ndef test_sum():\n    pass\n"
    files = {"tests/test_add.py": easy, "tests/test_version.py/in_the_way.txt": "", ".looper-test.log/x": "x"}
    patch = patch_to(clone, files)
    verdict = judged(mini, workspace, task, patch)
    assert not verdict.resolved
    assert verdict.error == ""
    assert not any(verdict.fail_to_pass.values())


def test_a_patch_that_puts_a_file_where_the_tests_were_is_not_resolved(mini, workspace, task):
    clone = Path(task.source.repository)
    shutil.rmtree(clone / "tests")
    verdict = judged(mini, workspace, task, patch_to(clone, {"tests": "a file\n"}))
    assert not verdict.resolved
    assert verdict.error == ""


def test_a_patch_that_crashes_python_is_not_resolved(mini, workspace, task):
    patch = patch_to(Path(task.source.repository), {"src/mini/__init__.py": "import os\n\nos._exit(0)\n"})
    verdict = judged(mini, workspace, task, patch)
    assert not verdict.resolved
    assert not any(verdict.pass_to_pass.values())


# ---------------------------------------------------------------- errors


def changed(mini, tmp_path, edit):
    content = json.loads(Path(mini.tasks).read_text())
    edit(content["sequences"][0]["tasks"][0])
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(content))
    return path


def test_a_field_that_is_missing_is_named(mini, tmp_path):
    path = changed(mini, tmp_path, lambda record: record["evaluation"].pop("test_patch"))
    with pytest.raises(ConfigError, match=r"sequences\.0\.tasks\.0\.evaluation\.test_patch: Field required"):
        read_curriculum(path)


def test_test_ids_may_be_json_text(mini, tmp_path):
    path = changed(mini, tmp_path, lambda record: record["evaluation"].update(FAIL_TO_PASS='["a.py::t"]'))
    assert read_curriculum(path)[0].evaluation.FAIL_TO_PASS == ("a.py::t",)


@pytest.mark.parametrize("value", ["", "[", 3])
def test_test_ids_of_another_kind_are_refused(mini, tmp_path, value):
    path = changed(mini, tmp_path, lambda record: record["evaluation"].update(FAIL_TO_PASS=value))
    with pytest.raises(ConfigError, match="FAIL_TO_PASS"):
        read_curriculum(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ""}, "benchmark.tasks is empty"),
        ({"tasks": "/nowhere.json"}, "not found: /nowhere.json; set benchmark.tasks"),
        ({"specs": "/nowhere.json"}, "not found: /nowhere.json; set benchmark.specs"),
        ({"repos": ""}, "benchmark.repos is empty"),
        ({"repos": "/nowhere"}, "has no clone of owner/mini; git clone it to /nowhere/owner__mini"),
        ({"only": "owner/maxi"}, "unknown benchmark.only='owner/maxi'; choose one of owner/mini"),
        ({"limit": -1}, "benchmark.limit=-1"),
        ({"seconds": 0.0}, "benchmark.seconds=0"),
        ({"newest": "today"}, "benchmark.newest='today'"),
    ],
)
def test_errors_name_the_value_and_the_next_step(mini, options, message):
    fields = {name: getattr(mini, name) for name in ("tasks", "repos", "specs", "environments", "only")}
    with pytest.raises(ConfigError, match=message):
        SweBenchCl(**{**fields, **options}).load(0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "know no owner/mini"),
        ({"owner/mini": {"2.0": {"python": "3.9", "test_cmd": "pytest"}}}, "have no version 1.0; they have 2.0"),
        ({"owner/mini": {"1.0": {"python": "3.9", "test_cmd": "tox -e py"}}}, "runs its tests with tox"),
        ({"owner/mini": {"1.0": {"test_cmd": "pytest"}}}, r"owner/mini\.1\.0\.python: Field required"),
    ],
)
def test_specs_that_cannot_be_used_are_refused(mini, tmp_path, spec, message):
    path = tmp_path / "specs.json"
    path.write_text(json.dumps(spec))
    benchmark = SweBenchCl(tasks=mini.tasks, repos=mini.repos, specs=str(path), only=mini.only)
    with pytest.raises(ConfigError, match=message):
        benchmark.load(0)


def test_the_option_file_holds_the_defaults():
    values = OmegaConf.load(Path(__file__).parents[2] / "conf" / "benchmark" / "swe_bench_cl.yaml")
    assert values.pop("_target_") == "looper.benchmarks.swe_bench_cl.SweBenchCl"
    assert SweBenchCl(**values) == SweBenchCl()


# ---------------------------------------------------------------- the real curriculum


@pytest.mark.needs_shared_data
def test_the_real_curriculum_is_read_in_order(shared_data):
    tasks = read_curriculum(shared_data / "swe-bench-cl.json")
    counts: dict[str, int] = {}
    for item in tasks:
        counts[item.metadata.repo] = counts.get(item.metadata.repo, 0) + 1
    assert len(tasks) == 273
    assert list(counts.items()) == [
        ("django/django", 50),
        ("sympy/sympy", 50),
        ("sphinx-doc/sphinx", 44),
        ("matplotlib/matplotlib", 34),
        ("scikit-learn/scikit-learn", 32),
        ("astropy/astropy", 22),
        ("pydata/xarray", 22),
        ("pytest-dev/pytest", 19),
    ]


@pytest.mark.needs_shared_data
def test_every_real_test_patch_names_files_to_run(shared_data):
    for item in read_curriculum(shared_data / "swe-bench-cl.json"):
        patch = item.evaluation.test_patch
        assert patched_files(patch)
        # one change of Django is to data alone
        assert bool(files_to_test(patch)) == (item.metadata.instance_id != "django__django-10097")
        assert set(files_to_test(patch)) <= set(patched_files(patch))


@pytest.mark.needs_shared_data
def test_one_repository_and_a_limit_choose_tasks(shared_data):
    benchmark = SweBenchCl(tasks=str(shared_data / "swe-bench-cl.json"), limit=2)
    chosen = [item.metadata.instance_id for item in benchmark.chosen()]
    assert chosen == ["pytest-dev__pytest-5262", "pytest-dev__pytest-5809"]
