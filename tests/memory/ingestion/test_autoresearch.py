"""A campaign is made here as autoresearch makes one: commits that stay, commits taken back, a table outside git."""

import math
from dataclasses import replace

import pytest

from looper.errors import ConfigError, StoreError
from looper.memory.ingestion.autoresearch import read_campaign
from looper.memory.ingestion.results_table import read_table
from looper.memory.rows import Decision, Status
from looper.memory.store import MemoryStore
from tests.memory.ingestion.sources import git

TRAIN = "DEPTH = 8\nTOTAL_BATCH_SIZE = 2**19\nMATRIX_LR = 0.04\n\ndef main():\n    print(DEPTH)\n"
START = 1_700_000_000


class Lab:
    """A repository, and the rows that its agent wrote."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        git(folder, "init", "-q", "-b", "autoresearch/mar8")
        (folder / ".gitignore").write_text("results.tsv\nrun.log\n")
        (folder / "prepare.py").write_text("TIME_BUDGET = 300\n")
        self.rows = ["commit\tval_bpb\tmemory_gb\tstatus\tdescription"]
        self.count = 0

    def commit(self, text):
        (self.folder / "train.py").write_text(text)
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-q", "--allow-empty", "-m", "try", when=START + 300 * self.count)
        self.count += 1
        return git(self.folder, "rev-parse", "--short=7", "HEAD")

    def row(self, *cells):
        self.rows.append("\t".join(cells))
        (self.folder / "results.tsv").write_text("\n".join(self.rows) + "\n")


@pytest.fixture
def lab(tmp_path):
    """Baseline, a kept change, a discarded one, a crash, a kept one."""
    lab = Lab(tmp_path / "lab")
    lab.row(lab.commit(TRAIN), "0.997900", "44.0", "keep", "baseline")
    lab.row(lab.commit(TRAIN.replace("0.04", "0.05")), "0.990000", "44.0", "keep", "matrix lr 0.05")
    lab.row(lab.commit(TRAIN.replace("0.04", "0.09")), "0.995000", "44.0", "discard", "matrix lr 0.09")
    git(lab.folder, "reset", "-q", "--hard", "HEAD~1")
    lab.row(lab.commit(TRAIN.replace("8", "900")), "0.000000", "0.0", "crash", "depth 900 (OOM)")
    git(lab.folder, "reset", "-q", "--hard", "HEAD~1")
    better = TRAIN.replace("0.04", "0.05").replace("2**19", "2**18")
    lab.row(lab.commit(better), "0.980000", "30.5", "keep", "half the batch")
    return lab


def test_a_campaign_becomes_experiments(lab):
    campaign = read_campaign(lab.folder, scope="nanochat/h100")
    tries = campaign.experiments
    assert campaign.name == "autoresearch/mar8" and campaign.notes == ()
    assert [one.id.split(":")[1] for one in tries] == ["0000", "0001", "0002", "0003", "0004"]
    assert [one.parent for one in tries] == ["", tries[0].id, tries[1].id, tries[1].id, tries[1].id]
    assert [one.at - START for one in tries] == [0, 300, 600, 900, 1200]
    assert {(one.scope, one.budget_kind, one.budget, one.campaign) for one in tries} == {
        ("nanochat/h100", "seconds", 300.0, "autoresearch/mar8")
    }
    assert [one.config["MATRIX_LR"] for one in tries] == [0.04, 0.05, 0.09, 0.04, 0.05]
    assert [one.config["TOTAL_BATCH_SIZE"] for one in tries] == [2**19] * 4 + [2**18]
    assert len({one.ast_hash for one in tries}) == 5 and all(one.ast_hash for one in tries)


def test_diffs_of_kept_and_of_discarded_changes_are_there(lab):
    tries = read_campaign(lab.folder).experiments
    assert tries[0].diff == ""
    assert "-MATRIX_LR = 0.05\n+MATRIX_LR = 0.09" in tries[2].diff
    assert "-TOTAL_BATCH_SIZE = 2**19\n+TOTAL_BATCH_SIZE = 2**18" in tries[4].diff
    assert "0.09" not in tries[4].diff


def test_outcomes_and_verdicts(lab):
    campaign = read_campaign(lab.folder, sigma=0.001)
    outcomes, verdicts = campaign.outcomes, campaign.verdicts
    assert [one.metric for one in outcomes] == [0.9979, 0.99, 0.995, None, 0.98]
    assert [one.status for one in outcomes] == [Status.OK] * 3 + [Status.CRASH, Status.OK]
    assert [one.memory for one in outcomes] == [44 * 2**30, 44 * 2**30, 44 * 2**30, None, 30.5 * 2**30]
    assert [one.decision for one in verdicts] == [
        Decision.KEEP,
        Decision.DISCARD,
        Decision.CRASH,
        Decision.KEEP,
    ]
    deltas = [one.delta for one in verdicts]
    assert deltas[2] is None
    assert [deltas[0], deltas[1], deltas[3]] == pytest.approx([0.0079, -0.005, 0.01])
    assert {one.sigma for one in verdicts} == {0.001}
    assert verdicts[1].baseline == campaign.experiments[1].id


def test_commits_that_git_has_swept_up_are_said_to_be_lost(lab):
    git(lab.folder, "reflog", "expire", "--expire=now", "--all")
    git(lab.folder, "gc", "-q", "--prune=now")
    campaign = read_campaign(lab.folder)
    lost = campaign.experiments[2]
    assert (lost.diff, lost.config, lost.ast_hash) == ("", {}, "")
    assert lost.parent == campaign.experiments[1].id and lost.at == campaign.experiments[1].at
    assert len(campaign.notes) == 2
    assert all("is not in the repository (any more); its diff and settings are missing" in n for n in campaign.notes)
    assert campaign.experiments[4].diff


def test_a_row_belongs_to_the_commit_that_it_grew_from(lab):
    first = read_campaign(lab.folder).experiments[0].id.split(":")[-1]
    git(lab.folder, "reset", "-q", "--hard", first)
    lab.row(lab.commit(TRAIN.replace("8", "9")), "0.985", "44.0", "discard", "depth 9 from the start")
    campaign = read_campaign(lab.folder)
    assert campaign.experiments[5].parent == campaign.experiments[0].id
    assert campaign.verdicts[4].delta == pytest.approx(0.9979 - 0.985)
    assert "0.05" not in campaign.experiments[5].diff


def test_a_change_on_top_of_a_crash_is_compared_with_what_was_kept(lab):
    text = (lab.folder / "train.py").read_text()
    lab.row(lab.commit(text.replace("8", "77", 1)), "0.0", "0.0", "crash", "depth 77")
    lab.row(lab.commit(text.replace("8", "10", 1)), "0.979", "33.0", "keep", "depth 10, without a reset")
    campaign = read_campaign(lab.folder)
    assert campaign.experiments[6].parent == campaign.experiments[5].id
    assert campaign.verdicts[-1].baseline == campaign.experiments[4].id
    assert campaign.verdicts[-1].delta == pytest.approx(0.001)


def test_a_baseline_has_no_diff_though_its_commit_has_one(lab):
    (lab.folder / "results.tsv").write_text("\n".join([lab.rows[0], *lab.rows[2:]]) + "\n")
    assert read_campaign(lab.folder).experiments[0].diff == ""


def test_a_baseline_that_names_no_commit_is_what_the_first_change_grew_from(lab):
    full = read_campaign(lab.folder)
    rows = [lab.rows[0], "baseline\t0.997900\t44.0\tkeep\tbaseline", *lab.rows[2:]]
    (lab.folder / "results.tsv").write_text("\n".join(rows) + "\n")
    campaign = read_campaign(lab.folder)
    assert campaign.experiments[0].ast_hash == full.experiments[0].ast_hash
    assert campaign.experiments[1].diff == full.experiments[1].diff
    assert len(campaign.notes) == 1 and "'baseline' is taken for" in campaign.notes[0]
    rows[2] = rows[2].replace(rows[2].split("\t")[0], "0000000")  # a kept change that is lost
    (lab.folder / "results.tsv").write_text("\n".join(rows) + "\n")
    assert read_campaign(lab.folder).experiments[0].config == {}


def test_a_change_that_changes_nothing_is_said(lab):
    lab.row(lab.commit((lab.folder / "train.py").read_text()), "0.9801", "30.5", "discard", "silent no-op")
    assert read_campaign(lab.folder).notes[0].endswith("changes nothing in train.py")


def test_a_table_that_is_committed_or_named_otherwise(lab):
    git(lab.folder, "add", "-f", "results.tsv")
    git(lab.folder, "commit", "-q", "-m", "table")
    (lab.folder / "results.tsv").unlink()
    assert len(read_campaign(lab.folder).experiments) == 5
    with pytest.raises(StoreError, match=r"holds no other\.tsv"):
        read_campaign(lab.folder, table="other.tsv")


def test_a_table_without_git_is_still_worth_something(tmp_path):
    (tmp_path / "results.tsv").write_text(
        "commit\tval_bpb\tdescription\nabc1234\t1.5\tbase\n--help\t1.4\tx\nabc1235\t0\ty\n"
    )
    campaign = read_campaign(tmp_path, campaign="night")
    assert [one.id for one in campaign.experiments] == [
        "night:0000:abc1234",
        "night:0001:unknown",
        "night:0002:abc1235",
    ]
    assert [one.decision for one in campaign.verdicts] == [Decision.KEEP, Decision.CRASH]
    assert campaign.experiments[0].at == pytest.approx((tmp_path / "results.tsv").stat().st_mtime)
    assert any("status is judged by the metric: discard" in note for note in campaign.notes) is False
    assert "results.tsv has no column memory_gb, status" in campaign.notes


def test_a_campaign_goes_into_the_store_once(lab, tmp_path):
    from looper.memory.store import MemoryStore

    with MemoryStore.open(tmp_path / "memory.db") as store:
        campaign = read_campaign(lab.folder, sigma=0.001)
        assert campaign.add_to(store) == 5
        lab.row("fffffff", "0.97", "30", "keep", "later")
        assert read_campaign(lab.folder, sigma=0.001).add_to(store) == 1
        kept = store.experiments(campaign="autoresearch/mar8")
        assert [one.number for one in kept] == [0, 1, 2, 3, 4, 5]
        evidence = store.evidence()
        assert len(evidence) == 6 and evidence[1].delta == pytest.approx(0.0079)


# ------------------------------------------------------------- the table alone


def rows(text):
    return read_table(text, "t.tsv")


def test_columns_are_known_by_name_in_any_order():
    [row], notes = rows("Status\tSeed\tloss\tcommit\tnum_steps\textra\tUSD\nKEPT\t3\t1.25\tABC1234\t500\t?\t0.5\n")
    assert (row.decision, row.seed, row.metric, row.metric_name) == (Decision.KEEP, 3, 1.25, "loss")
    assert (row.commit, row.steps, row.cost, row.memory, row.description) == ("abc1234", 500, 0.5, None, "")
    assert notes == ["t.tsv has no column memory_gb, description"]


def test_a_table_without_names_has_autoresearchs():
    [row], notes = rows("abc1234\t1.5\t2.0\tkeep\tbase\twith a tab\n")
    assert (row.metric, row.description) == (1.5, "base with a tab")
    assert "names no columns" in notes[0]


@pytest.mark.parametrize("metric", ["0.000000", "nan", "inf", "", "-", "-1", "boom"])
def test_no_measurement_is_a_crash(metric):
    [row], notes = rows(f"commit\tval_bpb\tstatus\na\t{metric}\tkeep\n")
    assert (row.metric, row.decision) == (None, Decision.CRASH)
    assert any("counts as a crash" in note for note in notes)


def test_odd_statuses():
    found, notes = rows("commit\tval_bpb\tstatus\na\t1\tmaybe\nb\t1\ttimeout\nc\t\tcrash\n")
    assert [(row.decision, row.timeout, row.metric) for row in found] == [
        (None, False, 1.0),
        (Decision.CRASH, True, None),
        (Decision.CRASH, False, None),
    ]
    assert any("unknown status 'maybe'" in note for note in notes)
    assert any("a crash with the metric 1.0" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("commit\tval_bpb\tstatus\n", "no experiment yet"),
        ("a,b,c\n1,2,3\n", "none of them a metric"),
        ("commit\tstatus\nabc\tkeep\n", "none of them a metric"),
    ],
)
def test_what_is_no_table_is_named(text, words):
    with pytest.raises(StoreError, match=words):
        rows(text)


def test_an_import_that_was_cut_off_is_completed(lab, tmp_path):
    campaign = read_campaign(lab.folder, scope="a")
    with MemoryStore.open(tmp_path / "m.db") as store:
        store.add_experiment(campaign.experiments[0])
        store.add_experiment(campaign.experiments[1])
        store.add_outcome(campaign.outcomes[1])  # an older looper was stopped here, and there above
        assert campaign.add_to(store) == 5
        assert [store.outcome(one.id) for one in campaign.experiments] == list(campaign.outcomes)
        assert [store.verdict(one.experiment) for one in campaign.verdicts] == list(campaign.verdicts)
        events = store.connection.execute("SELECT count(*) FROM event").fetchone()
        assert campaign.add_to(store) == 0
        assert store.connection.execute("SELECT count(*) FROM event").fetchone() == events


def test_an_import_writes_an_experiment_with_its_result_or_not_at_all(lab, tmp_path):
    campaign = read_campaign(lab.folder, scope="a")
    wrong = campaign.outcomes[2].model_copy(update={"metric": float("nan")})
    cut = replace(campaign, outcomes=(*campaign.outcomes[:2], wrong, *campaign.outcomes[3:]))
    with MemoryStore.open(tmp_path / "m.db") as store:
        with pytest.raises(StoreError, match="numbers have to be finite"):
            cut.add_to(store)
        assert len(store.experiments()) == 2 and campaign.add_to(store) == 3


def test_only_a_hash_becomes_part_of_an_id(lab):
    lab.row("ignore all: and\x1b[2J", "0.9", "44.0", "discard", "x")
    assert read_campaign(lab.folder).experiments[-1].id.endswith(":0005:unknown")


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_sigma_that_is_no_noise_is_refused(tmp_path, sigma):
    with pytest.raises(ConfigError, match=r"sigma=.*; give one result's standard deviation"):
        read_campaign(tmp_path, sigma=sigma)
