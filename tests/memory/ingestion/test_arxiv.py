import gzip

import pytest

from looper.errors import ConfigError, StoreError
from looper.memory.ingestion.arxiv import Arxiv, arxiv_id
from looper.memory.rows import Origin
from tests.memory.ingestion.sources import entry, new_feed, old_feed, pdf, tarball

PAPER = rb"""\documentclass{article}
\begin{document}
\begin{abstract}Marked up.\end{abstract}
\section{Gates}
Gates help small models.
\input{more}
\end{document}
"""


@pytest.fixture
def arxiv(server, fetcher):
    return Arxiv(fetcher, site=server.url)


def known(server, feed=new_feed):
    server.answers["/api/query"] = [(200, feed(entry("2002.05202v2", "On gates")))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2002.05202", "2002.05202"),
        (" arXiv:2002.05202v3 ", "2002.05202v3"),
        ("arxiv:cs/0112017", "cs/0112017"),
        ("math.GT/0309136v1", "math.GT/0309136v1"),
        ("https://arxiv.org/abs/2002.05202v1", "2002.05202v1"),
        ("http://www.arxiv.org/pdf/2002.05202.pdf", "2002.05202"),
        ("https://export.arxiv.org/src/cs/0112017", "cs/0112017"),
        ("https://arxiv.org/html/2002.05202v1/", "2002.05202v1"),
        ("https://arxiv.org/list/cs.LG/new", ""),
        ("https://arxiv.org.evil.net/abs/2002.05202", ""),
        ("0704.0001", "0704.0001"),
        ("202.05202", ""),
        ("2002.05202v0", ""),
        ("2002.05202 and more", ""),
        ("", ""),
    ],
)
def test_identifiers_are_recognised(text, found):
    assert arxiv_id(text) == found


@pytest.mark.parametrize("feed", [old_feed, new_feed])
def test_a_paper_comes_from_its_source(server, arxiv, feed):
    known(server, feed)
    server.answers["/src/2002.05202v2"] = [
        (200, tarball({"a/main.tex": PAPER, "a/more.tex": b"More words.", "a/f.png": b"\x00"}))
    ]
    paper, chunks = arxiv.paper("2002.05202", scope="nanochat")
    assert (paper.id, paper.origin, paper.version) == ("arxiv:2002.05202v2", Origin.ARXIV, "v2")
    assert (paper.title, paper.authors, paper.scope) == ("On gates", ("Ann Author", "Bo Bee"), "nanochat")
    assert paper.url == "https://arxiv.org/abs/2002.05202v2"
    assert [(c.locator, c.body) for c in chunks] == [
        ("Abstract", "We try things."),
        ("a/main.tex:5-5 Gates", "Gates help small models.\nMore words."),
    ]
    assert arxiv.paper("2002.05202", scope="nanochat") == (paper, chunks)
    assert server.paths == ["/api/query?id_list=2002.05202&max_results=1", "/src/2002.05202v2"]


def test_one_gzipped_file_in_latin_1(server, arxiv):
    known(server)
    server.answers["/src/2002.05202v2"] = [(200, gzip.compress(PAPER.replace(b"Gates help", b"Caf\xe9s help")))]
    assert "Cafés help" in arxiv.paper("2002.05202")[1][1].body


@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_a_pdf_as_source(server, arxiv, wrap):
    known(server)
    server.answers["/src/2002.05202v2"] = [(200, wrap(pdf("Gates help.")))]
    assert arxiv.paper("2002.05202")[1][1].locator == "2002.05202v2.pdf page 1"


@pytest.mark.parametrize(
    "source", [(403, b"denied"), (200, b"<html>no source</html>"), (200, tarball({"withdrawn.txt": b"Gone."}))]
)
def test_the_pdf_is_read_where_there_is_no_source(server, arxiv, source):
    known(server)
    server.answers |= {"/src/2002.05202v2": [source], "/pdf/2002.05202v2": [(200, pdf("Gates help."))]}
    assert [c.body for c in arxiv.paper("2002.05202")[1]] == ["We try things.", "Gates help."]


def test_neither_source_nor_pdf_is_an_error(server, arxiv):
    known(server)
    with pytest.raises(StoreError, match=r"neither source nor PDF of 2002\.05202v2 \(status 404 and 404\)"):
        arxiv.paper("2002.05202")


def test_a_source_that_leads_out_is_refused_and_not_passed_over(server, arxiv):
    known(server)
    server.answers["/src/2002.05202v2"] = [(200, tarball({"../x.tex": PAPER}))]
    with pytest.raises(StoreError, match=r"its entry '\.\./x\.tex' leads out"):
        arxiv.paper("2002.05202")


@pytest.mark.parametrize("data", [old_feed(total=1), new_feed(total=0)])
def test_an_unknown_paper_is_an_error(server, arxiv, data):
    server.answers["/api/query"] = [(200, data)]
    with pytest.raises(StoreError, match=r"arXiv knows no paper '2999\.99999'"):
        arxiv.paper("2999.99999")


def test_a_refusal_gives_arxivs_reason(server, arxiv):
    error = "<entry><id>x/api/errors</id><title>Error</title><summary>bad id</summary></entry>"
    server.answers["/api/query"] = [(400, new_feed(error))]
    with pytest.raises(StoreError, match="refused the question: bad id"):
        arxiv.entry("1234.56789")
    server.answers["/api/query"] = [(403, b"blocked")]
    with pytest.raises(StoreError, match="status 403"):
        arxiv.entry("1234.56780")


def page(start, count, total):
    return new_feed(*(entry(f"2001.{n:05d}v1") for n in range(start, start + count)), total=total, start=start)


def test_a_search_goes_over_pages_to_its_end(server, arxiv):
    server.answers["/api/query"] = [(200, page(0, 100, 130)), (200, page(100, 30, 130))]
    found = [one.id for one in arxiv.search("ti:muon", limit=500)]
    assert found == [f"2001.{n:05d}" for n in range(130)]
    assert server.paths == [
        "/api/query?search_query=ti%3Amuon&start=0&max_results=100",
        "/api/query?search_query=ti%3Amuon&start=100&max_results=100",
    ]
    assert server.requests[1][1] - server.requests[0][1] >= 3.0


def test_a_search_ends_at_its_limit_and_at_an_empty_page(server, arxiv):
    server.answers["/api/query"] = [(200, page(0, 7, 50))]
    assert len(list(arxiv.search("a", limit=5))) == 5
    server.answers["/api/query"] = [(200, page(0, 100, 500)), (200, page(100, 0, 500))]
    assert len(list(arxiv.search("b", limit=300))) == 100
    with pytest.raises(ConfigError, match="30,000"):
        list(arxiv.search("c", limit=30_001))


@pytest.mark.network
def test_arxiv_itself(tmp_path):
    from looper.memory.ingestion.fetching import Fetcher

    paper, chunks = Arxiv(Fetcher(cache=tmp_path)).paper("2002.05202v1")
    assert paper.id == "arxiv:2002.05202v1" and "GLU" in paper.title
    assert any("SwiGLU" in chunk.body for chunk in chunks)
