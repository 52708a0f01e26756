import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from looper.report import plot
from looper.report.page import page, together, write
from looper.report.sessions import LONGEST, kind_of, sample, shorten, visible

FACTS = {"run id": "pilot-1", "seeds": [0, 1], "configuration": {"strategy": {"lam": 100.0}}}
VOID = {"meta", "input", "br"}


class Outline(HTMLParser):
    """Checks that tags nest, and keeps tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def html(metrics, sessions):
    return page(metrics, facts=FACTS, sessions=sessions[::7], title="pilot <1>")


def test_the_page_is_whole_and_accessible(html, metrics, sessions):
    outline = Outline(html)
    assert together(metrics["verdict"]["sentence"]).replace("<", "&lt;") in html
    assert "<h1>pilot &lt;1&gt;</h1>" in html
    assert outline.all("html") == [{"lang": "en"}]
    assert len(outline.all("caption")) == len(outline.all("table")) == 3
    assert "Conduct on held-out tasks" in html and ">served<" not in html
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in outline.all("svg"))
    assert len([d for d in outline.all("details") if d.get("class") == "session"]) == len(sessions[::7])
    assert "pilot-1" in html
    assert "&#34;lam&#34;: 100.0" in html
    ids = {attrs["id"] for _, attrs in outline.tags if "id" in attrs}
    assert {link["href"].removeprefix("#") for link in outline.all("a")} <= ids


def test_the_page_shows_what_servers_took(base_only):
    served = {"prompt_tokens": 1200, "completion_tokens": 34, "cost": None}
    usage = {"base": {**base_only["usage"]["base"], "served": served}}
    html = page({**base_only, "usage": usage}, facts={})
    assert ">1,200 + 34<" in html and ">unknown<" in html and "Conduct on held-out tasks" not in html


def test_the_page_asks_nothing_of_the_network_and_runs_only_its_own_script(html):
    outline = Outline(html)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", html)
    assert not [tag for tag, attrs in outline.tags if attrs.keys() & {"src", "onclick", "onload"}]
    policy = next(m["content"] for m in outline.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_what_sessions_hold_is_text_never_markup(base_only, make_episode):
    hostile = "</pre></details><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\x1b[31m\u202eevil\ud800"
    episode = make_episode("bugs/<b>", "natural", "", "base", False, hostile=hostile)
    html = page(base_only, facts={"<i>": hostile}, sessions=[("base", 0, episode)])
    outline = Outline(html)
    assert len(outline.all("script")) == 1
    assert outline.all("img") == outline.all("i") == []
    assert "bugs/&lt;b&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert "\\u001b[31m\\u202eevil\\ud800" in html
    assert html.encode("utf-8")


def test_a_large_run_is_sampled_over_all_kinds_and_the_page_says_so(metrics, sessions):
    html = page(metrics, facts={}, sessions=sessions, session_bytes=60_000)
    shown = Outline(html).all("details")
    kinds = {(d["data-arm"], d["data-family"], d["data-result"]) for d in shown if "data-arm" in d}
    assert len(kinds) > 20
    assert re.search(rf"\d+ of {len(sessions)} sessions are shown, sampled", html)
    assert len(html.encode()) < 60_000 + 40_000


def test_the_page_stays_under_three_megabytes(metrics, sessions, make_episode):
    noisy = [
        (a, s, make_episode(e.task, e.family, e.world, a, e.resolved, hostile="<" * 50_000))
        for a, s, e in sessions[:150]
    ]
    assert len(page(metrics, facts=FACTS, sessions=noisy).encode()) < 3_000_000


def test_sampling_is_fair_and_in_order(sessions):
    chosen = sample(sessions, lambda i: 10, 300)
    assert len(chosen) == 30
    assert chosen == sorted(chosen)
    assert sample(sessions, lambda i: 10**9, 10) == []
    assert sample([], lambda i: 1, 10) == []


def test_a_run_without_learning_has_no_empty_plots(base_only):
    html = page(base_only, facts={})
    assert "Paired differences</figcaption>" not in html
    assert "Transcripts" not in html
    assert len(Outline(html).all("svg")) == 1


def test_plots_are_well_formed_and_told_in_words(metrics):
    drawn = [plot.rates(metrics), plot.differences(metrics), *(svg for _, svg in plot.curves(metrics["learning"]))]
    assert len(drawn) == 3
    for svg in drawn:
        root = ET.fromstring(str(svg))
        assert root.find("desc").text
        for node in root.iter():
            for key in ("x", "x1", "x2", "cx"):
                assert 0 <= float(node.get(key, 0)) <= plot.WIDTH
    assert "conventions, adapted: 9" in str(drawn[0])


def test_curves_are_found_wherever_the_histories_are():
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    found = plot.curves({"stages": [{"history": history}, {"history": ({"loss": 1.0},)}], "examples": 3})
    assert [name for name, _ in found] == ["stages 1"]


def test_text_is_shortened_in_the_middle_and_says_so():
    text = "a" * 10_000 + "end"
    assert shorten(text).endswith("end")
    assert "characters left out" in shorten(text)
    assert len(shorten(text)) < LONGEST + 60
    assert visible("a\tb\r\nc\x00") == "a\tb\nc\\u0000"
    assert [kind_of(line) for line in ("+++ b/x", "+x", "-x", "@@ 1", " x")] == ["file", "add", "del", "hunk", "same"]


def test_the_file_is_written_whole(tmp_path, html):
    write(tmp_path / "report" / "page.html", html)
    assert (tmp_path / "report" / "page.html").read_text(encoding="utf-8") == html
    assert len(list((tmp_path / "report").iterdir())) == 1
