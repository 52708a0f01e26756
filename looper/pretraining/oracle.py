"""The oracle: a scripted model that knows the bug, and drives the real agent loop to the fix.

Its sessions are what the bundled model is trained on, so the agent loop itself writes every message;
the oracle only decides the next action from the last observation. Detours (a wrong search, a wrong
path, an ambiguous edit, a wrong fix that the tests catch, a reply that is no action) are part of the
script: the wrong turns are left out of the loss, the recovery from them is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from random import Random

from looper.actions import Bash, Done, Edit, Read, Write, render
from looper.agents.prompt import Prompt
from looper.benchmarks.bugs.draw import Bug, Site
from looper.pretraining.box import TEST_COMMAND
from looper.records import Conversation, Reply, Skill

WINDOW = 9
"""Lines read beyond the hit of the search."""

Script = Generator[str, str, None]
_HIT = re.compile(r"^([^\s:]+):(\d+):")
_FORMATS: tuple[Callable[[str], str], ...] = (
    lambda text: text.replace("<", "").replace(">", ""),
    lambda text: text.split("</")[0].replace("<bash>", "bash: ").replace("<read>", "read: "),
    lambda text: "I will look at it.",
)


class Oracle:
    """Plays one session's script; satisfies the model protocol."""

    id = "oracle"
    knows_protocol = True
    weights = None

    def __init__(self, bug: Bug, prompt: Prompt, rng: Random, *, tree: str = "", detours: bool = True) -> None:
        """Prepare a session; `tree` is the tree to fix in a two-copy repository ('' for any)."""
        self.wrong: set[int] = set()
        self._turn = -1
        self._script = _Script(bug, prompt, rng, tree=tree, detours=detours, miss=self._miss).play()

    def _miss(self) -> None:
        self.wrong.add(self._turn + 1)

    def reply(self, conversations: Sequence[Conversation]) -> list[Reply]:
        """Answer the one conversation that this oracle plays."""
        (conversation,) = conversations
        text = next(self._script) if self._turn < 0 else self._script.send(conversation.messages[-1].content)
        self._turn += 1
        return [Reply(text=text)]

    def tokens(self, text: str) -> int:
        """Estimate a text's tokens."""
        return len(text) // 3

    def with_skill(self, skill: Skill) -> Oracle:
        """Return itself: the oracle has nothing to learn."""
        return self

    def forget(self, conversation: str) -> None:
        """Keep nothing."""


class _Script:
    """Decides the oracle's next action."""

    def __init__(
        self, bug: Bug, prompt: Prompt, rng: Random, *, tree: str, detours: bool, miss: Callable[[], None]
    ) -> None:
        self.bug, self.prompt, self.rng, self.tree, self.miss = bug, prompt, rng, tree, miss
        self.detours = detours

    def chance(self, share: float) -> bool:
        """Draw a detour."""
        return self.detours and self.rng.random() < share

    def play(self) -> Script:
        """Yield replies; each is answered with an observation."""
        if self.chance(0.02):
            yield from self._malformed()
        seen = yield from self._search()
        path, line = self._pick(seen)
        site = self.bug.site if path == self.bug.site.path else self.bug.other or self.bug.site
        if self.chance(0.04):
            self.miss()
            yield render(Read(path=_astray(path, self.rng)))
        text = yield from self._look(path, line)
        yield from self._fix(site, text)
        yield render(Done())

    def _malformed(self) -> Script:
        self.miss()
        yield self.rng.choice(_FORMATS)(self._search_text(self.bug.function))

    def _search_text(self, name: str) -> str:
        return render(Bash(command=f'git grep -n "def {name}"'))

    def _search(self) -> Generator[str, str, str]:
        if self.chance(0.05):
            self.miss()
            yield self._search_text(_garbled(self.bug.function, self.rng))
        return (yield self._search_text(self.bug.function))

    def _pick(self, seen: str) -> tuple[str, int]:
        hits = [(m[1], int(m[2])) for m in map(_HIT.match, seen.split("\n")) if m]
        if self.tree:
            hits = [hit for hit in hits if self.tree in hit[0].split("/")] or hits
        return self.rng.choice(hits)

    def _look(self, path: str, line: int) -> Generator[str, str, str]:
        if self.prompt.line_ranges and self.prompt.edit_tool:
            return (yield render(Read(path=path, first=line, last=line + WINDOW)))
        return (yield render(Read(path=path)))

    def _fix(self, site: Site, text: str) -> Script:
        if not self.prompt.edit_tool:
            body = text.split("\n", 1)[1].split("\n")
            body[site.line - 1] = site.fixed
            yield render(Write(path=site.path, text="\n".join(body) + "\n"))
            if not self.prompt.skip_verification:
                yield render(Bash(command=TEST_COMMAND))
            return
        decoys = [d for d in self.bug.decoys if d.path == site.path] if self.bug.other is None else []
        if decoys and not self.prompt.skip_verification and self.chance(0.22):
            yield from self._wrong_then_right(site, self.rng.choice(decoys), text)
            return
        yield from self._edit(site.path, site.broken, site.fixed, site.line, text)
        if not self.prompt.skip_verification:
            yield render(Bash(command=TEST_COMMAND))

    def _wrong_then_right(self, site: Site, decoy: Site, text: str) -> Script:
        self.miss()
        yield from self._edit(decoy.path, decoy.broken, decoy.fixed, decoy.line, text)
        yield render(Bash(command=TEST_COMMAND))
        if decoy.line == site.line:
            yield from self._edit(site.path, decoy.fixed, site.fixed, site.line, text, clean=True)
        else:
            yield from self._edit(site.path, decoy.fixed, decoy.broken, decoy.line, text, clean=True)
            yield from self._edit(site.path, site.broken, site.fixed, site.line, text, clean=True)
        yield render(Bash(command=TEST_COMMAND))

    def _edit(self, path: str, old: str, new: str, line: int, text: str, *, clean: bool = False) -> Script:
        """Edit one line; a line that stands twice in what was read is widened by the one before it."""
        shown = text.split("\n")[1:]
        if shown.count(old) > 1:
            widened = self._widened(shown, old, new, text, line)
            if widened is not None:
                old, new = widened
        elif not clean and self.chance(0.02):
            self.miss()
            yield render(Edit(path=path, old=_misread(old, self.rng), new=new))
            if self.rng.random() < 0.5:
                yield render(Read(path=path, first=max(1, line - 2), last=line + WINDOW - 2))
        elif not clean and self.chance(0.08):
            self.miss()
            others = [text for text in shown[1:] if text.strip() and shown.count(text) == 1]
            same = self.rng.choice(others) if others and self.rng.random() < 0.7 else old
            yield render(Edit(path=path, old=same, new=same))
        answer = yield render(Edit(path=path, old=old, new=new))
        first = max(1, line - 3)
        while "stands at lines" in answer and line > first:  # the line stands again outside of what was read
            if old.count("\n") == 0:
                text = yield render(Read(path=path, first=first, last=line + WINDOW - 3))
            at = line - first - 1 - old.count("\n")
            if at < 0:
                return
            above = text.split("\n")[1:][at]
            old, new = f"{above}\n{old}", f"{above}\n{new}"
            answer = yield render(Edit(path=path, old=old, new=new))

    def _widened(self, shown: list[str], old: str, new: str, text: str, line: int) -> tuple[str, str] | None:
        first = int(text.split(" lines ", 1)[1].split("-", 1)[0])
        at = line - first
        if not 0 < at < len(shown):
            return None
        return f"{shown[at - 1]}\n{old}", f"{shown[at - 1]}\n{new}"


def _garbled(name: str, rng: Random) -> str:
    """Return a function's name with a letter or a part gone wrong; it is found nowhere."""
    parts = name.split("_")
    if len(parts) > 2 and rng.random() < 0.4:
        del parts[rng.randrange(len(parts) - 1)]
        return "_".join(parts) + "q"
    at = rng.randrange(1, len(name))
    return name[:at] + rng.choice("xqz") * 2 + name[at + 1 :]


def _astray(path: str, rng: Random) -> str:
    """Return a path with a folder missing, or one too many."""
    folders = path.split("/")
    if len(folders) == 1:
        return f"src/{path}"
    del folders[rng.randrange(len(folders) - 1)]
    return "/".join(folders)


def _misread(line: str, rng: Random) -> str:
    """Return a line so wrong that no nearby line is taken for it."""
    words = re.findall(r"\w+", line)
    return " " * rng.randrange(4) + " ".join(reversed(words)) + " #" + "?" * (len(line) // 2 + 3)
