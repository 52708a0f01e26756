"""What a log of pytest says of each test, read by SWE-bench's rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum


class Outcome(StrEnum):
    """What pytest's summary (`-rA`) or verbose line says of one test."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    ERROR = "ERROR"
    SKIPPED = "SKIPPED"
    XFAIL = "XFAIL"
    XPASS = "XPASS"


_NAMES = "|".join(Outcome)
_SUMMARY = re.compile(rf"^({_NAMES})\s+(\S.*)$")
_VERBOSE = re.compile(rf"^(\S.*?::.*?) ({_NAMES})(?: \(.*\))?\s*(?:\[ *\d+%\])?$")

LINES = rf"^({_NAMES})[[:space:]]|::.* ({_NAMES})( |$)"
"""The lines that `outcomes` reads, as an extended regular expression of grep: logs can have megabytes."""

_BAD = (Outcome.FAILED, Outcome.ERROR)


def outcomes(log: str) -> dict[str, Outcome]:
    """Return the outcome of every test id that the log names; a failure is never hidden by another line.

    Summary lines name all tests but the skipped ones, which pytest folds into places (`SKIPPED [2] a.py:3`);
    those are taken from the lines of `-v`.
    """
    found: dict[str, Outcome] = {}
    for line in log.splitlines():
        if match := _SUMMARY.match(line):
            name, test = Outcome(match[1]), match[2].strip()
            test = _without_reason(test) if name is not Outcome.PASSED else test
        elif match := _VERBOSE.match(line):
            test, name = match[1], Outcome(match[2])
        else:
            continue
        if found.get(test) not in _BAD or name in _BAD:
            found[test] = name
    return found


def _without_reason(test: str) -> str:
    """Cut ` - reason`; parameters may hold a dash themselves, so brackets must be balanced before it."""
    start = 0
    while (cut := test.find(" - ", start)) >= 0:
        if test.count("[", 0, cut) <= test.count("]", 0, cut):
            return test[:cut]
        start = cut + 3
    return test


def outcome_of(test: str, found: Mapping[str, Outcome]) -> Outcome | None:
    """Look one id up; None if the log does not speak of it, or not with one voice.

    The ids of the records end at the first blank, so an id with more `[` than `]` is a prefix: it counts if all
    the tests that it may mean came out alike.
    """
    if test in found:
        return found[test]
    if test.count("[") <= test.count("]"):
        return None
    alike = {outcome for name, outcome in found.items() if name.startswith(test)}
    return alike.pop() if len(alike) == 1 else None


def grade(
    log: str, exit_code: int, fail_to_pass: Iterable[str], pass_to_pass: Iterable[str]
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Return, for the tests that must pass now and those that must still pass, whether they do.

    A skipped test of the first kind fails, one of the second kind passes. An expected failure passes; a test that
    the log does not name fails. The log must agree with the exit code (0: all well, 1: some failed): if it names no
    failure but the command failed, or if the tests did not run to their end, then it is not believed and all fail.
    """
    found = outcomes(log)
    believed = exit_code == 0 or (exit_code == 1 and any(outcome in _BAD for outcome in found.values()))
    now = (Outcome.PASSED, Outcome.XFAIL)
    still = (*now, Outcome.SKIPPED)
    return (
        {test: believed and outcome_of(test, found) in now for test in fail_to_pass},
        {test: believed and outcome_of(test, found) in still for test in pass_to_pass},
    )
