"""The files of SWE-Bench-CL: the curriculum of tasks, and the environment specs of repository versions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, ValidationError

from looper.errors import ConfigError


def _listed(value: Any) -> Any:
    """Accept a list of test ids also as the JSON text that SWE-bench's own tables hold."""
    return json.loads(value) if isinstance(value, str) else value


TestIds = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class _Foreign(BaseModel):
    """Part of a file made elsewhere: what is not needed is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Metadata(_Foreign):
    """Which issue of which repository."""

    instance_id: str
    repo: str
    base_commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    version: str = ""
    """Version of the repository; the curriculum has none, then it is read from the repository's tags."""


class Statement(_Foreign):
    """What can be told."""

    problem_statement: str
    hints_text: str = ""


class Evaluation(_Foreign):
    """What is hidden."""

    patch: str
    test_patch: str
    FAIL_TO_PASS: TestIds
    PASS_TO_PASS: TestIds


class CurriculumTask(_Foreign):
    """One task of the curriculum."""

    metadata: Metadata
    task: Statement
    evaluation: Evaluation


class Sequence(_Foreign):
    """The tasks of one repository, easy and old ones first."""

    repo: str
    tasks: tuple[CurriculumTask, ...]


class Curriculum(_Foreign):
    """All sequences."""

    sequences: tuple[Sequence, ...]


class Spec(_Foreign):
    """How SWE-bench sets up one version of a repository."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    python: str
    install: str = ""
    test_cmd: str
    packages: str = ""
    pip_packages: tuple[str, ...] = ()
    pre_install: tuple[str, ...] = ()


class Specs(RootModel[dict[str, dict[str, Spec]]]):
    """Repository -> version -> spec."""


_File = TypeVar("_File", bound=BaseModel)


def _read(kind: type[_File], path: Path, what: str, key: str) -> _File:
    if not path.is_file():
        raise ConfigError(f"{what} not found: {path}; set {key} to the JSON file")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        places = [f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()[:3]]
        more = f" (and {error.error_count() - 3} more)" if error.error_count() > 3 else ""
        raise ConfigError(f"{what} {path} has not the expected form: {'; '.join(places)}{more}") from None


def read_curriculum(path: Path) -> tuple[CurriculumTask, ...]:
    """Return all tasks in the curriculum's order. Raises ConfigError for a missing or malformed file."""
    sequences = _read(Curriculum, path, "SWE-Bench-CL task file", "benchmark.tasks").sequences
    tasks = tuple(task for sequence in sequences for task in sequence.tasks)
    if not tasks:
        raise ConfigError(f"SWE-Bench-CL task file {path} holds no tasks")
    seen: set[str] = set()
    for task in tasks:
        if task.metadata.instance_id in seen:
            raise ConfigError(f"SWE-Bench-CL task file {path} holds {task.metadata.instance_id} twice")
        seen.add(task.metadata.instance_id)
    return tasks


def read_specs(path: Path) -> Mapping[str, Mapping[str, Spec]]:
    """Return the specs: repository -> version -> spec. Raises ConfigError for a missing or malformed file."""
    return _read(Specs, path, "environment specs", "benchmark.specs").root


_DATA = (".json", ".png", ".csv", ".txt", ".md", ".jpg", ".jpeg", ".pkl", ".yml", ".yaml", ".toml")


def patched_files(patch: str) -> tuple[str, ...]:
    """Return all paths that a patch names, those of both sides of a rename too."""
    pairs = re.findall(r"^diff --git a/(.+) b/(.+)$", patch, re.MULTILINE)
    return tuple(dict.fromkeys(path for pair in pairs for path in pair))


def files_to_test(patch: str) -> tuple[str, ...]:
    """Return the files to hand to pytest: what the test patch leaves behind, without data files."""
    files: list[str] = []
    for part in re.split(r"^(?=diff --git )", patch, flags=re.MULTILINE):
        match = re.match(r"diff --git a/.+ b/(.+)\n", part)
        deleted = re.search(r"^deleted file mode", part, re.MULTILINE)
        if match and not deleted and not match[1].endswith(_DATA):
            files.append(match[1])
    return tuple(files)
