"""Wanted and unwanted continuations of real sessions."""

from __future__ import annotations

from looper.actions import FormatError, parse
from looper.learning.data.preference import Level, PreferenceData
from looper.protocols import Materials
from looper.records import Exit

NOTHING = Materials()


def couples(examples):
    assert len(examples) % 2 == 0
    return list(zip(examples[::2], examples[1::2], strict=True))


def test_a_resolved_session_is_set_against_a_failed_one_of_its_task(sessions) -> None:
    assert [e.resolved for e in sessions.episodes] == [True, False, True, False]
    found = couples(PreferenceData(level=Level.SESSIONS).examples(sessions.episodes, 0, NOTHING))
    assert len(found) == 2
    for wanted, unwanted in found:
        assert wanted.task == unwanted.task and wanted.group == unwanted.group
        assert (wanted.label, unwanted.label) == (1.0, -1.0)
        assert wanted.messages[:2] == unwanted.messages[:2]
        shared = [a == b for a, b in zip(wanted.messages, unwanted.messages, strict=False)].index(False)
        assert not any(wanted.weights[:shared]) and not any(unwanted.weights[:shared])
        assert sum(wanted.weights) >= 1 and sum(unwanted.weights) >= 1
    assert len({wanted.group for wanted, _ in found}) == 2


def test_a_failed_edit_is_set_against_the_edit_that_cured_it(sessions) -> None:
    found = couples(PreferenceData(level=Level.STEPS).examples(sessions.episodes, 0, NOTHING))
    assert found
    for wanted, unwanted in found:
        assert wanted.messages[:-1] == unwanted.messages[:-1]
        assert sum(wanted.weights) == sum(unwanted.weights) == wanted.weights[-1] == 1.0
        session = next(e for e in sessions.episodes if e.digest == wanted.episode).trajectory
        failed = next(s for s in session.steps if s.reply == unwanted.messages[-1].content)
        cured = next(s for s in session.steps if s.reply == wanted.messages[-1].content)
        assert not failed.ok and cured.ok and failed.action == cured.action
    assert any("<edit" in wanted.messages[-1].content for wanted, _ in found)


def test_everything_parses_back_and_only_the_sessions_decide(sessions) -> None:
    data = PreferenceData()
    examples = data.examples(sessions.episodes, 0, NOTHING)
    assert data.native and len(examples) > len(
        PreferenceData(level=Level.SESSIONS).examples(sessions.episodes, 0, NOTHING)
    )
    for example in examples:
        for message, weight in zip(example.messages, example.weights, strict=True):
            assert not weight or not isinstance(parse(message.content), FormatError)
    assert examples == data.examples(sessions.episodes[::-1], 3, NOTHING)
    assert examples == data.examples((*sessions.episodes, *sessions.episodes), 0, NOTHING)
    assert len(PreferenceData(cap=1).examples(sessions.episodes, 0, NOTHING)) == 4


def test_sessions_that_cannot_be_compared_are_left_out(sessions) -> None:
    def without(number: int, **changes: object):
        episodes = list(sessions.episodes)[:2]
        trajectory = episodes[number].trajectory.model_copy(update=changes)
        episodes[number] = episodes[number].model_copy(update={"trajectory": trajectory})
        return PreferenceData(level=Level.SESSIONS).examples(episodes, 0, NOTHING)

    failed = sessions.episodes[1].trajectory
    assert without(1) != ()
    assert without(1, exit=Exit.ERROR) == ()
    assert without(1, steps=tuple(step.model_copy(update={"pruned": True}) for step in failed.steps)) == ()
    other = (failed.messages[0], failed.messages[1].model_copy(update={"content": "another prompt"}))
    assert without(1, messages=(*other, *failed.messages[2:])) == ()
    assert PreferenceData().examples([], 0, NOTHING) == ()
