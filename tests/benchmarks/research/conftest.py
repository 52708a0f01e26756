"""One workspace for all judged runs of a worker."""

from __future__ import annotations

import pytest

from looper.workspaces.local import LocalWorkspace


@pytest.fixture(scope="session")
def workspace() -> LocalWorkspace:
    return LocalWorkspace()
