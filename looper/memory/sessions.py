"""A finished session as knowledge: what is searched, the facts that were recorded, and the note that a prompt shows."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator

from looper.actions import Edit, Read, Write, parse
from looper.chat import first_message
from looper.memory import events
from looper.memory.rows import Chunk, Origin, Paper
from looper.memory.store import MemoryStore
from looper.records import Episode, Exit, Recall, Record, digest_of

KIND = "episode"
"""Kind of the events that hold a session's facts."""
ISSUE, PATCH, ENDED = "issue", "patch", "ended"
"""Locators of a session's passages; the last one is there for people and never leads to a recall."""
NAMED = 2
"""Places of a patch that a note names."""
LONGEST = 80
"""Letters of a name or a place in a note."""

_QUOTED = re.compile(r"`([^`\n]+)`")
_NAME = re.compile(r"([A-Za-z_][\w.]*)(\()?")
_FILE = re.compile(r'^--- "?(?:a/(.+?)|/dev/null)"?\s*\n\+\+\+ "?(?:b/(.+?)|/dev/null)"?\s*$', re.MULTILINE)
_HEADING = re.compile(r"^@@ .*? @@.*?\b(?:def|class) (\w+)")
_DEFINITION = re.compile(r"^[ +-]\s*(?:async )?def (\w+)")


class Session(Record):
    """The facts of one past session; its note says nothing else."""

    id: str
    """Id of its paper in the store: `session:` and the episode's digest."""
    task: str
    issue: str
    """Digest of the issue's text, by which the same task is known in another world."""
    function: str
    """What the issue names, or else the function that was changed; '' if neither can be told."""
    places: tuple[str, ...]
    """Folders (with a `/` at the end) of the patch, or files of the root; empty where no place can be told."""
    edited: bool
    resolved: bool
    exit: Exit

    @property
    def note(self) -> str:
        """The line that a prompt shows, e.g. "issue about `parse_rows`: edit in pkg/north/ -> resolved"."""
        about = f"issue about `{self.function}`: " if self.function else ""
        place = f" in {_listed(self.places)}" if self.places else ""
        done = f"edit{place}" if self.edited else "no edit"
        return f"{about}{done} -> {'resolved' if self.resolved else 'failed'}"


def session_of(episode: Episode) -> Session:
    """Return the facts of an episode."""
    patch = episode.trajectory.patch
    return Session(
        id=f"session:{episode.digest}",
        task=episode.task,
        issue=digest_of(issue_of(episode)),
        function=_named(issue_of(episode)) or next(iter(_changed(patch)), ""),
        places=_places(patch),
        edited=bool(patch.strip()),
        resolved=episode.resolved,
        exit=episode.trajectory.exit,
    )


def issue_of(episode: Episode) -> str:
    """Return what the agent was told, without the notes that it was shown: the memory must not feed on itself."""
    told = next((message.content for message in episode.trajectory.messages if message.role == "user"), "")
    opening = first_message("", Recall()).rstrip()
    lines = told.splitlines(keepends=True)
    start = next((n for n, line in enumerate(lines) if line.startswith(opening)), None)
    return "".join(lines[start:]).removeprefix(opening).strip() if start is not None else told.strip()


def add(store: MemoryStore, episode: Episode) -> None:
    """Add an episode; the very same one again changes nothing."""
    session = session_of(episode)
    trajectory = episode.trajectory
    issue, patch = issue_of(episode), trajectory.patch.strip()
    functions = list(dict.fromkeys(filter(None, [session.function, *_changed(patch)])))
    names = " ".join([*functions, *_paths(episode)])
    body = f"{session.exit.value} after {len(trajectory.steps)} steps, {'resolved' if session.resolved else 'failed'}"
    chunks = [Chunk(locator=ISSUE, title=session.function, body=issue, identifiers=names)]
    if patch:
        chunks.append(Chunk(locator=PATCH, title=" ".join(functions), body=patch, identifiers=names))
    chunks.append(Chunk(locator=ENDED, body=body))
    paper = Paper(id=session.id, origin=Origin.SESSION, title=session.note, sha=episode.digest)
    store.add_paper(paper, chunks)
    if events.latest(store.connection, KIND, session.id) is None:
        store.record(KIND, session.id, session.model_dump(mode="json"))


def sessions(store: MemoryStore) -> list[Session]:
    """Return the sessions of a store in the order of recording."""
    return [Session.model_validate(event.data) for event in events.read(store.connection, kind=KIND)]


def texts(store: MemoryStore, wanted: list[Session]) -> list[str]:
    """Return what can be searched of some sessions: names, issue and patch."""
    rows = store.connection.execute(
        "SELECT paper, title || char(10) || body || char(10) || identifiers FROM chunk "
        "WHERE locator IN (?, ?) AND paper IN (SELECT value FROM json_each (?)) ORDER BY paper, position",
        (ISSUE, PATCH, json.dumps([session.id for session in wanted])),
    )
    found: dict[str, list[str]] = {}
    for paper, text in rows:
        found.setdefault(paper, []).append(text)
    return ["\n".join(found.get(session.id, [])) for session in wanted]


# ---------------------------------------------------------------- what a session says


def _named(issue: str) -> str:
    """Return the function that an issue names in backticks: the first that is called, else the first name."""
    found = [match for quoted in _QUOTED.findall(issue) if (match := _NAME.match(quoted.strip()))]
    called = [match[1] for match in found if match[2]]
    plain = [match[1] for match in found if match[0] == match.string and not keyword.iskeyword(match[1])]
    return next(iter([*called, *plain]), "")[:LONGEST]


def _changed(patch: str) -> list[str]:
    """Return the functions that a patch changes: the nearest definition above each hunk's first changed line."""
    found: dict[str, None] = {}
    name, waiting = "", False
    for line in patch.splitlines():
        if line.startswith("@@"):
            heading = _HEADING.match(line)
            name, waiting = heading[1] if heading else "", True
        elif waiting and (definition := _DEFINITION.match(line)):
            name = definition[1]
        if waiting and line[:1] in ("+", "-") and not line.startswith(("+++", "---")):
            waiting = False
            if name:
                found[name] = None
    return list(found)


def _files(patch: str) -> list[str]:
    return list(dict.fromkeys((new or old).strip() for old, new in _FILE.findall(patch) if new or old))


def _places(patch: str) -> tuple[str, ...]:
    folders = (f"{path.rpartition('/')[0]}/" if "/" in path else path for path in _files(patch))
    return tuple(dict.fromkeys(" ".join(folder.split())[:LONGEST] for folder in folders))


def _listed(places: tuple[str, ...]) -> str:
    more = len(places) - NAMED
    return ", ".join(places[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _paths(episode: Episode) -> Iterator[str]:
    """Yield the files that the session read or changed, each once."""
    found = dict.fromkeys(_files(episode.trajectory.patch))
    for step in episode.trajectory.steps:
        action = parse(step.reply)
        if step.ok and isinstance(action, Read | Edit | Write):
            found[action.path] = None
    yield from found
