"""Judging repair tasks: hidden files go into the box, a command runs, and its signed lines become a verdict."""

from __future__ import annotations

import re
import shlex
import time
from hashlib import blake2b
from hmac import compare_digest

from looper.errors import WorkspaceError
from looper.protocols import Box
from looper.records import Task, Tests, Verdict

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
    """Return test id -> passed from the lines `PASS id` / `FAIL id` between `RESULTS` and their signature.

    The signature is a hash with the token as its key (BLAKE2b, RFC 7693), so that whoever reads the output learns
    nothing to sign with. What the repository's own code prints, before, after or between, makes no valid block.
    """
    lines = output.splitlines()
    begins = [i for i, line in enumerate(lines) if line == "RESULTS"]
    for end in reversed([i for i, line in enumerate(lines) if line.startswith("SIGNED ")]):
        begin = max((i for i in begins if i < end), default=end)
        block = lines[begin + 1 : end]
        signature = blake2b("\n".join(block).encode(), key=token.encode(), digest_size=32).hexdigest()
        if compare_digest(lines[end].encode(), f"SIGNED {signature}".encode()):
            results: dict[str, bool] = {}
            for word, _, name in (line.partition(" ") for line in block):
                if word in ("PASS", "FAIL") and name:
                    results[name] = word == "PASS" and results.get(name, True)
            return results
    return {}


def judge_repair(task: Task, box: Box) -> Verdict:
    """Run a task's hidden tests in a fresh box that holds the agent's patch.

    Resolved means that all FAIL_TO_PASS and all PASS_TO_PASS tests pass. A test without a result has failed: a
    time-out or lost output is the patch's doing. A command that cannot be started is an error of the machine.
    """
    token = token_of(task.tests)
    begun = time.monotonic()
    results: dict[str, bool] = {}
    error = _put(task.tests, box)
    if not error:
        result = box.run(task.tests.command, seconds=task.tests.seconds)
        results = {} if result.timed_out else parse_results(result.output, token)
        error = "" if results else _not_started(box)
    fail_to_pass = {name: results.get(name, False) for name in task.tests.fail_to_pass}
    pass_to_pass = {name: results.get(name, False) for name in task.tests.pass_to_pass}
    return Verdict(
        resolved=not error and bool(fail_to_pass) and all(fail_to_pass.values()) and all(pass_to_pass.values()),
        fail_to_pass=fail_to_pass,
        pass_to_pass=pass_to_pass,
        error=error,
        seconds=time.monotonic() - begun,
    )


def _put(tests: Tests, box: Box) -> str:
    """Write the hidden files over whatever a patch left in their place; return why that cannot be done."""
    for path, text in tests.files.items():
        try:
            box.write(path, text)
        except (OSError, WorkspaceError):
            box.run(f"rm -rf -- {shlex.quote(path)}", seconds=60.0)
            try:
                box.write(path, text)
            except (OSError, WorkspaceError) as error:
                return f"the hidden file {path} cannot be written: {error}"
    return ""


def _not_started(box: Box) -> str:
    """Return why not even an empty program starts, '' if it does: then lost results are the patch's doing."""
    result = box.run("python -I -S -c pass", seconds=60.0)
    return f"python does not start: {result.output.strip()[-200:]}" if result.exit_code else ""
