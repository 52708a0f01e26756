import pytest

from looper.errors import StoreError
from looper.memory.ingestion.atom import read_feed
from tests.memory.ingestion.sources import entry, new_feed, old_feed


@pytest.mark.parametrize(("feed", "old"), [(old_feed, True), (new_feed, False)])
def test_both_shapes_say_the_same(feed, old):
    page = read_feed(feed(entry("2002.05202v1", "GLU  Variants\n Improve", old=old), total=31, start=7), "arXiv")
    assert (page.total, page.start) == (31, 7)
    one = page.entries[0]
    assert (one.id, one.version, one.title, one.summary) == (
        "2002.05202",
        "v1",
        "GLU Variants Improve",
        "We try things.",
    )
    assert one.authors == ("Ann Author", "Bo Bee")
    assert (one.primary_category, one.categories, one.comment) == ("cs.LG", ("cs.LG", "stat.ML"), "4 pages")
    assert one.published == "2020-02-12T00:00:00Z" and one.doi == ""


def test_an_old_identifier():
    one = read_feed(old_feed(entry("cs.AI/0112017v3", old=True)), "arXiv").entries[0]
    assert (one.id, one.version) == ("cs.AI/0112017", "v3")


@pytest.mark.parametrize("data", [old_feed(total=1), new_feed(total=0)])
def test_an_unknown_identifier_has_no_entry_in_either_shape(data):
    assert read_feed(data, "arXiv").entries == ()


def test_errors_come_as_entries():
    error = (
        "<entry><id>http://arxiv.org/api/errors#incorrect_id_format_for_1234</id><title>Error</title>"
        "<summary>incorrect id format for 1234</summary></entry>"
    )
    with pytest.raises(StoreError, match="arXiv refused the question: incorrect id format for 1234"):
        read_feed(old_feed(error), "arXiv")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "malformed XML"),
        (b"<html><body>Rate exceeded.</body></html>", "<html> where an Atom feed"),
        (new_feed(entry("2002.05202v1"))[:-20], "malformed XML"),
        (new_feed(entry("nonsense")), "an entry with the id 'https://arxiv.org/abs/nonsense'"),
        (new_feed(entry("2002.05202v1", title="")), "both are needed"),
        (new_feed(total="many"), "totalResults 'many'"),
        (b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><feed>&d;</feed>', "document type"),
        ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "c">]><a/>'.encode("utf-16"), "document type"),
    ],
)
def test_what_is_no_feed_is_named(data, words):
    with pytest.raises(StoreError, match=words):
        read_feed(data, "arXiv")
