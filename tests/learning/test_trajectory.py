"""Which episodes become examples, and which of their turns carry weight."""

import pytest

from looper.chat import render, spans
from looper.errors import ConfigError, TrainingError
from looper.learning.data.trajectory import TrajectoryData, to_example
from looper.protocols import Materials
from looper.records import Episode, Exit, Message, Step, Trajectory, Verdict


def episode(task="t", attempt=0, turns=(("<read>a.py</read>", True), ("<done/>", True)), **changes):
    messages = [Message(role="system", content="s"), Message(role="user", content=f"Issue: {task}")]
    for reply, ok in turns:
        messages += [Message(role="assistant", content=reply), Message(role="user", content="seen" if ok else "error")]
    steps = [Step(reply=r, action="bash", ok=ok, pruned=changes.get("pruned", False)) for r, ok in turns]
    digest = changes.get("digest", f"{task}-{attempt}")
    trajectory = Trajectory(
        digest=digest,
        task=task,
        attempt=attempt,
        messages=tuple(messages),
        steps=tuple(steps),
        patch="",
        exit=changes.get("exit", Exit.DONE),
    )
    verdict = Verdict(resolved=changes.get("resolved", True), error=changes.get("error", ""))
    return Episode(digest=digest, task=task, family="f", pair=task, trajectory=trajectory, verdict=verdict)


def varied(task, attempt, **changes):
    return episode(task, attempt, turns=((f"<read>{task}{attempt}.py</read>", True), ("<done/>", True)), **changes)


def test_assistant_turns_carry_weight_except_those_that_went_wrong():
    turns = (
        ("<read>a.py</read>", True),
        ("no action", False),  # a format error
        ('<edit path="a.py">\nx\n=======\ny\n</edit>', False),  # a failed edit
        (" <bash>ls</bash>", True),  # tokenised together with the header before it
        ("<bash>ls</bash>", True),
        ("<done/>", True),
    )
    example = to_example(episode(turns=turns))
    weighted = [m.content for m, w in zip(example.messages, example.weights, strict=True) if w]
    assert weighted == ["<read>a.py</read>", "<bash>ls</bash>", "<done/>"]
    assert set(example.weights) == {0.0, 1.0}
    assert "".join(span.text for span in spans(example.messages, example.weights)) == render(example.messages)


def test_only_resolved_and_judged_sessions_are_taken_and_the_rest_is_counted():
    episodes = [
        varied("a", 0),
        varied("b", 0, resolved=False),
        varied("c", 0, error="no space left"),
        varied("d", 0, exit=Exit.ERROR),
        varied("e", 0, pruned=True),
        episode("f", turns=(("hm", False),)),
    ]
    selection = TrajectoryData().select(episodes, 0, Materials())
    assert [e.task for e in selection.examples] == ["a"]
    assert selection.skipped == {
        "unresolved": 1,
        "failed for the machine's reasons": 2,
        "pruned": 1,
        "without a turn to learn": 1,
    }
    control = TrajectoryData(only_resolved=False).examples(episodes, 0, Materials())
    assert [e.task for e in control] == ["a", "b"]


def test_a_task_gives_no_more_than_the_cap_and_no_transcript_twice():
    episodes = [varied("a", 0), varied("a", 0, digest="a-again"), *(varied("a", i) for i in (1, 2, 3)), varied("b", 0)]
    selection = TrajectoryData(cap=2).select(episodes, 0, Materials())
    assert [e.episode for e in selection.examples] == ["a-0", "a-1", "b-0"]
    assert selection.skipped == {"repeated": 1, "over the cap": 2}
    assert len(TrajectoryData(cap=0).examples(episodes, 0, Materials())) == 5


def test_the_order_of_the_episodes_does_not_matter_and_the_seed_draws_the_sample():
    episodes = [varied(f"t{i:02d}", 0) for i in range(30)]
    data = TrajectoryData(limit=10)
    chosen = data.examples(episodes, 1, Materials())
    assert chosen == data.examples(episodes[::-1], 1, Materials())
    assert len(chosen) == 10 and chosen != data.examples(episodes, 2, Materials())
    assert [e.task for e in chosen] == sorted(e.task for e in chosen)


def test_a_good_step_that_is_no_action_and_steps_unlike_the_messages_are_errors():
    with pytest.raises(TrainingError, match="a turn to learn that is no action"):
        to_example(episode(turns=(("just words", True),)))
    broken = episode()
    broken = broken.model_copy(update={"trajectory": broken.trajectory.model_copy(update={"steps": ()})})
    with pytest.raises(TrainingError, match="delete the stored episode"):
        to_example(broken)
    with pytest.raises(ConfigError, match="cannot be negative"):
        TrajectoryData(cap=-1)
