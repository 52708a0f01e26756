"""Sources that tests make: PDF files, archives, git repositories, Atom feeds, a clock that only moves when asked."""

import gzip
import io
import subprocess
import tarfile
from xml.sax.saxutils import escape


class FakeClock:
    """A clock that stands still but for sleeping."""

    def __init__(self, now=1_700_000_000.0):
        self.time = now
        self.slept = []

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds


def pdf(*pages, title=""):
    """Return a PDF file with a line of text on each page; '' is a page without any."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        shown = " ".join(f"({line}) Tj 0 -14 Td" for line in text.split("\n")) if text else ""
        stream = f"BT /F1 12 Tf 20 700 Td {shown} ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) >>")
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += "".join(f"{offset:010d} 00000 n \n" for offset in offsets).encode()
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\n".encode()
    out += f"startxref\n{start}\n%%EOF\n".encode()
    return bytes(out)


def tarball(files, *, compress=True, extra=()):
    """Return a tar archive of path -> bytes; `extra` are TarInfo without contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return gzip.compress(out.getvalue()) if compress else out.getvalue()


def git(folder, *arguments, when=None):
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    if when is not None:
        environment |= {"GIT_AUTHOR_DATE": f"{when} +0000", "GIT_COMMITTER_DATE": f"{when} +0000"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def entry(identifier, title="A paper", summary="We try things.", old=False):
    site = "http" if old else "https"
    return (
        f"<entry><id>{site}://arxiv.org/abs/{identifier}</id><updated>2020-02-12T00:00:00Z</updated>"
        f"<published>2020-02-12T00:00:00Z</published><title>{escape(title)}</title>"
        f"<summary>  {escape(summary)}\n</summary>"
        "<author><name>Ann\n  Author</name></author><author><name>Bo Bee</name></author>"
        '<arxiv:comment xmlns:arxiv="http://arxiv.org/schemas/atom">4 pages</arxiv:comment>'
        '<arxiv:primary_category xmlns:arxiv="http://arxiv.org/schemas/atom" term="cs.LG"/>'
        f'<link href="{site}://arxiv.org/abs/{identifier}" rel="alternate" type="text/html"/>'
        f'<link title="pdf" href="{site}://arxiv.org/pdf/{identifier}" rel="related"/>'
        '<category term="cs.LG" scheme="http://arxiv.org/schemas/atom"/><category term="stat.ML"/></entry>'
    )


def old_feed(*entries, total=None, start=0):
    """A page in the shape that arXiv had until 2025: namespaces where they are used."""
    opensearch = 'xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">'
        '<link href="http://arxiv.org/api/query" rel="self"/><title type="html">ArXiv Query</title>'
        f"<opensearch:totalResults {opensearch}>{len(entries) if total is None else total}</opensearch:totalResults>"
        f"<opensearch:startIndex {opensearch}>{start}</opensearch:startIndex>{''.join(entries)}</feed>"
    ).encode()


def new_feed(*entries, total=None, start=0):
    """A page in today's shape: namespaces at the root, under prefixes of its own."""
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n"
        '<feed xmlns:os="http://a9.com/-/spec/opensearch/1.1/" xmlns:arxiv="http://arxiv.org/schemas/atom" '
        'xmlns="http://www.w3.org/2005/Atom"><id>https://arxiv.org/api/x</id><title>arXiv Query</title>'
        f"<os:itemsPerPage>50</os:itemsPerPage><os:totalResults>{len(entries) if total is None else total}"
        f"</os:totalResults><os:startIndex>{start}</os:startIndex>{''.join(entries)}</feed>"
    ).encode()
