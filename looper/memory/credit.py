"""Which methods an experiment really tried: read from its code, not from what its proposer says."""

from __future__ import annotations

import io
import textwrap
import tokenize
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from looper.memory.changes import Changes, changes, parts
from looper.memory.occurrences import contains
from looper.memory.predicates import present
from looper.memory.rows import Method, Role
from looper.memory.syntax import Code, code_of


@dataclass(frozen=True, kw_only=True)
class Credit:
    """How a method belongs to an experiment, and how that is known."""

    method: str
    role: Role
    reason: str
    claimed: bool
    """Whether the proposer said that it tried the method."""


def credit(
    before: Code | str, after: Code | str, methods: Iterable[Method], *, claimed: Collection[str] = ()
) -> dict[str, Credit]:
    """Return, by id, the methods that a change brought in (PRESENT) and those that were only claimed.

    A method is PRESENT if its `present_if` holds after the change and did not before, or if the
    edits of its recipe are found in the code after and not before. Methods that are neither
    present nor claimed are left out. A claimed id that is not among `methods` stays CLAIMED.
    """
    before, after = code_of(before), code_of(after)
    out: dict[str, Credit] = {}
    known = {method.id: method for method in methods}
    for name, method in known.items():
        found, reason = _found(method, before, after)
        if found or name in claimed:
            role = Role.PRESENT if found else Role.CLAIMED
            out[name] = Credit(method=name, role=role, reason=reason, claimed=name in claimed)
    for name in claimed:
        if name not in known:
            reason = "claimed, but no such method is known, so the code cannot be asked for it"
            out[name] = Credit(method=name, role=Role.CLAIMED, reason=reason, claimed=True)
    return out


def roles(credits: Mapping[str, Credit]) -> dict[str, Role]:
    """Return what an experiment's `methods` holds."""
    return {name: one.role for name, one in credits.items()}


def _found(method: Method, before: Code, after: Code) -> tuple[bool, str]:
    if after.tree is None:
        return False, "the code after the change does not parse"
    if before.tree is None:
        return False, "the code before the change does not parse, so what the change brought in cannot be told"
    if before.digest == after.digest:
        return False, "the change has no effect on the syntax tree"
    was, now = present(method, before), present(method, after)
    if now and not was:
        return True, f"`{method.present_if}` holds after the change and did not before"
    if method.recipe and (all(applied(edit, before, after) for edit in method.recipe) or _made(method, before, after)):
        return True, "the edits of its recipe are in the code after the change and were not before"
    if now is None and not method.recipe:
        return False, "the method says neither how its presence can be told nor how it is applied"
    if now is None:
        return False, "the edits of its recipe are not found in the change"
    if was and now:
        return False, f"`{method.present_if}` held before the change already"
    if was:
        return False, f"the change takes it out: `{method.present_if}` held before and does not now"
    return False, f"`{method.present_if}` does not hold after the change"


def applied(edit: Mapping[str, str], before: Code, after: Code) -> bool:
    """Tell whether an edit with `search` and `replace` was made, however it is formatted."""
    search, replace = edit.get("search", ""), edit.get("replace", "")
    put = bool(replace.strip()) and has_fragment(after, replace)
    if put and not has_fragment(before, replace):
        return True
    gone = bool(search.strip()) and has_fragment(before, search) and not has_fragment(after, search)
    return gone and (put or not replace.strip())


def _made(method: Method, before: Code, after: Code) -> bool:
    """Tell whether the definitions and knobs that the recipe would change are, in the code after, as it leaves them."""
    left = _left(before.text, tuple((edit.get("search", ""), edit.get("replace", "")) for edit in method.recipe))
    if left is None:
        return False
    meant, definitions = left
    done, values = parts(after), {**after.knobs, **after.fields}
    return (
        all(values.get(name) == new for name, (_, new) in meant.knobs.items())
        and all(done.get(name) == text for name, text in definitions.items())
        and not any(name in done for name in meant.removed)
    )


@lru_cache(maxsize=1024)
def _left(text: str, edits: tuple[tuple[str, str], ...]) -> tuple[Changes, dict[str, str]] | None:
    """Return what edits would change in a program, and its definitions as they leave them; None if they do nothing.

    A campaign asks this of the same program in trial after trial.
    """
    before = code_of(text)
    for search, replace in edits:
        if text.count(search) != 1:
            return None
        text = text.replace(search, replace)
    expected = Code(text)
    meant = changes(before, expected)
    if expected.tree is None or not meant:
        return None
    return meant, {name: parts(expected)[name] for name in (*meant.added, *meant.rewritten)}


def has_fragment(code: Code, fragment: str) -> bool:
    """Tell whether code holds a fragment: as syntax, or its tokens in a row (it may be part of a line)."""
    return _holds(code.text, fragment)


@lru_cache(maxsize=4096)
def _holds(program: str, fragment: str) -> bool:
    text = textwrap.dedent(fragment).strip("\n")
    tree = Code(text).tree
    if tree is not None and tree.body and contains(code_of(program), text):
        return True
    return _within(_words(fragment), _words(program))


@lru_cache(maxsize=256)
def _words(text: str) -> tuple[str, ...]:
    """Return the tokens of a text without layout and comments, as far as it can be read."""
    idle = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    words: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(text)).readline):
            if token.type not in idle:
                words.append(token.string)
    except (tokenize.TokenError, SyntaxError):  # brackets that close outside the fragment
        pass
    return tuple(words)


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    return bool(part) and any(whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1))
