"""Judging repair tasks: hidden files go into the box, a command runs, and its signed lines become a verdict."""

from __future__ import annotations

import re
import time

from looper.protocols import Box
from looper.records import CommandResult, Task, Tests, Verdict

NOT_STARTED = frozenset({126, 127})
"""Exit codes of a shell that could not start a command."""

_TOKEN = re.compile(r'^TOKEN = "([0-9a-f]{16,})"$', re.MULTILINE)


def token_of(tests: Tests) -> str:
    """Return the secret that signs the result lines.

    It is the line `TOKEN = "<hex>"` of a hidden file. Raises ValueError if there is none.
    """
    for text in tests.files.values():
        found = _TOKEN.search(text)
        if found:
            return found[1]
    listed = ", ".join(tests.files) or "no files"
    raise ValueError(f'no hidden file has a line TOKEN = "<16 or more hex digits>"; looked in {listed}')


def parse_results(output: str, token: str) -> dict[str, bool]:
    """Return test id -> passed from the lines `PASS id` / `FAIL id` between two lines with the token.

    Only the last signed block counts, and only if it is complete: what the repository's own code prints, before it
    or without the token, is ignored.
    """
    lines = [line.strip() for line in output.splitlines()]
    marks = [i for i, line in enumerate(lines) if line == token]
    if len(marks) < 2:
        return {}
    results: dict[str, bool] = {}
    for line in lines[marks[-2] + 1 : marks[-1]]:
        word, _, name = line.partition(" ")
        if word in ("PASS", "FAIL") and name:
            results[name] = word == "PASS" and results.get(name, True)
    return results


def judge_repair(task: Task, box: Box) -> Verdict:
    """Run a task's hidden tests in a fresh box that holds the agent's patch.

    Resolved means that all FAIL_TO_PASS and all PASS_TO_PASS tests pass. A test without a result has failed: a
    time-out or lost output is the patch's doing. A command that cannot be started is an error of the machine.
    """
    token = token_of(task.tests)
    begun = time.monotonic()
    for path, text in task.tests.files.items():
        box.write(path, text)
    result = box.run(task.tests.command, seconds=task.tests.seconds)
    results = {} if result.timed_out else parse_results(result.output, token)
    fail_to_pass = {name: results.get(name, False) for name in task.tests.fail_to_pass}
    pass_to_pass = {name: results.get(name, False) for name in task.tests.pass_to_pass}
    error = _not_started(task.tests.command, result) if not results else ""
    return Verdict(
        resolved=not error and all(fail_to_pass.values()) and all(pass_to_pass.values()),
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        error=error,
        seconds=time.monotonic() - begun,
    )


def _not_started(command: str, result: CommandResult) -> str:
    """Return why a command did not start, '' if it did."""
    if result.timed_out or result.exit_code not in NOT_STARTED:
        return ""
    tail = result.output.strip()[-200:]
    return f"the test command {command!r} could not be started (exit code {result.exit_code}): {tail}"
