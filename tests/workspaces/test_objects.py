"""The repositories that are made in memory are what git would have made."""

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from looper.workspaces.objects import snapshot
from looper.workspaces.patch import diff
from looper.workspaces.tree import Tree

FILES = {"a.py": "x = 1\n", "b/c.py": "", "b/d/e.txt": "é\n" * 3000, "b.py": "no newline", "z": "\r\n"}


def lay_out(folder, shot):
    for path, data in shot.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for path, data in shot.git.items():
        (folder / ".git" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / ".git" / path).write_bytes(data)


def git(folder, *words):
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_git_agrees_with_every_object(tmp_path):
    shot = snapshot(FILES)
    lay_out(tmp_path, shot)
    assert git(tmp_path, "fsck", "--strict", "--no-dangling") == ""
    assert git(tmp_path, "status", "--porcelain") == ""
    assert git(tmp_path, "rev-parse", "HEAD") == shot.commit
    assert git(tmp_path, "grep", "-n", "x = ") == "a.py:1:x = 1"
    packs = list((tmp_path / ".git/objects/pack").glob("*.idx"))
    git(tmp_path, "verify-pack", str(packs[0]))


def test_same_tree_made_by_git_has_the_same_hash(tmp_path):
    shot = snapshot(FILES)
    lay_out(tmp_path, shot)
    tree = git(tmp_path, "rev-parse", "HEAD^{tree}")
    (tmp_path / ".git/index").unlink()
    git(tmp_path, "add", "-A")
    assert git(tmp_path, "write-tree") == tree


def test_commit_is_a_pure_function_of_the_files():
    assert snapshot(FILES).commit == snapshot(dict(reversed(FILES.items()))).commit
    assert snapshot(FILES).commit != snapshot({**FILES, "a.py": "x = 2\n"}).commit


texts = st.text(st.sampled_from("ab\n\r\té"), max_size=12)
trees = st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e f", "é", "-x"]), texts, max_size=5)


@settings(max_examples=25, deadline=None, database=None)
@given(before=trees, after=trees)
def test_a_patch_carries_one_tree_to_another(tmp_path_factory, before, after):
    old, new = (tmp_path_factory.mktemp(name) for name in ("old", "new"))
    first, second = snapshot(before), snapshot(after)
    lay_out(old, first)
    lay_out(new, second)
    patch = diff(Tree(new), first.entries, first.files.__getitem__, tmp_path_factory.mktemp("room"))
    assert bool(patch) == (before != after)
    if patch:
        subprocess.run(["git", "apply", "--whitespace=nowarn"], cwd=old, check=True, input=patch.encode())
    found = {str(p.relative_to(old)) for p in old.rglob("*") if p.is_file() and ".git" not in p.parts}
    assert {path: (old / path).read_bytes().decode() for path in found} == after
