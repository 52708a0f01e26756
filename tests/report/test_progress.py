import io

from rich.console import Console

from looper.report.progress import Progress


def test_plain_lines_are_few(sessions):
    stream = io.StringIO()
    with Progress(Console(file=stream, width=80)) as progress:
        progress.phase("probe base", total=20)
        for _, _, episode in sessions[:20]:
            progress.done(episode)
        progress.phase("probe adapted", total=1)
    lines = stream.getvalue().splitlines()
    resolved = sum(episode.resolved for _, _, episode in sessions[:20])
    assert lines[0] == "probe base: 20 sessions"
    assert lines[1].startswith("probe base: 20 of 20 done in ")
    assert lines[1].endswith(f"{resolved} resolved")
    assert len(lines) == 4


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
