"""Archives from elsewhere, read into memory: nothing is written, and no entry may point anywhere."""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from dataclasses import dataclass

from looper.errors import StoreError

PDF = b"%PDF-"
GZIP = b"\x1f\x8b"
_PLAIN = 1 << 20
"""Bytes below which a ratio says nothing: a short text of one letter is no attack."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold at most; whoever goes beyond is refused, not cut."""

    entries: int = 5_000
    entry_bytes: int = 50_000_000
    total_bytes: int = 150_000_000
    ratio: int = 200
    """Most bytes that one compressed byte may become, counted over everything unpacked."""


def unpack(data: bytes, name: str, *, limits: Limits | None = None) -> dict[str, bytes]:
    """Return the files of a tar archive, gzipped or not, or the one file of a gzip stream under the name `name`.

    A PDF is returned as it is, as `name.pdf`. Raises StoreError, naming the entry, for links, devices, sparse files,
    absolute paths, `..`, damage, and sizes, counts and ratios beyond the limits.
    """
    limits = limits or Limits()
    if data.startswith(PDF):
        return {f"{name}.pdf": data}
    plain = _inflated(data, name, limits) if data.startswith(GZIP) else data
    if plain.startswith(PDF):
        return {f"{name}.pdf": plain}
    if _is_tar(plain):
        return _members(plain, name, limits)
    if data.startswith(GZIP):
        return {name: plain}
    raise StoreError(f"{name} is no gzip, tar or PDF file (it begins {data[:16]!r}); give it as one of these")


def _inflated(data: bytes, name: str, limits: Limits) -> bytes:
    """Unpack a gzip stream of one or more members, never much further than the limits."""
    most = min(limits.total_bytes, max(_PLAIN, limits.ratio * len(data)))
    out = bytearray()
    rest = data
    members = 0
    while rest.startswith(GZIP):
        members += 1
        if members > limits.entries:  # each one copies the rest, so empty ones by the million would take hours
            raise StoreError(f"{name} has more than {limits.entries:,} gzip streams; unpack it and give the folder")
        stream = zlib.decompressobj(wbits=31)
        try:
            out += stream.decompress(rest, most + 1 - len(out))
        except zlib.error as error:
            raise StoreError(f"{name} is damaged ({error}); fetch it again") from error
        if len(out) > most:
            raise StoreError(
                f"{name} unpacks to more than {most:,} bytes from {len(data):,}; the limits are {limits.total_bytes:,} "
                f"bytes and {limits.ratio} times its size. Unpack it yourself and give the folder"
            )
        if not stream.eof:
            raise StoreError(f"{name} ends before its gzip stream does; fetch it again")
        rest = stream.unused_data
    return bytes(out)


def _is_tar(data: bytes) -> bool:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:"):
            return bool(data)
    except (tarfile.TarError, ValueError):
        return False
    except RecursionError:  # headers of headers by the thousand; reading the entries says so
        return True


def _members(data: bytes, name: str, limits: Limits) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive, 1):
                if count > limits.entries:
                    raise StoreError(f"{name} has more than {limits.entries} entries ({member.name!r} is one too many)")
                _check(member, name, limits)
                if member.isdir():
                    continue
                total += member.size
                if total > limits.total_bytes:
                    raise StoreError(f"{name} holds more than {limits.total_bytes:,} bytes up to entry {member.name!r}")
                stream = archive.extractfile(member)
                files[_tidy(member.name)] = stream.read() if stream else b""
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise StoreError(f"{name} is damaged ({error}); fetch it again") from error
    return files


def _tidy(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _check(member: tarfile.TarInfo, name: str, limits: Limits) -> None:
    """Refuse an entry that is not a plain file or folder inside the archive."""
    path = member.name
    flaw = ""
    if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", path):
        flaw = "has an absolute path"
    elif ".." in re.split(r"[/\\]", path) or "\x00" in path:
        flaw = "leads out of the archive"
    elif member.issym() or member.islnk():
        flaw = f"is a link to {member.linkname!r}"
    elif member.issparse() or not (member.isfile() or member.isdir()):
        flaw = "is neither a plain file nor a folder"
    elif member.size > limits.entry_bytes:
        flaw = f"has {member.size:,} bytes, more than {limits.entry_bytes:,}"
    if flaw:
        raise StoreError(f"{name} is refused: its entry {path!r} {flaw}. Unpack what you trust, and give the folder")
