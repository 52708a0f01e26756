"""Recalled notes for oracle sessions, in many wordings: useful, beside the point, several at once.

The bundled model must understand notes that it never saw word for word, so wordings are composed
from parts rather than listed. A note about trees always tells the truth that the oracle acts on.
"""

from __future__ import annotations

from random import Random

from looper.records import Note, Recall

_LIVE = ("live", "in use", "current", "the real one", "what runs", "active", "deployed", "the one users get")
_STALE = ("stale", "dead code", "an old copy", "unused", "not loaded", "outdated", "left over", "never imported")
_TREE_ABOUT = (
    "the copy below {good} is {live}",
    "{good}/ is {live}, {bad}/ is {stale}",
    "{bad} is {stale}; fix {good}",
    "only {good}/ counts",
    "fixes belong in {good}/",
    "changes to {bad}/ have no effect",
    "edit {good}, not {bad}",
    "code under {bad} is {stale}",
    "tests judge {good}",
    "look in {good} first: {bad} is {stale}",
    "of the two trees, {good} is {live}",
    "always patch the {good} version",
)
_TREE_PAST = (
    "fixed `{name}` in {good}/: resolved",
    "fixed `{name}` in {bad}/: rejected by the tests",
    "a patch to {bad}/ was not accepted, the same patch to {good}/ was",
    "`{name}` repaired under {good}, tests passed",
    "edited {good} for `{name}`; solved",
    "edited {bad} for `{name}`; not solved",
    "issue about `{name}`: edit in {good}/ -> resolved",
    "issue about `{name}`: edit in {bad}/ -> failed",
)
_LEAD = (
    "",
    "",
    "",
    "remember: ",
    "last time: ",
    "from an earlier session: ",
    "hint: ",
    "lesson: ",
    "note: ",
    "past issue: ",
)
_SITE = (
    "`{name}` is in {path}",
    "the bug in `{name}` was near line {line} of {path}",
    "{path} holds `{name}`",
    "`{name}` was changed before, see {path}:{line}",
    "look at {path} for `{name}`",
)
_IRRELEVANT = (
    "`{name}` was slow on large input",
    "fixed `{name}` by flipping a comparison: resolved",
    "`{name}` once had an off by one error",
    "the README was out of date",
    "`{name}` returns a list, not a tuple",
    "an edit failed because the old line was not copied exactly",
    "read the lines before you edit them",
    "one small edit was enough for `{name}`",
    "renamed a variable in `{name}`; no effect",
    "`{name}` lost its last item because of a slice",
    "resolved `{name}` in four steps",
    "the tests of `{name}` are strict about order",
    "style: four spaces, short lines",
    "issue about `{name}`: wrong operator -> resolved",
)


def tree_note(rng: Random, name: str, good: str, bad: str) -> Note:
    """Return a true note about which of two trees counts."""
    frame = rng.choice(_TREE_ABOUT if rng.random() < 0.6 else _TREE_PAST)
    text = frame.format(good=good, bad=bad, name=name, live=rng.choice(_LIVE), stale=rng.choice(_STALE))
    return _finished(rng, text)


def site_note(rng: Random, name: str, path: str, line: int) -> Note:
    """Return a true note about where a function is."""
    return _finished(rng, rng.choice(_SITE).format(name=name, path=path, line=line))


def irrelevant_note(rng: Random, name: str) -> Note:
    """Return a note that does not help with the task."""
    return _finished(rng, rng.choice(_IRRELEVANT).format(name=name))


def mixed(rng: Random, useful: list[Note], names: list[str]) -> Recall:
    """Return useful notes among up to two that are beside the point, in random order."""
    notes = useful + [irrelevant_note(rng, rng.choice(names)) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    rng.shuffle(notes)
    return Recall(notes=tuple(notes))


def _finished(rng: Random, text: str) -> Note:
    text = rng.choice(_LEAD) + text
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return Note(text=text + rng.choice(("", "", ".", ".", "!")))
