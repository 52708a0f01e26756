"""Logs of pytest are read by SWE-bench's rules."""

import subprocess

import pytest

from looper.benchmarks.pytest_log import LINES, Outcome, grade, outcome_of, outcomes

LOG = """\
============================= test session starts ==============================
tests/test_a.py::test_one PASSED                                         [ 20%]
tests/test_a.py::test_two[a - b] FAILED                                  [ 40%]
tests/test_a.py::test_three SKIPPED (no display)                         [ 60%]
tests/test_a.py::test_four[1 x-2] PASSED                                 [ 80%]
tests/test_a.py::test_four[1 y-2] PASSED                                 [ 90%]
tests/test_a.py::test_five[1 x] PASSED                                   [ 95%]
tests/test_a.py::test_five[1 y] FAILED                                   [100%]
PASSED [100%]
=========================== short test summary info ============================
PASSED tests/test_a.py::test_one
PASSED tests/test_a.py::test_four[1 x-2]
PASSED tests/test_a.py::test_four[1 y-2]
PASSED tests/test_a.py::test_five[1 x]
SKIPPED [1] tests/test_a.py:12: no display
XFAIL tests/test_a.py::test_six - known
FAILED tests/test_a.py::test_two[a - b] - assert 1 == 2
FAILED tests/test_a.py::test_five[1 y] - assert 1 == 2
ERROR tests/test_b.py
"""
TEST = "tests/test_a.py::"


def test_a_log_gives_one_outcome_per_test():
    found = outcomes(LOG)
    assert found[f"{TEST}test_one"] is Outcome.PASSED
    assert found[f"{TEST}test_two[a - b]"] is Outcome.FAILED
    assert found[f"{TEST}test_three"] is Outcome.SKIPPED
    assert found[f"{TEST}test_six"] is Outcome.XFAIL
    assert found["tests/test_b.py"] is Outcome.ERROR


def test_a_later_pass_does_not_hide_a_failure():
    assert outcomes("ERROR a.py::t - teardown\nPASSED a.py::t\n") == {"a.py::t": Outcome.ERROR}


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("test_four[1", Outcome.PASSED),
        ("test_five[1", None),
        ("test_fo", None),
        ("test_nowhere[1", None),
    ],
)
def test_a_truncated_id_counts_if_its_candidates_agree(test, expected):
    assert outcome_of(TEST + test, outcomes(LOG)) is expected


def test_skipped_tests_fail_to_be_fixed_but_do_not_break():
    must, still = grade(LOG, 1, [f"{TEST}test_three"], [f"{TEST}test_three", f"{TEST}test_six", f"{TEST}missing"])
    assert must == {f"{TEST}test_three": False}
    assert still == {f"{TEST}test_three": True, f"{TEST}test_six": True, f"{TEST}missing": False}


@pytest.mark.parametrize(("code", "believed"), [(0, True), (1, False), (3, False), (-1, False), (139, False)])
def test_a_log_without_failures_is_believed_only_if_the_command_succeeded(code, believed):
    must, still = grade("PASSED a.py::t\nPASSED a.py::u\n", code, ["a.py::t"], ["a.py::u"])
    assert must == {"a.py::t": believed}
    assert still == {"a.py::u": believed}


def test_grep_keeps_all_lines_that_are_read(tmp_path):
    (tmp_path / "log").write_text(LOG + "noise\n" * 3)
    kept = subprocess.run(["grep", "-aE", LINES, "log"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert outcomes(kept.stdout) == outcomes(LOG)
    assert "noise" not in kept.stdout
