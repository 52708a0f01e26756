"""Packages that a source asks for can be imported in its boxes, nothing else of looper's; sealed files are not read."""

import importlib.metadata
import json

import pytest

from looper.errors import ConfigError, MachineError, WorkspaceError
from looper.records import Source, Task, Tests
from looper.workspaces.interpreter import interpreter
from looper.workspaces.packages import closure

FILES = {"a.txt": "a\n"}
SEALED = ("difflib.py", "json/decoder.py")


def test_a_closure_is_what_is_required_here_and_no_extras():
    names = {path.name for path in closure(("jinja2",))}
    version = {name: importlib.metadata.version(name) for name in ("jinja2", "markupsafe")}
    assert names == {"jinja2", "markupsafe", *(f"{name}-{number}.dist-info" for name, number in version.items())}
    assert all(path.exists() for path in closure(("jinja2",)))
    torch = {path.name for path in closure(("torch",))}
    assert {"torch", "sympy", "typing_extensions.py"} <= torch and not torch & {"numpy", "looper", "__pycache__"}


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(MachineError, match="'no-such-package' is not installed; give pip install"):
        closure(("no-such-package",))
    with pytest.raises(ConfigError, match=r"either python .* or packages"):
        interpreter("/usr/bin/python3", ("jinja2",))


def test_packages_are_imported_and_nothing_else(workspace):
    script = (
        "import importlib.util, jinja2, markupsafe\n"
        "found = [importlib.util.find_spec(name) for name in ('torch', 'looper', 'numpy')]\n"
        "print(jinja2.Template('{{ 6 * 7 }}').render(), found)\n"
    )
    with workspace.open(Source(name="p", files={**FILES, "use.py": script}, packages=("jinja2",))) as box:
        assert box.run("python use.py", seconds=60).output == "42 [None, None, None]\n"
        if workspace.level != "rlimits":  # which protects no files, these ones neither
            command = "python -c 'import jinja2, pathlib; pathlib.Path(jinja2.__file__).open(\"a\")'"
            assert "Error: [Errno" in box.run(command, seconds=60).output
    with workspace.open(Source(name="p", files=FILES)) as box:
        assert "No module named 'jinja2'" in box.run("python -c 'import jinja2'", seconds=60).output


def test_sealed_files_are_imported_and_not_read(workspace):
    script = (
        "import difflib, json.decoder as d\n"
        "print(list(difflib.ndiff(['a'], ['a'])), d.JSONDecoder().decode('[1]'), bool(difflib.__doc__))\n"
        "for name in (difflib.__file__, d.__file__):\n"
        "    try: print(len(open(name).read()) > 0)\n"
        "    except PermissionError: print('denied')\n"
        "print(len(open(d.__file__.replace('decoder', 'encoder')).read()) > 0)\n"
    )
    with workspace.open(Source(name="p", files={"use.py": script}, sealed=SEALED)) as box:
        said = box.run("python use.py", seconds=60).output.split("\n")
    documented, read = {
        "bubblewrap": (False, "False"),
        "landlock": (True, "denied"),
        "rlimits": (True, "True"),
    }[workspace.level]
    assert said == [f"['  a'] [1] {documented}", read, read, "True", ""]


def test_bytes_go_in_and_out(box):
    data = bytes(range(256)) * 8000
    box.write_bytes("deep/data.bin", data)
    assert box.read_bytes("deep/data.bin", limit=len(data)) == data
    with pytest.raises(WorkspaceError, match="larger than the limit of 100 bytes"):
        box.read_bytes("deep/data.bin", limit=100)


def test_a_source_without_packages_is_written_as_ever():
    plain = Source(name="s", files=FILES)
    assert set(plain.model_dump()) == {"name", "files", "repository", "commit", "python", "environment"}
    asks = Source(name="s", files=FILES, packages=("jinja2",))
    task = Task(id="t", family="f", issue="i", source=asks, tests=Tests())
    assert task.public()["source"]["packages"] == ["jinja2"]
    assert "packages" not in task.model_copy(update={"source": plain}).public()["source"]
    assert Source.model_validate(json.loads(asks.model_dump_json())) == asks
