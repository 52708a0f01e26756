"""Playbooks: operations on bullets, rules that find them, SKILL.md folders, and the way into an adapter."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looper.errors import ConfigError, NothingToLearn, StoreError, TrainingError
from looper.learning.bullets import HEADING, Bullet, Bullets, Change, Operation, apply, pruned, read
from looper.learning.lessons import LESSONS, course, followed, operations
from looper.learning.playbook import Playbook
from looper.learning.playbook_file import LARGEST, SkillFile, read_skill, write_skill
from looper.learning.sft import Sft
from looper.learning.skill_to_lora import SkillToLora, without_playbook
from looper.records import Exit, Skill
from tests.learning.sessions import Bench, bench, made_from, session, tiny_model

STAGE = [
    session("alpha", True),
    session("beta", True),
    session("gamma", False, tree="dead"),
    session("delta", False),
]
LIVE, DEAD = "fixes belong in live/", "fixes belong in dead/"
COURSE = "a course that worked: bash, read, edit, done"
BOOK = Bullets(given="# Ours\n\n- ask first", bullets=(Bullet(text="one", helpful=3), Bullet(text="two", harmful=1)))


def test_operations_on_bullets():
    done = apply(
        BOOK,
        [
            Operation(change=Change.ADD, text="three"),
            Operation(change=Change.UPVOTE, text="three"),
            Operation(change=Change.DOWNVOTE, text="one"),
            Operation(change=Change.EDIT, text="two", new="zwei"),
        ],
    )
    assert [(b.text, b.helpful, b.harmful) for b in done.bullets] == [("one", 3, 1), ("zwei", 0, 1), ("three", 1, 0)]
    assert done.given == BOOK.given
    for change, text, new, words in (
        (Change.ADD, "one", "", "already: vote"),
        (Change.UPVOTE, "four", "", "no bullet 'four' to upvote"),
        (Change.EDIT, "four", "x", "to edit"),
        (Change.EDIT, "one", "two", "cannot become it"),
        (Change.ADD, "two\nlines", "", "one line"),
    ):
        with pytest.raises(TrainingError, match=words):
            apply(BOOK, [Operation(change=change, text=text, new=new)])


def test_pruning_keeps_the_best_that_fit():
    book = Bullets(bullets=tuple(Bullet(text=f"b{i}", helpful=i, harmful=3) for i in range(7)))
    assert [b.text for b in pruned(book, count=9, characters=999, harm=1.0).bullets] == ["b6", "b5", "b4", "b3"]
    assert [b.text for b in pruned(book, count=2, characters=999, harm=1.0).bullets] == ["b6", "b5"]
    assert len(pruned(book, count=9, characters=999, harm=0.0).bullets) == 7
    short = pruned(book, count=9, characters=len(HEADING) + 30, harm=1.0)
    assert [b.text for b in short.bullets] == ["b6", "b5"] and len(short.render()) <= len(HEADING) + 30
    assert pruned(BOOK, count=9, characters=1, harm=1.0) == Bullets(given=BOOK.given)


def test_the_text_in_the_prompt_is_the_playbook():
    assert BOOK.render() == f"# Ours\n\n- ask first\n{HEADING}\n- one (+3 -0)\n- two (+0 -1)"
    assert read(BOOK.render()) == BOOK and read("") == Bullets() and Bullets().render() == ""
    with pytest.raises(StoreError, match=r"line 2 of the playbook is no bullet: 'hm'"):
        read(f"{HEADING}\nhm")
    with pytest.raises(TrainingError, match="cannot hold the line"):
        Bullets(given=HEADING)


@settings(max_examples=50, deadline=None, database=None)
@given(
    st.text(max_size=40).filter(lambda t: "\r" not in t),
    st.lists(st.tuples(st.text(min_size=1, max_size=30), st.integers(0, 99), st.integers(0, 99)), max_size=4),
)
def test_any_playbook_comes_back_from_its_text(text, rows):
    bullets = {" ".join(t.split()): (h, m) for t, h, m in rows if t.strip()}
    book = Bullets(given=text, bullets=tuple(Bullet(text=t, helpful=h, harmful=m) for t, (h, m) in bullets.items()))
    assert read(book.render()) == book


def test_rules_add_what_solved_tasks_share_and_sessions_vote():
    found = operations(Bullets(), STAGE, support=2)
    assert found == operations(Bullets(), STAGE[::-1], support=2)
    after = apply(Bullets(), found)
    assert [(b.text, b.helpful, b.harmful) for b in after.bullets] == [(COURSE, 2, 2), (LIVE, 2, 1)]
    assert apply(Bullets(), operations(Bullets(), STAGE, support=3)) == Bullets()
    # A bullet of an earlier stage that failed sessions follow loses.
    before = Bullets(bullets=(Bullet(text=DEAD, helpful=1), Bullet(text="advice by hand", helpful=1)))
    votes = apply(before, operations(before, STAGE, support=9))
    assert [(b.helpful, b.harmful) for b in votes.bullets] == [(1, 1), (1, 0)]


def test_the_course_is_edited_where_another_is_the_most_common():
    turns = [("<bash>ls</bash>", True), ("<bash>ls -a</bash>", True), ("<write path='a'>\nx</write>", True)]
    stage = [session(name, turns=turns, tree=name) for name in ("alpha", "beta")]
    assert course(stage[0]) == "a course that worked: bash, write"
    before = Bullets(bullets=(Bullet(text=COURSE, helpful=5),))
    after = apply(before, operations(before, stage, support=2))
    assert [(b.text, b.helpful) for b in after.bullets] == [("a course that worked: bash, write", 7)]


def test_advice_follows_a_failure_that_was_seen():
    read_first = ("<read>live/alpha.py</read>", False)
    stage = {
        LESSONS[0].text: session("a", False, turns=[("<edit path='x'>\na\n=======\nb\n</edit>", False)], patch=""),
        LESSONS[1].text: session("b", False, turns=[read_first]),
        LESSONS[2].text: session("c", False, turns=[("hm", False)], error_seen="Format error"),
        LESSONS[3].text: session("d", False, turns=[("<done/>", True)], patch=""),
        LESSONS[4].text: session("e", False, exit=Exit.LOOP),
    }
    for text, episode in stage.items():
        added = [o.text for o in operations(Bullets(), [episode], 2) if o.change is Change.ADD]
        assert text in added
        assert not followed(text, episode)
        assert followed(text, STAGE[0])
    good = [o for o in operations(Bullets(), STAGE[:2], 9) if o.change is Change.ADD]
    assert good == []  # nothing went wrong: no advice


def test_folder_names_that_the_agent_made_up_do_not_reach_the_prompt():
    bad = [session(name, tree="<|im_start|>system") for name in ("alpha", "beta")]
    assert LIVE in {o.text for o in operations(Bullets(), STAGE, 2)}
    assert not any("im_start" in o.text for o in operations(Bullets(), bad, 2))


def test_a_stage_brings_the_playbook_up_to_date(tmp_path):
    lab = Bench(root=tmp_path, episodes=[*STAGE, session("x", False, error="no space left")])
    learned = Playbook().learn(Skill(), [], lab)
    assert learned.playbook == f"{HEADING}\n- {LIVE} (+2 -1)\n- {COURSE} (+2 -2)"
    assert learned.adapters == () and Playbook().learns
    assert (lab.notes["add"], lab.notes["upvote"], lab.notes["downvote"], lab.notes["bullets"]) == (2, 4, 3, 2)
    again = Playbook(count=1).learn(learned, [], lab)
    assert again.playbook == f"{HEADING}\n- {LIVE} (+4 -2)" and lab.notes["pruned"] == 1
    exported = {read_skill(folder).body: folder for folder in tmp_path.glob("playbook-*/learned-playbook")}
    assert set(exported) == {learned.playbook, again.playbook}
    started = Playbook(start=str(exported[again.playbook]), count=1).learn(Skill(), [], lab)
    assert started.playbook == f"{HEADING}\n- {LIVE} (+6 -3)"
    with pytest.raises(NothingToLearn, match="none of 1 sessions was judged"):
        Playbook().learn(Skill(), [], Bench(root=tmp_path, episodes=lab.episodes[-1:]))
    for wrong in ({"support": 0}, {"count": 0}, {"characters": 0}, {"harm": -1.0}):
        with pytest.raises(ConfigError, match=f"strategy.{next(iter(wrong))}"):
            Playbook(**wrong)


def test_a_given_skill_is_kept_word_for_word(tmp_path):
    folder = write_skill(tmp_path, SkillFile(name="house-rules", description="Rules.", body="# Rules\n\n1. Be kind."))
    lab = Bench(root=tmp_path / "lab", episodes=STAGE)
    learned = Playbook(start=str(folder)).learn(Skill(), [], lab)
    assert learned.playbook.startswith(f"# Rules\n\n1. Be kind.\n{HEADING}\n- {LIVE}")
    assert (lab.notes["edit"], lab.notes["examples"], lab.notes["tasks"]) == (0, 4, 4)  # 0 is said, not left out
    with pytest.raises(ConfigError, match=r"20 characters, more than strategy\.characters=9"):
        Playbook(start=str(folder), characters=9).learn(Skill(), [], lab)


@pytest.mark.parametrize("option", [Playbook, SkillToLora])
def test_a_run_is_named_by_what_a_skill_says_not_by_where_it_lies(tmp_path, option):
    def start(place, body):
        return str(write_skill(tmp_path / place, SkillFile(name="rules", description="Rules.", body=body)))

    one, same, other = (option(start=start(*given)).decisive() for given in (("a", "x"), ("b", "x"), ("c", "y")))
    assert one == same != other
    assert option().decisive() == dataclasses.asdict(option())
    with pytest.raises(StoreError, match="no plain file"):
        option(start=str(tmp_path)).decisive()


def put(tmp_path, text, name="some-skill"):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "SKILL.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize("description", ['says "so": it\'s # fine', "日本語 – ümlaut", "- dash", "true", "a: b", "\\n"])
def test_skill_files_come_back_as_they_were_written(tmp_path, description):
    skill = SkillFile(name="some-skill", description=description, body=f"{BOOK.render()}\n---\nmore")
    assert read_skill(write_skill(tmp_path, skill)) == skill
    assert [path.name for path in (tmp_path / "some-skill").iterdir()] == ["SKILL.md"]


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("plain words  # a remark", "plain words"),
        ("'it''s quoted'", "it's quoted"),
        (">-\n  folded over\n  two lines", "folded over two lines"),
        ("\n  on the next line", "on the next line"),
        ("goes on\n  below", "goes on below"),
    ],
)
def test_descriptions_in_yamls_other_forms_are_read(tmp_path, value, read_as):
    head = (
        f"---\r\nname: some-skill\ndescription: {value}\nlicense: MIT\nmetadata:\n  a: b\nallowed-tools:\n- Read\n---\n"
    )
    assert read_skill(put(tmp_path, f"{head}\nBody.\n")).description == read_as


HEAD = "---\nname: some-skill\ndescription: d\n---\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Body only", "no front matter"),
        ("---\nname: some-skill\n", "no front matter"),
        ("---\nname: some-skill\n---\nx", r"no description in its front matter \(it has: name\)"),
        ("---\ndescription: d\n---\nx", "no name"),
        ("---\nname: Some Skill\ndescription: d\n---\nx", "name 'Some Skill' is not allowed"),
        ("---\nname: ../other\ndescription: d\n---\nx", "is not allowed"),
        ("---\nname: other\ndescription: d\n---\nx", "named 'other' but lies in 'some-skill'"),
        ("---\nname: some-skill\nname: some-skill\ndescription: d\n---\nx", "gives 'name' twice"),
        ("---\nname: some-skill\nwhat\n---\nx", "line 3 is no 'key: value'"),
        ("---\nname: some-skill\ndescription: *boom\n---\nx", "anchor, alias or tag"),
        ('---\nname: some-skill\ndescription: "open\n---\nx', "unreadable quotes"),
        ("---\nname: some-skill\ndescription: 'open\n---\nx", "unreadable quotes"),
        (f"---\nname: some-skill\ndescription: {'d' * 1025}\n---\nx", "1025 characters"),
        (HEAD, "no text after its front matter"),
        (f"{HEAD}a\n<|im_start|>system", r"'<\|im_start\|>', which chat templates"),
        (f"{HEAD}a\n<start_of_turn>model", "'<start_of_turn>', which chat templates"),
        (f"{HEAD}a [/INST] b", "which chat templates"),
        (f"{HEAD}a <｜User｜> b", "which chat templates"),
        (f"{HEAD}a\nb\x1b[2J", r"line 2 of the body of skill some-skill holds the invisible character U\+001B"),
        (f"{HEAD}a\u202eb", r"U\+202E"),
        (f"{HEAD}a\U000e0041", r"U\+E0041"),
        (HEAD.encode() + b"\xff", "not UTF-8 at byte"),
        (HEAD.encode() + b"x" * LARGEST, "larger than 65536 bytes"),
    ],
)
def test_malformed_and_hostile_skill_files_are_refused(tmp_path, text, words):
    with pytest.raises(StoreError, match=words):
        read_skill(put(tmp_path, text))


def test_a_skill_is_a_plain_file_in_a_folder(tmp_path):
    (tmp_path / "secret").write_text(f"{HEAD}x")
    folder = tmp_path / "some-skill"
    folder.mkdir()
    with pytest.raises(StoreError, match=r"holds no plain file SKILL.md"):
        read_skill(folder)
    (folder / "SKILL.md").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="no plain file"):
        read_skill(folder)
    with pytest.raises(StoreError, match="no plain file"):
        read_skill(tmp_path / "absent")


def test_a_playbook_moves_from_the_prompt_into_an_adapter(tmp_path):
    shown = Skill(playbook="fixes belong in live/")
    stage = [session(e.task, e.resolved, system=f"You fix bugs.\n{shown.playbook}") for e in STAGE]
    examples = made_from(stage)
    model = tiny_model(tmp_path / "model", stage)
    assert without_playbook(examples[0], shown.playbook).messages[0].content == "You fix bugs."
    assert without_playbook(examples[0], "") is examples[0]
    lab = bench(tmp_path / "lora", model, episodes=stage)
    learned = SkillToLora().learn(shown, examples, lab)
    assert learned.playbook == "" and len(learned.adapters) == 1
    assert lab.notes["distilled_playbook"] == shown.playbook
    plain = Sft().learn(Skill(), examples, bench(tmp_path / "sft", model))
    assert plain.digest != learned.digest
    own = bench(tmp_path / "own", model, episodes=STAGE)
    SkillToLora().learn(Skill(), made_from(STAGE), own)
    assert own.notes["distilled_playbook"].startswith(f"{HEADING}\n- {LIVE} (+2 -1)")
    assert own.notes["examples"] == len(made_from(STAGE)) < len(STAGE)  # not the sessions that the playbook is from
    with pytest.raises(NothingToLearn, match="taught no bullet"):
        SkillToLora().learn(Skill(), examples[:1], Bench(root=tmp_path, episodes=stage[:1]))
    with pytest.raises(StoreError, match="no plain file"):
        SkillToLora(start=str(tmp_path)).learn(shown, examples, lab)
