import os

import pytest

from looper.errors import StoreError
from looper.memory.ingestion.folders import FolderLimits, read_folder
from looper.memory.ingestion.repository import clone_address, read_repository
from looper.memory.rows import Origin
from tests.memory.ingestion.sources import git

MIT = "MIT License\n\nCopyright (c) 2020 Ann\n\nPermission is hereby granted, free of charge, to any person."


def fill(folder):
    (folder / "src").mkdir(parents=True)
    (folder / "README.md").write_text("# Small GPT\n\nTrains a model.\n")
    (folder / "LICENSE").write_text(MIT)
    (folder / "src" / "train.py").write_text("WEIGHT_DECAY = 0.1\n\ndef train():\n    return WEIGHT_DECAY\n")
    (folder / "weights.bin").write_bytes(b"\x00\x01")
    (folder / "Makefile").write_bytes(b"all:\x00")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "data.csv").write_text("1,2\n")
    (folder / "big.md").write_text("word " * 300)
    (folder / "door.md").symlink_to("/etc/hostname")


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    fill(folder)
    (folder / ".gitignore").write_text("secret.md\n")
    (folder / "secret.md").write_text("Ignored words.")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x")
    return folder


LIMITS = FolderLimits(file_bytes=1000)


def test_a_folder_is_one_source_and_what_is_left_out_is_counted(tmp_path):
    fill(tmp_path / "a")
    (tmp_path / "a" / ".venv").mkdir()
    (tmp_path / "a" / ".venv" / "x.py").write_text("x = 1")
    reading = read_folder(tmp_path / "a", limits=LIMITS, scope="s")
    assert [(c.locator, c.title) for c in reading.chunks] == [
        ("LICENSE:1-5", "LICENSE"),
        ("README.md:3-3 Small GPT", "Small GPT"),
        ("src/train.py:1-4 train", "train"),
    ]
    assert reading.chunks[2].identifiers == "src/train.py WEIGHT_DECAY train"
    assert reading.skipped == {"of other kinds": 2, "binary or unreadable": 2, "above 1,000 bytes": 1, "links": 1}
    assert reading.summary.endswith("1 above 1,000 bytes, 2 binary or unreadable, 1 links, 2 of other kinds")
    paper = reading.paper
    assert (paper.id, paper.origin, paper.title) == (f"folder:{tmp_path / 'a'}", Origin.FOLDER, "a")
    assert (paper.licence, paper.version, paper.scope) == ("MIT", "", "s")


def test_a_git_repository_has_its_commit_and_not_what_it_ignores(repository):
    reading = read_folder(repository, limits=LIMITS)
    commit = git(repository, "rev-parse", "HEAD")
    assert reading.paper.id == f"repository:{repository}@{commit}"
    assert (reading.paper.origin, reading.paper.version) == (Origin.REPOSITORY, commit)
    assert not any("Ignored" in chunk.body for chunk in reading.chunks)


def test_changes_that_are_not_committed_are_said(repository):
    clean = read_folder(repository, limits=LIMITS).paper
    (repository / "README.md").write_text("# Other\n\nwords")
    (repository / "src" / "train.py").unlink()
    changed = read_folder(repository, limits=LIMITS).paper
    assert changed.id == f"{clean.id}+changes" and changed.sha != clean.sha
    git(repository, "checkout", "-q", ".")
    (repository / "new.md").write_text("New, not added.")
    assert read_folder(repository, limits=LIMITS).paper.id == changed.id


def test_the_remote_names_the_repository(repository):
    git(repository, "remote", "add", "origin", "git@github.com:Some-One/small.gpt.git")
    paper = read_folder(repository, limits=LIMITS).paper
    assert paper.id.startswith("repository:Some-One/small.gpt@")
    assert (paper.title, paper.url) == ("Some-One/small.gpt", "https://github.com/Some-One/small.gpt")


def test_a_part_of_a_repository_and_an_ignored_folder_are_folders(repository):
    assert read_folder(repository / "src").paper.id == f"folder:{repository / 'src'}"
    (repository / "outputs").mkdir()
    (repository / ".gitignore").write_text("outputs/\n")
    (repository / "outputs" / "log.txt").write_text("words")
    assert [c.locator for c in read_folder(repository / "outputs").chunks] == ["log.txt:1-1"]


def test_a_configuration_in_the_repository_runs_nothing(repository, tmp_path):
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    (repository / ".gitattributes").write_text("* filter=trap diff=trap\n")
    for key in ("filter.trap.clean", "filter.trap.process", "core.fsmonitor", "diff.trap.command", "core.sshCommand"):
        git(repository, "config", key, str(trap))
    os.utime(repository / "README.md", (1, 1))
    read_folder(repository, limits=LIMITS)
    assert not (tmp_path / "sprung").exists()


def test_limits_and_emptiness_are_errors(tmp_path, repository):
    with pytest.raises(StoreError, match="more than 2 files"):
        read_folder(repository, limits=FolderLimits(files=2))
    with pytest.raises(StoreError, match="more than 100 bytes of text"):
        read_folder(repository, limits=FolderLimits(total_bytes=100))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no text that could be read"):
        read_folder(tmp_path / "empty")
    with pytest.raises(StoreError, match="is no folder"):
        read_folder(tmp_path / "gone")


def test_a_repository_is_cloned_without_history(repository, tmp_path):
    (repository / "README.md").write_text("# Newer\n\nwords")
    git(repository, "commit", "-q", "-a", "-m", "y")
    reading = read_repository(f"file://{repository}", limits=LIMITS)
    commit = git(repository, "rev-parse", "HEAD")
    assert reading.paper.id == f"repository:{str(repository).strip('/')}@{commit}"
    assert reading.paper.url == f"file://{repository}"
    assert "Newer" in {chunk.title for chunk in reading.chunks}
    assert not any("door" in chunk.locator for chunk in reading.chunks if "hostname" not in chunk.body)
    with pytest.raises(StoreError, match="cannot be cloned: git clone"):
        read_repository(f"file://{tmp_path}/gone")


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("https://github.com/a-b/c.d", ("https://github.com/a-b/c.d", "a-b/c.d", "")),
        ("https://www.github.com/a/b.git", ("https://github.com/a/b", "a/b", "")),
        ("git@github.com:a/b.git", ("https://github.com/a/b", "a/b", "")),
        ("github:a/b", ("https://github.com/a/b", "a/b", "")),
        ("https://github.com/a/b/tree/exp/H100/mar8", ("https://github.com/a/b", "a/b", "exp/H100/mar8")),
        ("https://git.example/x/y.git", ("https://git.example/x/y.git", "git.example/x/y", "")),
        ("file:///srv/r", ("file:///srv/r", "srv/r", "")),
        ("https://github.com/a", None),
        ("https://github.com/a/b/issues/3", None),
        ("https://example.org/a", None),
        ("ext::sh -c evil", None),
        ("--upload-pack=evil", None),
    ],
)
def test_addresses(target, found):
    assert clone_address(target) == found
