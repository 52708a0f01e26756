import os

import pytest

from looper.errors import ConfigError, StoreError
from looper.memory.ingestion import ingest
from looper.memory.ingestion.arxiv import Arxiv
from looper.memory.rows import Origin
from tests.memory.ingestion.sources import entry, git, new_feed, pdf, tarball


def one(target, **options):
    [(paper, chunks)] = ingest(str(target), **options)
    return paper, chunks


@pytest.mark.parametrize("target", ["2002.05202", "arxiv:2002.05202v1", "https://arxiv.org/abs/2002.05202"])
def test_arxiv(server, fetcher, target):
    server.answers = {
        "/api/query": [(200, new_feed(entry("2002.05202v1")))],
        "/src/2002.05202v1": [(200, pdf("Text."))],
    }
    heard = []
    paper, chunks = one(target, arxiv=Arxiv(fetcher, site=server.url), scope="s", notice=heard.append)
    assert (paper.id, paper.scope, len(chunks)) == ("arxiv:2002.05202v1", "s", 2)
    assert heard == ["arxiv:2002.05202v1: 2 passages"]


def test_a_folder_and_the_papers_in_it(tmp_path):
    (tmp_path / "notes.md").write_text("# Notes\n\nWords.")
    (tmp_path / "a.pdf").write_bytes(pdf("Text.", title="A"))
    (tmp_path / "b.pdf").write_bytes(b"%PDF-broken")
    heard = []
    found = list(ingest(str(tmp_path), notice=heard.append))
    assert [paper.id for paper, _ in found] == [f"folder:{tmp_path}", f"file:{tmp_path}/a.pdf"]
    assert heard[0] == f"folder:{tmp_path}: 1 passages; skipped: 2 of other kinds"
    assert heard[2].startswith("skipped: b.pdf cannot be read as a PDF")
    (tmp_path / "notes.md").unlink()
    assert [paper.title for paper, _ in ingest(str(tmp_path))] == ["A"]


def test_a_repository_by_its_address(tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "README.md").write_text("Words.")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x")
    assert one(f"file://{folder}")[0].origin is Origin.REPOSITORY


@pytest.mark.parametrize(
    ("name", "data", "title", "locator"),
    [
        ("a.md", b"# Head\n\nWords.", "Head", "a.md:3-3 Head"),
        ("a.txt", b"Words.", "a.txt", "a.txt:1-1"),
        ("a.py", b"def f():\n    pass\n", "a.py", "a.py:1-2 f"),
        ("a.tex", b"\\title{T}\n\\begin{document}\n\\section{S}\nWords.\n\\end{document}", "T", "a.tex:4-4 S"),
        ("a.pdf", pdf("Words.", title="P"), "P", "a.pdf page 1"),
        (
            "a.tar.gz",
            tarball({"m.tex": b"\\documentclass{a}\n\\begin{document}\n\\section{S}\nWords."}),
            "a.tar.gz",
            "m.tex:4-4 S",
        ),
    ],
)
def test_files(tmp_path, name, data, title, locator):
    (tmp_path / name).write_bytes(data)
    paper, chunks = one(tmp_path / name, scope="s")
    assert (paper.id, paper.origin, paper.title, paper.scope) == (f"file:{tmp_path / name}", Origin.FILE, title, "s")
    assert chunks[0].locator == locator and len(paper.sha) == 64


def test_a_path_that_exists_wins_over_an_identifier_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2002.05202").write_text("Words.")
    assert one("2002.05202")[0].origin is Origin.FILE


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.bin", b"\x00", "a binary file"),
        ("a.txt", b"  \n", "holds no text"),
        ("a.tgz", tarball({"x.png": b"p"}), "no LaTeX paper"),
    ],
    ids=["binary", "blank", "packed"],  # packed bytes hold the time, so they cannot name a test
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StoreError, match=words):
        one(tmp_path / name)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("", "'' is empty"),
        ("  ", "is empty"),
        ("no/such/path", "neither an existing path"),
        ("https://github.com/a/b/pull/3", "an address inside a repository of GitHub"),
        ("https://arxiv.org/list/cs.LG/new", "an address of arXiv, but not of a paper"),
        ("https://example.org/paper.html", "an address of another site"),
    ],
)
def test_anything_else_is_an_error_that_says_what_can_be_given(target, words):
    with pytest.raises(ConfigError, match=words) as error:
        one(target)
    assert "an arXiv id or address" in str(error.value) and "a folder" in str(error.value)


def test_a_name_of_any_bytes_can_be_stored(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9.txt")
    file.write_text("words about gates")
    [(paper, _)] = ingest(str(file))
    assert paper.id.endswith("caf\ufffd.txt") and paper.title == "caf\ufffd.txt"
