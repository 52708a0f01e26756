"""Playbooks as SKILL.md folders: front matter with a name and a description, then the text for the prompt.

A file from elsewhere goes into every prompt, so it is read strictly: a plain file of moderate size in UTF-8, without
control or invisible characters and without a chat template's own tokens. Other files of the folder are not read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from looper.errors import StoreError
from looper.records import digest_of

FILE = "SKILL.md"
LARGEST = 65_536
"""Most bytes of a file."""
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_KEY = re.compile(r"([A-Za-z][\w-]*):(?:[ \t]+(.*))?")
_CONTROL = re.compile(r"<[|｜][^|｜<>\n]{1,60}[|｜]>|<(?:start|end)_of_turn>|\[/?INST\]")
"""Turn marks of the templates of ChatML's kind, DeepSeek, Gemma and Mistral."""


@dataclass(frozen=True, kw_only=True)
class SkillFile:
    """What a SKILL.md says."""

    name: str
    """1 to 64 lower-case letters, digits and single hyphens; also the folder's name."""
    description: str
    """What it is for and when to use it, one line of at most 1024 characters."""
    body: str
    """The text for the prompt."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > 64:
            raise StoreError(
                f"the skill's name {self.name[:80]!r} is not allowed; take 1 to 64 lower-case letters, digits and "
                "single hyphens"
            )
        if not self.description.strip() or len(self.description) > 1024 or "\n" in self.description:
            raise StoreError(
                f"the description of skill {self.name} has {len(self.description)} characters; one line of 1 to 1024 "
                "is needed"
            )
        if not self.body.strip():
            raise StoreError(f"skill {self.name} has no text after its front matter; write what the agent should know")
        for what, text in (("description", self.description), ("body", self.body)):
            _check(text, f"the {what} of skill {self.name}")


def write_skill(parent: Path, skill: SkillFile) -> Path:
    """Write the skill into a folder of its name below `parent`, and return that folder."""
    folder = parent / skill.name
    folder.mkdir(parents=True, exist_ok=True)
    quoted = json.dumps(skill.description, ensure_ascii=False)  # a YAML scalar too
    text = f"---\nname: {skill.name}\ndescription: {quoted}\n---\n\n{skill.body}\n"
    part = folder / f".{FILE}.{os.getpid()}"
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(folder / FILE)  # whoever reads meanwhile sees the old file or the new one
    return folder


def read_skill(folder: Path) -> SkillFile:
    """Read the SKILL.md of a folder. Raises StoreError saying what is wrong with it and what is needed."""
    path = folder / FILE
    if path.is_symlink() or not path.is_file():
        raise StoreError(f"{folder} holds no plain file {FILE}; give the folder of a skill")
    with path.open("rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise StoreError(f"{path} is larger than {LARGEST} bytes; a skill for every prompt has to be short")
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    lines = text.split("\n")
    if lines[0].rstrip() != "---" or "---" not in (line.rstrip() for line in lines[1:]):
        raise StoreError(f"{path} has no front matter; begin it with '---', name: ..., description: ..., '---'")
    end = next(i for i, line in enumerate(lines) if i and line.rstrip() == "---")
    matter = _front_matter(lines[1:end], path)
    for key in ("name", "description"):
        if key not in matter:
            raise StoreError(f"{path} has no {key} in its front matter (it has: {', '.join(matter) or 'nothing'})")
    skill = SkillFile(
        name=matter["name"], description=matter["description"], body="\n".join(lines[end + 1 :]).strip("\n")
    )
    if skill.name != folder.absolute().name:
        raise StoreError(f"{path} is named {skill.name!r} but lies in {folder.absolute().name!r}; make both alike")
    return skill


def content(start: str) -> str:
    """Return a digest of the SKILL.md in the folder `start`; '' for no folder. Raises StoreError as `read_skill`."""
    return digest_of(dataclasses.asdict(read_skill(Path(start)))) if start else ""


def _front_matter(lines: list[str], path: Path) -> dict[str, str]:
    """Return the top-level texts of a front matter: plain, quoted or block scalars; lists and maps are passed over."""
    found: dict[str, str] = {}
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _KEY.fullmatch(line.rstrip())
        if key is None:
            raise StoreError(f"{path}: front matter line {at + 1} is no 'key: value': {line[:80]!r}")
        if key[1] in found:
            raise StoreError(f"{path}: front matter gives {key[1]!r} twice; keep one")
        inner: list[str] = []
        while at < len(lines) and (not lines[at].strip() or lines[at][0] in " \t" or lines[at].startswith("- ")):
            inner.append(lines[at].strip())
            at += 1
        found[key[1]] = _scalar((key[2] or "").strip(), inner, f"{path}: {key[1]}")
    return found


def _scalar(value: str, inner: list[str], where: str) -> str:
    if value[:1] in (">", "|"):
        return " ".join(line for line in inner if line)
    value = " ".join([value, *(line for line in inner if line)]).strip()
    if value[:1] == '"':
        try:
            return str(json.loads(value))
        except ValueError as error:
            raise StoreError(
                f"{where} has unreadable quotes: {value[:80]!r}; write it in one line as JSON text"
            ) from error
    if value[:1] == "'":
        if len(value) < 2 or value[-1] != "'" or "'" in value[1:-1].replace("''", ""):
            raise StoreError(f"{where} has unreadable quotes: {value[:80]!r}; double single quotes inside")
        return value[1:-1].replace("''", "'")
    if value[:1] in ("&", "*", "!"):
        raise StoreError(f"{where} uses an anchor, alias or tag: {value[:80]!r}; write the text itself")
    return re.split(r"\s#", value, maxsplit=1)[0].rstrip()


def _check(text: str, where: str) -> None:
    """Refuse what a person would not see, and what a chat template would take for its own."""
    for number, line in enumerate(text.split("\n"), 1):
        for character in line:
            if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs") and character != "\t":
                raise StoreError(
                    f"line {number} of {where} holds the invisible character U+{ord(character):04X}; remove it"
                )
    if token := _CONTROL.search(text):
        raise StoreError(f"{where} holds {token[0]!r}, which chat templates read as their own; remove it")
