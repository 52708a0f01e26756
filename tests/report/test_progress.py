import io

from rich.console import Console

from looper.report.progress import Progress


def test_plain_lines_are_few(sessions):
    stream = io.StringIO()
    with Progress(Console(file=stream, width=80)) as progress:
        progress.phase("probe base", total=30, done=10, resolved=4)
        for _, _, episode in sessions[:20]:
            progress.done(episode)
        progress.note("train loss 0.02")
        progress.phase("probe adapted", total=1)
    lines = stream.getvalue().splitlines()
    resolved = 4 + sum(episode.resolved for _, _, episode in sessions[:20])
    assert lines[0] == "probe base: 30 sessions, 10 already there"
    assert lines[1] == "train loss 0.02"
    assert lines[2].startswith("probe base: 30 of 30 done in ")
    assert lines[2].endswith(f"{resolved} resolved")
    assert len(lines) == 5


def test_a_long_phase_speaks_now_and_then(sessions):
    stream = io.StringIO()
    with Progress(Console(file=stream, width=80), quiet_seconds=0.0) as progress:
        progress.phase("work", total=2)
        progress.done(sessions[0][2])
    assert "work: 1 of 2, " in stream.getvalue()


def test_a_terminal_gets_a_bar(sessions):
    stream = io.StringIO()
    with Progress(Console(file=stream, width=100, force_terminal=True)) as progress:
        progress.phase("probe [base]", total=2)
        progress.done(sessions[0][2])
        progress.done(sessions[1][2])
    assert "probe [base]" in stream.getvalue()
    assert "2/2" in stream.getvalue()
