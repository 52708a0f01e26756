"""What all tests share: one thread for torch, and the folder of benchmark records where there is one."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent

EXCUSED = {"gpu", "docker", "network", "slow", "needs_shared_data"}
"""Markers whose tests may be skipped in CI; any other skip there is a failure."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public benchmark records beside the checkout; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs_shared_data: no benchmark records beside this checkout")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, turn a skip without an excuse into a failure: a check that did not run has not passed."""
    report = yield
    if report.skipped and os.environ.get("CI") and not EXCUSED & {mark.name for mark in item.iter_markers()}:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI without one of the markers {sorted(EXCUSED)}: {report.longrepr}"
    return report
