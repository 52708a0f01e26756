"""The recipe proposer: it does what its prompt offers, through the agent's own tools, in real boxes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import looper.benchmarks.research as research
from looper.agents.edits import Edited, apply_edit
from looper.agents.loop import Agent, Budget
from looper.agents.prompt import ResearchPrompt
from looper.errors import ModelError
from looper.memory.methods import pack
from looper.memory.methods.recipes import apply, chain
from looper.models.recipe import Offer, Recipe, offers, steps
from looper.records import Adapter, Exit, Recall, Skill, Source, Task, Tests
from looper.workspaces.local import LocalWorkspace

PROGRAM = (Path(research.__file__).parent / "train.py").read_text(encoding="utf-8")
METHODS = pack.load()
BUDGET = Budget(steps=40, tokens=16000, reply_tokens=4096, context=24000)


def offered(*names: str) -> str:
    known = {method.id: method for method in METHODS}
    return "\n\n".join(
        "\n".join([f"{name}:", *(json.dumps(edit) for edit in chain(known[name], PROGRAM, METHODS))]) for name in names
    )


@pytest.mark.parametrize("name", [method.id for method in METHODS if method.recipe])
def test_every_recipe_is_expressible_as_edits_of_whole_lines(name: str) -> None:
    known = {method.id: method for method in METHODS}
    (offer,) = offers(offered(name))
    text = PROGRAM
    for edit in steps(PROGRAM, offer, "train.py"):
        made = apply_edit(text, edit.old, edit.new, fuzzy=False)
        assert isinstance(made, Edited), made
        text = made.text
    assert text == apply(known[name], PROGRAM, pack=METHODS)


def session(issue: str) -> tuple[str, Exit, int]:
    task = Task(id="t", family="f", issue=issue, source=Source(name="s", files={"train.py": PROGRAM}), tests=Tests())
    with LocalWorkspace().open(task.source) as box:
        made = Agent(prompt=ResearchPrompt(), budget=BUDGET).run(
            task, box, Recipe(), recall=Recall(), skill=Skill(), digest="d"
        )
        return box.read("train.py"), made.exit, len(made.steps)


def test_a_session_makes_the_first_offer_that_is_not_blocked() -> None:
    known = {method.id: method for method in METHODS}
    text, end, _ = session(f"Improve it.\n\n{offered('rope', 'muon')}\n")
    assert (text, end) == (apply(known["rope"], PROGRAM, pack=METHODS), Exit.DONE)
    text, end, _ = session(f"Improve it.\n\n{offered('rope', 'muon')}\n\n- blocked rope: it was tried\n")
    assert (text, end) == (apply(known["muon"], PROGRAM, pack=METHODS), Exit.DONE)


def test_without_an_offer_it_is_done_at_once() -> None:
    assert session("Improve it.") == (PROGRAM, Exit.DONE, 1)


def test_an_edit_whose_place_is_not_there_ends_the_session() -> None:
    text, end, _ = session('x\n\nodd:\n{"search": "not in the file", "replace": "y"}\n')
    assert (text, end) == (PROGRAM, Exit.DONE)


def test_what_is_no_offer_is_not_taken_for_one() -> None:
    assert list(offers('name:\n{"search": 1}\n{"search"\nother:\ntext\n{"search": "a", "replace": "b"}')) == []
    assert list(offers('m:\n{"search": "a", "replace": "b"}')) == [Offer(name="m", edits=(("a", "b"),))]


def test_it_takes_no_adapter() -> None:
    with pytest.raises(ModelError, match="strategy=none"):
        Recipe().with_skill(Skill(adapters=(Adapter(path="a", digest="d", base="b"),)))
