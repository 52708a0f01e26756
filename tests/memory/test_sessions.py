"""What a finished session leaves in the memory: true facts in one line, nothing hidden, nothing that notes said."""

from __future__ import annotations

from pathlib import Path

import pytest

from looper.chat import first_message
from looper.memory import sessions
from looper.memory.check import check
from looper.memory.store import MemoryStore
from looper.records import Episode, Exit, Message, Note, Recall, Step, Trajectory, Verdict

PATCH = """\
diff --git a/{path} b/{path}
--- a/{path}
+++ b/{path}
@@ -1,4 +1,4 @@
 def total(rows):
-    return sum(rows) + 1
+    return sum(rows)
"""


def episode(
    digest: str = "e1",
    *,
    issue: str = "`total([1])` gives 2, expected 1.",
    path: str = "shop/north/cart.py",
    patch: str | None = None,
    resolved: bool = True,
    exit: Exit = Exit.DONE,
    notes: tuple[str, ...] = (),
    task: str = "bugs/main/0001",
    error: str = "",
) -> Episode:
    recall = Recall(notes=tuple(Note(text=note) for note in notes))
    replies = ("<read>shop/south/cart.py:1-9</read>", "<done/>")
    return Episode(
        digest=digest,
        task=task,
        family="conventions",
        pair=task,
        trajectory=Trajectory(
            digest=f"t{digest}",
            task=task,
            messages=(
                Message(role="system", content="Tools: read."),
                Message(role="user", content=first_message(issue, recall)),
                *(Message(role="assistant", content=reply) for reply in replies),
            ),
            steps=tuple(Step(reply=reply, action="read") for reply in replies),
            patch=PATCH.format(path=path) if patch is None else patch,
            exit=exit,
        ),
        verdict=Verdict(resolved=resolved, fail_to_pass={"hidden_checks.py::test_secret": resolved}, error=error),
    )


@pytest.mark.parametrize(
    ("made", "note"),
    [
        (episode(), "issue about `total`: edit in shop/north/ -> resolved"),
        (episode(resolved=False), "issue about `total`: edit in shop/north/ -> failed"),
        (episode(patch="", resolved=False, exit=Exit.LOOP), "issue about `total`: no edit -> failed"),
        (episode(issue="The sum is one off."), "issue about `total`: edit in shop/north/ -> resolved"),
        (
            episode(issue="`None` comes out of `shop.total`."),
            "issue about `shop.total`: edit in shop/north/ -> resolved",
        ),
        (episode(issue="See `cart` and `total(1)`."), "issue about `total`: edit in shop/north/ -> resolved"),
        (episode(issue="It fails.", path="setup.py"), "issue about `total`: edit in setup.py -> resolved"),
        (episode(issue="It fails.", patch="Binary files a/x and b/x differ\n"), "edit -> resolved"),
        (
            episode(patch="".join(PATCH.format(path=f"{x}/m.py") for x in "abcd")),
            "issue about `total`: edit in a/, b/ and 2 more -> resolved",
        ),
    ],
)
def test_a_note_says_what_was_recorded(made: Episode, note: str) -> None:
    assert sessions.session_of(made).note == note


def test_a_hunk_below_a_definition_is_named_by_its_heading() -> None:
    patch = (
        "--- a/m.py\n+++ b/m.py\n@@ -10,3 +10,3 @@ def parse_rows(text):\n     x = 1\n-    y = 2\n+    y = 3\n"
        "@@ -30,4 +30,4 @@ def before():\n \n def after():\n-    return 1\n+    return 2\n"
    )
    made = episode(issue="Wrong rows.", patch=patch)
    assert sessions.session_of(made).function == "parse_rows"


def test_the_issue_is_read_without_the_notes_that_were_shown() -> None:
    issue = "`total([1])` gives 2.\nIssue: it should be 1.\n\n- not a note"
    plain, told = episode(issue=issue), episode(issue=issue, notes=("Issue: forged", "edit in x/ -> resolved"))
    assert sessions.issue_of(plain) == sessions.issue_of(told) == issue


def test_what_is_stored_is_whole_and_holds_nothing_hidden(tmp_path: Path) -> None:
    with MemoryStore.open(tmp_path / "m.db") as store:
        for made in (episode("e1"), episode("e2", resolved=False, path="shop/south/cart.py"), episode("e1")):
            sessions.add(store, made)
        kept = sessions.sessions(store)
        assert [session.id for session in kept] == ["session:e1", "session:e2"]
        assert [session.resolved for session in kept] == [True, False]
        assert store.paper("session:e1").title == kept[0].note
        first, second = sessions.texts(store, kept)
        assert "expected 1" in first and "shop/south/cart.py" in first and "return sum(rows)" in second
        dump = "\n".join(store.connection.iterdump())
    assert "test_secret" not in dump
    assert check(tmp_path / "m.db") == []
