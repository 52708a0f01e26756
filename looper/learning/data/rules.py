"""Pairs written by rule from a session's recorded facts: the same session always gives the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from looper.actions import Action, Bash, Done, Edit, Read, Write
from looper.learning.data.facts import Call, Cure, Facts
from looper.learning.data.pairs import Kind, Pair

_WRITES = (Edit, Write)


def answers(facts: Facts, kind: Kind) -> list[Pair]:
    """Return what a session teaches of one kind, as plain questions and answers.

    Where the hidden tests rejected the patch, only recoveries from errors are taken: nothing else is known to be right.
    """
    if kind is Kind.ERROR_RECOVERY:
        return [_recovery(facts, cure) for cure in facts.cures]
    if not facts.resolved:
        return []
    if kind is Kind.TOOL_USAGE:
        return _tool_usage(facts)
    return _conventions(facts) if kind is Kind.CONVENTION else _workflow(facts)


def reflections(facts: Facts, kind: Kind, solved: Sequence[Facts]) -> list[Pair]:
    """Return what a session's mistakes teach; `solved` are sessions that resolved the same task."""
    if kind is Kind.ERROR_RECOVERY:
        return [_reflected(facts, cure) for cure in facts.cures]
    if facts.resolved or not solved:
        return []
    better = solved[0]
    if kind is Kind.CONVENTION:
        return _misplaced(facts, better)
    return _wrong_edit(facts, better) if kind is Kind.TOOL_USAGE else _wrong_course(facts, better)


def outline(calls: Sequence[Call]) -> str:
    """Return the course of a session as a numbered list, without the text of its edits."""
    return "\n".join(f"{i}. {_named(call.action)}" for i, call in enumerate(calls, 1))


def _named(action: Action) -> str:
    match action:
        case Bash(command=command):
            return f"run `{command}`"
        case Read(path=path, first=None):
            return f"read {path}"
        case Read(path=path, first=first, last=last):
            return f"read {path}, lines {first} to {last}"
        case Edit(path=path):
            return f"edit {path}"
        case Write(path=path):
            return f"write {path}"
        case Done():
            return "call done"


def _tool_usage(facts: Facts) -> list[Pair]:
    out = []
    for found in facts.found:
        out.append(
            Pair(
                kind=Kind.TOOL_USAGE,
                question=f"Which call finds the code in {facts.repository} that this issue is about?\n{facts.summary}",
                answer=f"{found.call.text}\nIt shows {found.hit.strip()}",
                reason=f"The search has to show where the code is defined. This one shows {found.hit.strip()}",
                context=found.call.before,
                key=found.call.text,
            )
        )
    for call in facts.calls:
        if isinstance(call.action, Read) and call.action.path in facts.changed:
            question = f"Which call shows the lines of {call.action.path} that matter here?"
            reason = f"The change is in {call.action.path}; its lines have to be read before they are edited."
        elif isinstance(call.action, _WRITES) and call.action.path in facts.changed:
            question = f"Which call makes the change in {call.action.path} that fixes this?"
            reason = f"The lines to change stand in {call.action.path} as they were read."
        else:
            continue
        out.append(
            Pair(
                kind=Kind.TOOL_USAGE,
                question=f"{question}\n{facts.summary}",
                answer=call.text,
                reason=reason,
                context=call.before,
                key=call.text,
            )
        )
    return out


def _recovery(facts: Facts, cure: Cure) -> Pair:
    return Pair(
        kind=Kind.ERROR_RECOVERY,
        question=f"While you worked on this issue, a call failed.\n{facts.summary}\n{cure.failed}\n{cure.error}\n"
        "Which call works instead?",
        answer=cure.cure,
        reason=f"The failed call was answered with: {cure.error}",
        key=cure.cure,
    )


def _conventions(facts: Facts) -> list[Pair]:
    out = []
    for found in facts.found:
        for other in found.others:
            out.append(
                Pair(
                    kind=Kind.CONVENTION,
                    question=f"A search in {facts.repository} shows {found.path} and {other}. "
                    f"In which of them does a change for this issue count?\n{facts.summary}",
                    answer=f"In {found.path}, not in {other}.",
                    reason=f"The accepted change is in {_folder(found.path)}; {other} was left as it was.",
                    context=found.call.after,
                    key=f"In {found.path}",
                )
            )
    for path in facts.changed:
        out.append(
            Pair(
                kind=Kind.CONVENTION,
                question=f"Where in {facts.repository} does the change for this issue belong?\n{facts.summary}",
                answer=f"In {_folder(path)}, in the file {path}.",
                reason=f"The change that the tests accept is in {path}.",
                context=facts.found[0].call.after if facts.found else "",
                key=path,
            )
        )
    return out


def _workflow(facts: Facts) -> list[Pair]:
    if not facts.calls:
        return []
    course = outline(facts.calls)
    first = Pair(
        kind=Kind.WORKFLOW,
        question=f"Which steps, in order, resolve this issue in {facts.repository}?\n{facts.summary}",
        answer=course,
        reason=f"A session of {len(facts.calls)} calls resolved it.",
        key=course,
    )
    after = [
        Pair(
            kind=Kind.WORKFLOW,
            question=f"These steps are done for the issue below. Which call comes next?\n{facts.summary}\n"
            f"{outline(facts.calls[:i])}",
            answer=call.text,
            reason=f"After the step to {_named(facts.calls[i - 1].action)} it is time to {_named(call.action)}.",
            context=call.before,
            key=call.text,
        )
        for i, call in enumerate(facts.calls)
        if i
    ]
    return [first, *after]


def _reflected(facts: Facts, cure: Cure) -> Pair:
    return Pair(
        kind=Kind.ERROR_RECOVERY,
        question=f"You worked on this issue and called\n{cure.failed}\nIt was answered with\n{cure.error}\n"
        f"Reflect: what went wrong, and what do you do instead?\n{facts.summary}",
        reason=f"The call was answered with: {cure.error}",
        answer=cure.cure,
        key=cure.cure,
    )


def _misplaced(facts: Facts, better: Facts) -> list[Pair]:
    if not better.changed or facts.changed == better.changed:
        return []
    right = ", ".join(better.changed)
    did = f"You changed {', '.join(facts.changed)}" if facts.changed else "You changed nothing"
    strays = [path for path in facts.changed if path not in better.changed]
    if strays:
        wrong = f"The change belongs in {right}, not in {', '.join(strays)}."
    else:
        wrong = f"{'That is not all' if facts.changed else 'Nothing was changed'}; the change belongs in {right}."
    return [
        Pair(
            kind=Kind.CONVENTION,
            question=f"{did} for this issue, and the hidden tests did not accept it. "
            f"Reflect: what went wrong, and what do you do instead?\n{facts.summary}",
            reason=wrong,
            answer=f"Make the change in {right}.",
            key=right,
        )
    ]


def _wrong_edit(facts: Facts, better: Facts) -> list[Pair]:
    right = {c.action.path: c.text for c in better.calls if isinstance(c.action, _WRITES)}
    return [
        Pair(
            kind=Kind.TOOL_USAGE,
            question=f"For this issue you called\n{call.text}\nand the hidden tests did not accept it. "
            f"Reflect: what went wrong, and what do you do instead?\n{facts.summary}",
            reason=f"The file {call.action.path} is right, but the new lines do not do what the issue asks for.",
            answer=right[call.action.path],
            key=right[call.action.path],
        )
        for call in facts.calls
        if isinstance(call.action, _WRITES) and right.get(call.action.path, call.text) != call.text
    ]


def _wrong_course(facts: Facts, better: Facts) -> list[Pair]:
    course = outline(better.calls)
    if not course or course == outline(facts.calls):
        return []
    ended = "You called done" if facts.exit == "done" else f"The session was ended ({facts.exit})"
    return [
        Pair(
            kind=Kind.WORKFLOW,
            question=f"For this issue you did this, and the hidden tests did not accept it.\n{facts.summary}\n"
            f"{outline(facts.calls) or '(no call that worked)'}\n"
            "Reflect: what went wrong, and what do you do instead?",
            reason=f"{ended} after {len(facts.calls)} calls that worked, without the change that is needed.",
            answer=course,
            key=course,
        )
    ]


def _folder(path: str) -> str:
    folder = str(PurePosixPath(path).parent)
    return "the repository's root" if folder == "." else f"the folder {folder}"
