"""Lines of campaigns while they run: they promise nothing of the runs that come after the last trial."""

from __future__ import annotations

import io

from rich.console import Console

from looper.report.campaign_progress import CampaignProgress


def test_the_final_runs_are_still_to_come_after_the_last_trial() -> None:
    stream = io.StringIO()
    progress = CampaignProgress(2, console=Console(file=stream))
    for number in (1, 2):
        progress.trial("memory-1", number, words="muon", fate="keep", score=3.5, best=3.5, quiet=True)
    first, last = stream.getvalue().splitlines()
    assert first.endswith("left, then the final runs")
    assert last == "memory-1 2: muon: 3.5000, keep; best 3.5000; 2 of 2 trials, the final runs are left"
