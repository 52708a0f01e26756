import gzip
import io
import tarfile

import pytest

from looper.errors import StoreError
from looper.memory.ingestion.archives import Limits, unpack
from tests.memory.ingestion.sources import pdf, tarball


def test_what_arxiv_sends():
    files = {"main.tex": b"a", "./figures/x.tex": b"b"}
    assert unpack(tarball(files), "p") == {"main.tex": b"a", "figures/x.tex": b"b"}
    assert unpack(tarball(files, compress=False), "p") == {"main.tex": b"a", "figures/x.tex": b"b"}
    assert unpack(gzip.compress(b"\\documentclass") + gzip.compress(b"{x}"), "p.tex") == {
        "p.tex": b"\\documentclass{x}"
    }
    assert unpack(pdf("text"), "p") == {"p.pdf": pdf("text")}
    assert unpack(gzip.compress(pdf("text")), "p") == {"p.pdf": pdf("text")}


@pytest.mark.parametrize("path", ["../evil.tex", "a/../../evil", "/etc/passwd", "C:evil", "..\\evil", "\\evil"])
def test_paths_that_lead_out_are_refused_by_name(path):
    with pytest.raises(StoreError, match="refused: its entry") as error:
        unpack(tarball({"good.tex": b"", path: b"x"}), "p")
    assert repr(path) in str(error.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind):
    info = tarfile.TarInfo("door")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(StoreError, match=r"'door' is (a link to '/etc/passwd'|neither)"):
        unpack(tarball({"a.tex": b""}, extra=[info]), "p")


def test_bombs_are_refused_before_they_are_unpacked():
    with pytest.raises(StoreError, match="unpacks to more than 1,048,576 bytes"):
        unpack(gzip.compress(b"\0" * 20_000_000), "p", limits=Limits(ratio=10))
    with pytest.raises(StoreError, match="unpacks to more than"):
        unpack(gzip.compress(b"\0" * 30_000_000), "p")
    small = Limits(entry_bytes=10, total_bytes=30_000, entries=3)
    with pytest.raises(StoreError, match="'big' has 11 bytes, more than 10"):
        unpack(tarball({"big": b"x" * 11}), "p", limits=small)
    with pytest.raises(StoreError, match="more than 3 entries"):
        unpack(tarball({str(n): b"" for n in range(4)}), "p", limits=small)
    with pytest.raises(StoreError, match="more than 25 bytes up to entry 'c'"):
        unpack(tarball({n: b"x" * 10 for n in "abc"}, compress=False), "p", limits=Limits(total_bytes=25))


def test_a_sparse_entry_cannot_claim_a_terabyte():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**12), "GNU.sparse.name": "sparse"}
        archive.addfile(info)
    with pytest.raises(StoreError, match="'sparse' is neither a plain file"):
        unpack(out.getvalue(), "p")


@pytest.mark.parametrize(
    "data",
    [tarball({"a": b"x" * 5000})[:-30], gzip.compress(b"hello")[:-2] + b"!!", b"\x1f\x8bnonsense"],
    ids=["cut", "spoilt", "nonsense"],  # packed bytes hold the time, so they cannot name a test
)
def test_damage_is_named(data):
    with pytest.raises(StoreError, match=r"^p (is damaged|ends before)"):
        unpack(data, "p")


@pytest.mark.parametrize("data", [b"", b"<html>", b"PK\x03\x04"])
def test_other_formats_are_named(data):
    with pytest.raises(StoreError, match="no gzip, tar or PDF"):
        unpack(data, "p")


def test_empty_streams_by_the_thousand_are_refused_before_they_take_hours():
    with pytest.raises(StoreError, match="more than 5,000 gzip streams"):
        unpack(gzip.compress(b"") * 6000, "p")


@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_headers_of_headers_are_damage(kind):
    body = b"ab\0" if kind == b"L" else b"11 path=ab\n"
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, len(body)
    header = info.tobuf(tarfile.USTAR_FORMAT) + body.ljust(512, b"\0")
    with pytest.raises(StoreError, match="p is damaged"):
        unpack(header * 3000 + tarball({"a.tex": b"x"}, compress=False), "p")
