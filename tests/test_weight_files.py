"""Weight files are told apart by their content, wherever they differ."""

import hashlib

import pytest

from looper import weight_files
from looper.weight_files import file_digest


def test_a_small_file_is_hashed_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    assert file_digest(tmp_path / "a") == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("place", [0, 8, 40, 71, 99, 127])
def test_a_matrix_that_changed_anywhere_in_a_large_file_is_seen(tmp_path, monkeypatch, place):
    for name, value in (("WHOLE", 64), ("EDGE", 8), ("STRIDE", 16), ("BLOCK", 2)):
        monkeypatch.setattr(weight_files, name, value)
    before = bytearray(range(128))
    after = bytearray(before)
    after[place : place + 16] = b"x" * len(after[place : place + 16])
    for name, data in (("a", before), ("b", after), ("c", before), ("d", before + b"x")):
        (tmp_path / name).write_bytes(data)
    a, b, c, d = (file_digest(tmp_path / name) for name in "abcd")
    assert a == c and len({a, b, d}) == 3
