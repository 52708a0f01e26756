"""One oracle session as text with loss weights: what task, which prompt, which notes, which detours."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from looper.agents.loop import Agent, Budget
from looper.agents.prompt import Prompt
from looper.benchmarks.bugs.draw import Draw, draw
from looper.benchmarks.bugs.family import mix_family, two_copy_mix_family
from looper.errors import TrainingError
from looper.pretraining import notes
from looper.pretraining.box import MemoryBox
from looper.pretraining.oracle import Oracle
from looper.records import Exit, Message, Note, Recall, Skill

OBSERVED = 0.15
"""Loss weight of what the agent reads: enough to learn what code and issues look like."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares of the training mix."""

    two_copy: float = 0.25
    """Sessions in repositories with two copies of each module, of which the oracle picks any."""
    noted: float = 0.25
    """Sessions with recalled notes; of two-copy sessions, half of these name the tree to fix."""
    plain_prompt: float = 0.6
    """Sessions with the default prompt; the rest draw every switch of the prompt."""
    verified: float = 0.3
    """Of the rest: sessions in which tests are to be run."""
    families: int = 4000
    """Ordinary families drawn from; the first few are twice as frequent per task (see `common`)."""
    common: float = 0.3
    """Share of sessions in the first 24 families, which evaluation calls `seen`."""
    indexes: int = 1_000_000
    """Task indexes drawn from; evaluation uses larger ones only."""


@dataclass(frozen=True, kw_only=True)
class OracleSession:
    """A session's messages with their loss weights."""

    messages: tuple[Message, ...]
    weights: tuple[float, ...]


def oracle_session(number: int, seed: int, mix: Mix) -> OracleSession:
    """Return the `number`-th session of a corpus; a pure function of its arguments.

    Raises TrainingError if the oracle did not solve its own task: the script would be wrong.
    """
    rng = Random(f"corpus/{seed}/{number}")
    two_copy = rng.random() < mix.two_copy
    if two_copy:
        family = two_copy_mix_family(rng.randrange(mix.families))
    else:
        family = mix_family(rng.randrange(24 if rng.random() < mix.common else mix.families))
    drawn = draw(family, rng.randrange(mix.indexes))
    prompt = _prompt(rng, mix)
    recall, tree = _recall(rng, drawn, mix)
    return play(drawn, prompt, recall, rng, tree=tree)


def play(
    drawn: Draw, prompt: Prompt, recall: Recall, rng: Random, *, tree: str = "", detours: bool = True
) -> OracleSession:
    """Drive the agent loop with the oracle through one task."""
    box = MemoryBox(drawn.task.source.files)
    oracle = Oracle(drawn.bug, prompt, rng, tree=tree, detours=detours)
    agent = Agent(prompt=prompt, budget=Budget())
    trajectory = agent.run(drawn.task, box, oracle, recall=recall, skill=Skill(), digest="oracle")
    sites = [site for site in (drawn.bug.site, drawn.bug.other) if site is not None]
    fixed = [s for s in sites if box.read(s.path).split("\n")[s.line - 1] == s.fixed]
    if trajectory.exit is not Exit.DONE or len(fixed) != 1:
        shown = "\n".join(m.content for m in trajectory.messages)
        raise TrainingError(f"the oracle failed on {drawn.task.id} (exit {trajectory.exit}):\n{shown}")
    weights = []
    turn = 0
    for i, message in enumerate(trajectory.messages):
        if message.role == "assistant":
            weights.append(0.0 if turn in oracle.wrong else 1.0)
            turn += 1
        else:
            weights.append(OBSERVED if i else 0.0)
    return OracleSession(messages=trajectory.messages, weights=tuple(weights))


def _prompt(rng: Random, mix: Mix) -> Prompt:
    if rng.random() < mix.plain_prompt:
        return Prompt()
    return Prompt(
        few_shot=rng.random() < 0.5,
        line_ranges=rng.random() < 0.6,
        skip_verification=rng.random() >= mix.verified + 0.2,
        edit_tool=rng.random() >= 0.06,
    )


def _recall(rng: Random, drawn: Draw, mix: Mix) -> tuple[Recall, str]:
    """Return recalled notes and the tree that they name ('' for none)."""
    bug = drawn.bug
    if rng.random() >= mix.noted:
        return Recall(), ""
    names = [bug.function, *_functions(drawn)]
    useful: list[Note] = []
    tree = ""
    if drawn.trees is not None:
        if rng.random() < 0.65:
            good, bad = drawn.trees if rng.random() < 0.5 else drawn.trees[::-1]
            useful = [notes.tree_note(rng, rng.choice(names), good, bad) for _ in range(rng.choice((1, 1, 2, 3)))]
            tree = good
    elif rng.random() < 0.4:
        useful = [notes.site_note(rng, bug.function, bug.site.path, bug.site.line)]
    if not useful:
        useful = [notes.irrelevant_note(rng, rng.choice(names))]
    return notes.mixed(rng, useful, names), tree


def _functions(drawn: Draw) -> list[str]:
    out = []
    for path, text in drawn.task.source.files.items():
        if path.endswith(".py") and "test" not in path:
            out += [line[4 : line.index("(")] for line in text.split("\n") if line.startswith("def ") and "(" in line]
    return out
