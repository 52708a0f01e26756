"""Recall of past sessions: each option on a real store, frozen, deterministic, never the task's own session."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from looper.errors import StoreError
from looper.memory.fts import FullText
from looper.memory.hybrid import Hybrid, spelling
from looper.memory.knowledge import FILE, SessionKnowledge, SessionMemory
from looper.memory.shuffled import Shuffled
from looper.memory.tfidf import TfIdf
from looper.records import Exit, Query
from tests.memory.test_sessions import episode

RANKING = [FullText, Hybrid, TfIdf]
ALL = [*RANKING, Shuffled]
WORDS = ("invoice totals with discounts", "date of a calendar week", "colour of a pixel row", "path of a config file")


def filled(option: SessionKnowledge, folder: Path, count: int = 4) -> SessionMemory:
    """Return a memory of sessions about different things; odd ones failed, in the other tree."""
    memory = option.open(folder)
    for n in range(count):
        tree = ("north", "south")[n % 2]
        memory.record(
            episode(
                f"e{n}",
                issue=f"`fn_{n}(3)` is wrong: {WORDS[n % len(WORDS)]}.",
                path=f"shop/{tree}/m{n}.py",
                resolved=n % 2 == 0,
                task=f"t{n}",
            )
        )
    return memory


def asked(memory: SessionMemory, text: str, task: str = "new") -> list[str]:
    return [note.text for note in memory.recall(Query(task=task, text=text)).notes]


@pytest.mark.parametrize("option", RANKING)
def test_the_session_that_is_most_like_the_issue_comes_first(option: type[SessionKnowledge], tmp_path: Path) -> None:
    memory = filled(option(limit=1, resolved_only=False), tmp_path)
    for n, words in enumerate(WORDS):
        (note,) = asked(memory, f"Trouble: {words} again")
        assert f"`fn_{n}`" in note and note.endswith("resolved" if n % 2 == 0 else "failed")


@pytest.mark.parametrize("option", ALL)
def test_recall_is_short_repeatable_and_leaves_the_memory_as_it_is(
    option: type[SessionKnowledge], tmp_path: Path
) -> None:
    memory = filled(option(limit=2, resolved_only=False), tmp_path)
    text = " ".join(WORDS)
    first = memory.recall(Query(task="new", text=text))
    assert len(first.notes) == 2
    assert len({note.text for note in first.notes}) == 2
    before = (tmp_path / FILE).read_bytes()
    again = filled(option(limit=2, resolved_only=False), tmp_path / "other")
    assert first == memory.recall(Query(task="new", text=text)) == again.recall(Query(task="new", text=text))
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("option", ALL)
def test_a_tasks_own_sessions_are_never_recalled(option: type[SessionKnowledge], tmp_path: Path) -> None:
    memory = filled(option(limit=9, resolved_only=False), tmp_path)
    issue = f"`fn_2(3)` is wrong: {WORDS[2]}."
    assert not any("fn_2" in note for note in asked(memory, "other words, pixel", task="t2"))
    twin = asked(memory, issue, task="t2 in another world")
    assert twin and not any("fn_2" in note for note in twin)


@pytest.mark.parametrize("option", ALL)
def test_failed_sessions_can_be_left_out(option: type[SessionKnowledge], tmp_path: Path) -> None:
    memory = filled(option(limit=9, resolved_only=True), tmp_path)
    notes = asked(memory, " ".join(WORDS))
    assert len(notes) == 2 and all(note.endswith("-> resolved") for note in notes)


@pytest.mark.parametrize("option", ALL)
def test_any_text_can_be_asked_of_any_memory(option: type[SessionKnowledge], tmp_path: Path) -> None:
    empty, full = option().open(tmp_path / "a"), filled(option(resolved_only=False), tmp_path / "b")
    for text, words in (("", 0), ("\x00", 0), ("🙂", 0), ('" OR *', 1), ("NEAR(", 1)):
        assert asked(empty, text) == []
        # A placebo needs no match, and among vectors something is always nearest.
        assert len(asked(full, text)) == (3 if option is Shuffled or (option is Hybrid and words) else 0)


def test_a_session_that_the_machine_failed_is_not_recorded(tmp_path: Path) -> None:
    memory = Shuffled().open(tmp_path)
    memory.record(episode("e1", exit=Exit.SECONDS))
    memory.record(episode("e2", error="no space"))
    assert asked(memory, "anything") == []


def test_equal_notes_are_shown_once(tmp_path: Path) -> None:
    memory = FullText(resolved_only=False).open(tmp_path)
    for n in range(4):
        memory.record(episode(f"e{n}", task="one", resolved=n > 0))
    assert len(asked(memory, "`total` expected")) == 2


def test_opening_begins_anew_or_from_a_copy(tmp_path: Path) -> None:
    filled(FullText(), tmp_path / "old")
    store = tmp_path / "old" / FILE
    kept = store.read_bytes()
    option = Hybrid(start=str(store), limit=9, resolved_only=False)
    memory = option.open(tmp_path / "new")
    assert len(asked(memory, " ".join(WORDS))) == 4
    memory.record(episode("e9", issue=f"`extra` {WORDS[0]}", task="t9"))
    assert len(asked(memory, " ".join(WORDS))) == 5
    again = option.open(tmp_path / "new")  # as an interrupted run does
    assert len(asked(again, " ".join(WORDS))) == 4
    assert asked(Hybrid().open(tmp_path / "new"), " ".join(WORDS)) == []
    assert store.read_bytes() == kept


def test_a_run_is_identified_by_what_the_first_store_holds(tmp_path: Path) -> None:
    filled(FullText(), tmp_path / "a")
    option = FullText(start=str(tmp_path / "a" / FILE))
    before = option.decisive()
    (tmp_path / "a").rename(tmp_path / "b")
    assert FullText(start=str(tmp_path / "b" / FILE)).decisive() == before
    option = FullText(start=str(tmp_path / "b" / FILE))
    SessionMemory(path=tmp_path / "b" / FILE, option=option).record(episode("more"))
    assert option.decisive() != before
    with pytest.raises(StoreError, match="no memory file"):
        FullText(start=str(tmp_path / "none.db")).decisive()
    with pytest.raises(ValueError, match="retrieval=none"):
        FullText(limit=0)


def test_the_placebo_does_not_tell_which_place_goes_with_which_outcome(tmp_path: Path) -> None:
    memory = filled(Shuffled(limit=1, resolved_only=False), tmp_path, count=40)
    seen = Counter(
        tuple(note.split(" in ")[1].split(" -> ")) for n in range(120) for note in asked(memory, f"text {n}")
    )
    assert set(seen) == {(f"shop/{tree}/", end) for tree in ("north", "south") for end in ("resolved", "failed")}
    # In the memory every edit of north/ was resolved and none of south/; here each of the four is one draw in four.
    assert min(seen.values()) > 12
    truth = asked(filled(FullText(limit=9, resolved_only=False), tmp_path / "true", count=40), " ".join(WORDS))
    assert all(("north" in note) == note.endswith("-> resolved") for note in truth)


def test_the_placebo_of_resolved_sessions_names_either_place(tmp_path: Path) -> None:
    memory = filled(Shuffled(limit=1), tmp_path, count=40)
    seen = Counter(note.split(" in ")[1] for n in range(60) for note in asked(memory, f"text {n}"))
    assert set(seen) == {"shop/north/ -> resolved", "shop/south/ -> resolved"}
    assert min(seen.values()) > 12


def test_vectors_know_spelling_and_no_more() -> None:
    rows = spelling(["sorted", "sorting", "", "banana"])
    cosine = lambda a, b: float(a @ b) / float((a @ a) ** 0.5 * (b @ b) ** 0.5)  # noqa: E731
    assert cosine(rows[0], rows[1]) > 0.4 > abs(cosine(rows[0], rows[3]))
    assert not rows[2].any()
