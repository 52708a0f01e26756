"""Pairs written from real sessions, by rule and by a recorded model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from looper.chat import first_message, render, spans
from looper.errors import ConfigError, ContextOverflow, TrainingError
from looper.learning.data.chain_of_thought import ChainOfThought
from looper.learning.data.contextual import Contextual
from looper.learning.data.facts import cures_of, facts_of, issue_in
from looper.learning.data.pairs import Kind
from looper.learning.data.qa import QuestionsAnswers
from looper.learning.data.reflexion import Reflexion
from looper.learning.data.rules import reflections
from looper.learning.data.synthesis import Synthesised, Synthesizer
from looper.learning.data.writing import Request, shortened
from looper.models.replay import Replay, record
from looper.protocols import Materials
from looper.records import Message, Note, Recall, digest_of

FORMATS: list[type[Synthesised]] = [QuestionsAnswers, ChainOfThought, Contextual, Reflexion]


def said(examples) -> list[tuple[str, str]]:
    return [(e.messages[0].content, e.messages[1].content) for e in examples]


def writer(path, requests: list[Request], answer) -> Replay:
    """Return a model whose answers to some requests are recorded; `answer` maps a request and its place to a text."""
    record(
        path,
        [
            (Message(role="user", content=r.prompt), Message(role="assistant", content=answer(r, i)))
            for i, r in enumerate(requests)
        ],
    )
    return Replay(path=str(path))


def written(request: Request, number: int) -> str:
    """Answer with as many good pairs as are asked for."""
    if request.drafts:
        items = [
            {"fact": i, **{key: f"In other words: {getattr(p, part)}" for key, part in request.fields.items()}}
            for i, p in enumerate(request.drafts, 1)
        ]
    else:
        items = [{key: f"{key} {number}.{i}" for key in request.fields} for i in range(request.count)]
    return json.dumps(items)


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.__name__)
def test_rules_give_the_same_pairs_in_the_same_order(format, sessions) -> None:
    data = format(budget=50)
    examples = data.examples(sessions.episodes, 0, sessions.materials)
    assert examples and not data.native
    assert examples == data.examples(sessions.episodes[::-1], 9, sessions.materials)
    assert digest_of([e.model_dump(mode="json") for e in examples]) == digest_of(
        [e.model_dump(mode="json") for e in data.examples(sessions.episodes, 0, sessions.materials)]
    )
    assert len(set(said(examples))) == len(examples)
    for example in examples:
        assert [m.role for m in example.messages] == ["user", "assistant"]
        assert example.weights == (0.0, 1.0) and example.label == 1.0 and not example.group
        assert all(m.content == m.content.strip() != "" for m in example.messages)
        assert "".join(part.text for part in spans(example.messages, example.weights)) == render(example.messages)


@pytest.mark.parametrize("budget", [3, 5, 8])
def test_the_budget_is_of_one_session_and_shared_by_the_kinds(budget, sessions) -> None:
    examples = QuestionsAnswers(budget=budget).examples(sessions.episodes, 0, sessions.materials)
    assert {e.episode for e in examples} == {e.digest for e in sessions.episodes if e.resolved}
    for episode in {e.episode for e in examples}:
        assert len([e for e in examples if e.episode == episode]) == budget
    assert len(QuestionsAnswers(cap=1, only_resolved=False).examples(sessions.episodes, 0, sessions.materials)) <= 10


def test_the_facts_are_what_the_sessions_show(sessions) -> None:
    drawn = sessions.draws[0]
    right, wrong = drawn.bug.site, drawn.bug.other
    pairs = said(QuestionsAnswers(budget=50).examples(sessions.episodes[:2], 0, sessions.materials))
    joined = "\n".join(answer for _, answer in pairs)
    assert f'<bash>git grep -n "def {drawn.bug.function}"</bash>\nIt shows {right.path}:' in joined
    assert f"In {right.path}, not in {wrong.path}." in joined
    assert f'<edit path="{right.path}">' in joined and f'<edit path="{wrong.path}">' not in joined
    assert "1. run `git grep" in joined and "call done" in joined
    kinds = {
        kind: said(QuestionsAnswers(budget=50, kinds=[kind]).examples(sessions.episodes, 0, sessions.materials))
        for kind in Kind
    }
    assert all(kinds[kind] for kind in (Kind.TOOL_USAGE, Kind.CONVENTION, Kind.WORKFLOW))
    assert not kinds[Kind.ERROR_RECOVERY]  # the resolved sessions went without a mistake
    both = QuestionsAnswers(budget=50, kinds=[Kind.ERROR_RECOVERY], only_resolved=False)
    for question, answer in said(both.examples(sessions.episodes, 0, sessions.materials)):
        assert "the old text is not in the file" in question or "Error" in question
        assert answer.startswith("<")


def test_reflections_name_the_mistake_and_the_way_out(sessions) -> None:
    drawn = sessions.draws[0]
    pairs = said(Reflexion(budget=50).examples(sessions.episodes[:2], 0, sessions.materials))
    assert all(a.startswith("What went wrong: ") and "\nInstead: " in a for _, a in pairs)
    joined = "\n".join(a for _, a in pairs)
    assert f"The change belongs in {drawn.bug.site.path}, not in {drawn.bug.other.path}." in joined
    failed = next(s for s in sessions.episodes[1].trajectory.steps if s.action == "edit" and not s.ok)
    assert f"What went wrong: The call was answered with: {failed.observation}\nInstead: <edit " in joined
    assert Reflexion(only_resolved=True).examples(sessions.episodes, 0, sessions.materials) == ()


def test_a_reflection_on_places_contradicts_nothing(sessions) -> None:
    better, worse = (facts_of(e, sessions.materials) for e in sessions.episodes[:2])

    def wrong(*changed: str) -> str:
        (pair,) = reflections(replace(worse, changed=changed), Kind.CONVENTION, [replace(better, changed=("a", "b"))])
        return pair.reason

    assert wrong("b", "c") == "The change belongs in a, b, not in c."
    assert wrong("a") == "That is not all; the change belongs in a, b."
    assert wrong() == "Nothing was changed; the change belongs in a, b."
    assert not reflections(replace(worse, changed=("a", "b")), Kind.CONVENTION, [replace(better, changed=("a", "b"))])


def test_a_cure_that_is_nothing_to_imitate_is_left_out(sessions) -> None:
    steps = sessions.episodes[1].trajectory.steps
    cures = cures_of(steps)
    assert cures
    at = cures[0].cured_at
    for change in ({"cut": True}, {"calls": 2}):
        changed = (*steps[:at], steps[at].model_copy(update=change), *steps[at + 1 :])
        assert cures[0].at not in {cure.at for cure in cures_of(changed)}


def test_long_texts_keep_both_ends() -> None:
    assert shortened("ab" * 50, 20) == f"{'ab' * 5}\n[...]\n{'ab' * 5}"
    assert shortened("one\ntwo\nthree\nfour\nfive", 14) == "one\n[...]\nfive"


def test_thoughts_and_contexts_are_part_of_the_format(sessions) -> None:
    for _, answer in said(ChainOfThought().examples(sessions.episodes, 0, sessions.materials)):
        assert answer.startswith("<think>") and answer.count("</think>\n") == 1
    task = sessions.draws[0].task
    asked = [q for q, _ in said(Contextual().examples(sessions.episodes[:2], 0, sessions.materials))]
    assert all(q.startswith(f"Repository: {task.source.name}\nIssue: {task.issue.strip()}\nSeen: ") for q in asked)
    short = Contextual(context_chars=40).examples(sessions.episodes[:2], 0, sessions.materials)
    assert all("[...]" in q for q, _ in said(short))
    recall = Recall(notes=(Note(text="a\nb"), Note(text="c")))
    assert issue_in(first_message(" Notes from past sessions:\n- x\ny ", recall)) == "Notes from past sessions:\n- x\ny"
    assert issue_in("Notes from past sessions:\n- a\n- b\nIssue: Issue: x\ny") == "Issue: x\ny"


@pytest.mark.parametrize("synthesizer", [Synthesizer.MODEL, Synthesizer.HYBRID])
@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.__name__)
def test_a_model_writes_pairs_or_words_the_facts(format, synthesizer, sessions, tmp_path) -> None:
    data = format(synthesizer=synthesizer, budget=6)
    requests = data.requests(sessions.episodes, sessions.materials)
    model = writer(tmp_path / "replies.jsonl", requests, written)
    materials = Materials(tasks=sessions.materials.tasks, writer=model)
    examples = data.examples(sessions.episodes, 0, materials)
    assert len(examples) == sum(r.count for r in requests)
    assert examples == data.examples(sessions.episodes[::-1], 0, materials)
    if synthesizer is Synthesizer.MODEL:
        assert len(requests) == len(Kind) * len({e.episode for e in examples})
        assert all(name in requests[0].prompt for name in data.fields)
    else:
        assert len(requests) == len({e.episode for e in examples})
        assert all("In other words: " in answer for _, answer in said(examples))
        rules = format(budget=6).examples(sessions.episodes, 0, sessions.materials)
        assert len(rules) == len(examples) and said(rules) != said(examples)


MALFORMED = [
    ("no list here", "not JSON"),
    ('{"question": "q", "answer": "a"}', "JSON dict, not a list"),
    ('[{"question": "q"}]', "not the keys"),
    ('[{"question": "q", "answer": "a", "more": "m"}]', "not the keys"),
    ('[{"question": "q", "answer": 3}]', "not a string"),
    ('[{"question": " ", "answer": "a"}]', "question is empty"),
    ('[{"question": "q", "answer": "q"}]', "answer is its question"),
    (f'[{{"question": "q", "answer": "{"a" * 4001}"}}]', "more than 4000"),
    ("[3]", "a pair has int"),
]


@pytest.mark.parametrize(("answer", "flaw"), MALFORMED, ids=[flaw for _, flaw in MALFORMED])
def test_malformed_answers_are_counted_and_dropped_and_an_error_if_there_is_nothing_else(
    answer, flaw, sessions, tmp_path, caplog
) -> None:
    data = QuestionsAnswers(synthesizer=Synthesizer.MODEL, kinds=[Kind.CONVENTION])
    requests = data.requests(sessions.episodes, sessions.materials)

    def materials(good: bool) -> Materials:
        def reply(request: Request, number: int) -> str:
            return written(request, number) if good and number else answer

        model = writer(tmp_path / f"{good}.jsonl", requests, reply)
        return Materials(tasks=sessions.materials.tasks, writer=model)

    with caplog.at_level("WARNING", logger="looper.learning"):
        examples = data.examples(sessions.episodes, 0, materials(good=True))
    assert len(examples) == data.budget and len({e.episode for e in examples}) == 1
    assert "1 malformed pairs" in caplog.text and flaw in caplog.text
    with pytest.raises(TrainingError, match="none of the 2 answers") as caught:
        data.examples(sessions.episodes, 0, materials(good=False))
    assert flaw in str(caught.value) and "data.synthesizer=rules" in str(caught.value)


class Short(Replay):
    """A writer that reads only so much."""

    def reply(self, conversations):
        for conversation in conversations:
            if len(conversation.messages[0].content) > 4500:
                raise ContextOverflow("too long")
        return [r.model_copy(update={"finish": "length"}) for r in super().reply(conversations)]


def test_a_session_too_long_for_the_writer_takes_no_other_with_it(sessions, tmp_path, caplog) -> None:
    long = sessions.episodes[0].trajectory
    system, first, *rest = long.messages
    first = first.model_copy(update={"content": f"{first.content}\n{'x' * 6000}"})
    trajectory = long.model_copy(update={"messages": (system, first, *rest)})
    episodes = (sessions.episodes[0].model_copy(update={"trajectory": trajectory}), *sessions.episodes[1:])
    data = QuestionsAnswers(synthesizer=Synthesizer.MODEL, kinds=[Kind.CONVENTION])
    path = tmp_path / "replies.jsonl"
    writer(path, data.requests(episodes, sessions.materials), written)
    materials = Materials(tasks=sessions.materials.tasks, writer=Short(path=str(path)))
    with caplog.at_level("WARNING", logger="looper.learning"):
        examples = data.examples(episodes, 0, materials)
    assert len(examples) == data.budget and "data.transcript_chars" in caplog.text
    writer(path, data.requests(sessions.episodes, sessions.materials), lambda *_: "[")
    materials = Materials(tasks=sessions.materials.tasks, writer=Short(path=str(path)))
    with pytest.raises(TrainingError, match=r"data\.reply_tokens"):
        data.examples(sessions.episodes, 0, materials)


def test_worded_facts_must_keep_what_they_say(sessions, tmp_path, caplog) -> None:
    data = QuestionsAnswers(synthesizer=Synthesizer.HYBRID)
    requests = data.requests(sessions.episodes, sessions.materials)

    def reply(request: Request, number: int) -> str:
        items = json.loads(written(request, number))
        items[0]["answer"] = "Somewhere else."
        items[1]["fact"] = 77
        items[3]["fact"] = 3  # a second wording of the third fact
        return f"```json\n{json.dumps(items)}\n```"

    model = writer(tmp_path / "replies.jsonl", requests, reply)
    materials = Materials(tasks=sessions.materials.tasks, writer=model)
    with caplog.at_level("WARNING", logger="looper.learning"):
        examples = data.examples(sessions.episodes, 0, materials)
    assert len(examples) == 2 * (data.budget - 3)
    assert "6 malformed pairs" in caplog.text


def test_what_cannot_be_written_is_said(sessions) -> None:
    with pytest.raises(ConfigError, match=r"synthesizer=model needs a model that writes.*model@synthesizer"):
        QuestionsAnswers(synthesizer=Synthesizer.MODEL).examples(sessions.episodes, 0, sessions.materials)
    with pytest.raises(ConfigError, match=r"data\.budget=0"):
        QuestionsAnswers(budget=0)
    with pytest.raises(ConfigError, match=r"data\.kinds=\[\].*convention"):
        QuestionsAnswers(kinds=[])
    with pytest.raises(ConfigError, match=r"data\.context_chars=0"):
        Contextual(context_chars=0)
    short = QuestionsAnswers(answer_chars=10, kinds=[Kind.WORKFLOW])
    assert all(len(a) <= 10 for _, a in said(short.examples(sessions.episodes, 0, sessions.materials)))
