"""The Hydra surface: every option and experiment composes and builds; mistakes are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from looper.application import meant
from looper.build import build
from looper.config import OPTIONAL, PARTS, UNSCIENTIFIC, read, run_id
from looper.errors import ConfigError
from looper.places import config_folder

FOLDER = config_folder()
GROUPS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
OPTIONS = [(group, path.stem) for group in GROUPS if group != "exp" for path in sorted((FOLDER / group).glob("*.yaml"))]
EXPERIMENTS = sorted(path.stem for path in (FOLDER / "exp").glob("*.yaml"))
NEEDED = {"model=replay": ["model.path=recording.jsonl"]}


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{g}={o}" for g, o in OPTIONS])
def test_every_option_composes_and_builds(group: str, option: str) -> None:
    name = f"{group}={option}"
    if group == "tracker":
        config = composed(
            f"+tracker@trackers.{option}={option}" if option != "jsonl" else "tracker@trackers.jsonl=jsonl"
        )
        build(config.trackers[option], f"trackers.{option}")
        return
    config = composed(f"+{name}" if group in OPTIONAL else name, *NEEDED.get(name, []))
    made = build(config[{"retrieval": "retrieval"}.get(group, group)], group)
    fields = set(type(made).__dataclass_fields__)
    assert set(config[group]) - {"_target_"} == fields, "an option's YAML gives every value, and no other"


def test_a_word_in_a_list_is_named_with_those_that_it_may_be() -> None:
    with pytest.raises(ConfigError, match=r"data\.kinds holds 'workflwo' \(did you mean workflow\?\); choose from"):
        read(composed("data=qa", "data.kinds=[tool_usage,workflwo]"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_builds(name: str) -> None:
    experiment = read(composed(f"+exp={name}"))
    assert set(experiment.parts) - set(OPTIONAL) == set(PARTS)
    assert experiment.run_id.startswith(f"{name}-")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_opens_with_what_it_claims_and_costs(name: str) -> None:
    lines = (FOLDER / "exp" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    head = "\n".join(lines[:12])
    for word in ("Claim:", "Command:", "Cost:", "Expected:"):
        assert word in head


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_select_options_and_leave_values_to_them(name: str) -> None:
    text = (FOLDER / "exp" / f"{name}.yaml").read_text()
    held = set(OmegaConf.create(text)) & set(GROUPS)
    assert not held, f"values of {held} would stay behind when the group is overridden: give them an option's file"


def test_an_experiments_benchmark_can_be_overridden() -> None:
    real = ("benchmark=swe_bench_cl", "benchmark.tasks=tasks.json", "benchmark.repos=clones")
    assert type(read(composed("+exp=framework_fixes", *real)).parts["benchmark"]).__name__ == "SweBenchCl"


def test_plain_looper_is_the_pilot() -> None:
    assert read(composed()).run_id.split("-")[0] == "pilot"


def test_the_run_id_names_the_science_only() -> None:
    base = read(composed())
    assert read(composed("parallel=3", "out=elsewhere", "workspace=rlimits")).run_id == base.run_id
    for change in ("seed=2", "prompt.few_shot=false", "strategy=none", "curriculum.train=39"):
        assert read(composed(change)).run_id != base.run_id, change
    assert {"parallel", "out", "workspace"} <= UNSCIENTIFIC
    assert run_id(base.settings, base.placebo, base.parts) == base.run_id


def test_the_run_id_is_of_values_not_of_words() -> None:
    base = read(composed())
    for same in ("temperature=1", "placebo=true", "+exp=pilot", "name=pilot"):
        assert read(composed(same)).run_id == base.run_id, same
    assert read(composed("prompt.without=[few_shot]")).run_id == read(composed("prompt.few_shot=false")).run_id


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["benchmark.family=naturl"], ["benchmark.family", "naturl", "natural"]),
        (["budget.steps=many"], ["budget.steps", "many", "int"]),
        (["budget.steps=0"], ["budget.steps", "0"]),
        (["seed=-1"], ["^seed=-1 is too small"]),
        (["out="], ["^out is empty: give out=FOLDER"]),
        (["attempts=0"], ["attempts=0", "at least 1"]),
        (["parallel=two"], ["^parallel='two' does not fit"]),
        (["+prompt.fewshot=false"], ["prompt.fewshot", "few_shot"]),
        (["+wrong=1"], ["wrong", "benchmark"]),
        (["model._target_=os.system"], ["model._target_", "looper"]),
        (["model._target_=looper.models.nano.model.Nanno"], ["Nanno"]),
        (["model=replay"], ["model.path"]),
        (["~model"], ["model"]),
        (["name=a/b"], ["name", "a/b"]),
        (["prompt.without=[few_shots]"], ["few_shots", "few_shot"]),
        (["seed=${nope}"], ["seed cannot be read", "nope", "--cfg job"]),
        (["temperature=nan"], ["^temperature=nan is no finite number"]),
        (["trackers=wandb"], ["trackers='wandb'", "+tracker@trackers.NAME=NAME"]),
        (["+members.a=nano"], ["members.a='nano'", "+model@members.a=NAME"]),
        (["benchmark=research"], ["+campaign=standard", "+exp=research"]),
        (["benchmark=nanochat"], ["+campaign=standard", "+exp=nanochat"]),
        (
            ["+exp=nanochat", "benchmark.repo=r", "campaign.arms=[memory]"],
            ["benchmark.corpus_split=1", "benchmark.repo"],
        ),
        (["+exp=nanochat", "benchmark.device=gpu"], ["benchmark.device='gpu'", "cuda"]),
        (["+campaign=standard"], ["benchmark=research"]),
        (["+ranking=standard"], ["+exp=research"]),
        (["+exp=research", "strategy=ewc"], ["strategy=ewc", "strategy=none"]),
        (["+exp=research", "campaign.arms=[memori]"], ["memori", "memory", "stateless"]),
        (["+exp=research", "campaign.replicates=0"], ["campaign.replicates=0", "at least 1"]),
        (["+synthesizer=nano"], ["synthesizer='nano'", "+model@synthesizer=NAME"]),
    ],
)
def test_mistakes_are_named_with_the_way_out(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(composed(*overrides))
    for word in words:
        assert word in f"^{caught.value}"


def looper(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "looper", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=qwen8b"], ["model/qwen8b", "nano"]),
        (["prompt.fewshot=false"], ["prompt.fewshot", "did you mean prompt.few_shot"]),
        (["strategy.lam=1"], ["there is no strategy.lam with this strategy", "strategy=ewc"]),
        (["prompt=bare,fixes"], ["prompt=bare,fixes gives several values", "add -m"]),
        (["+exp=framework_fixes", "hydra.mode=RUN"], ["grid", "-m"]),
        (["+exp="], ["exp= names no option", "framework_fixes"]),
        (["+exp=pilots"], ["no exp/pilots (did you mean pilot?)", "framework_fixes"]),
        (["benchmark.probes=[natural"], ["benchmark.probes=[natural", "every bracket and quote in it is closed"]),
        (["=3"], ["'=3' names no key"]),
        (["model=null"], ["one model is always chosen", "model=NAME"]),
        (["+strategy=sft"], ["+strategy=sft: one strategy is always chosen", "strategy=NAME"]),
        (["~foo"], ["'foo' does not exist", "--help"]),
        (["hydra.run.dir=/proc/x"], ["/proc/x"]),
        (["hydra/launcher=nosuch", "-m", "seed=1,2"], ["no hydra/launcher/nosuch", "basic"]),
        (["--cfg", "xyz"], ["invalid choice: 'xyz'", "job"]),
        (["--nope"], ["looper: there is no flag --nope; -m runs a grid", "--multirun"]),
        (["-x=3"], ["looper: there is no flag -x;"]),
        (["memory"], ["the command is `looper memory`"]),
        (["out="], ["looper: out= is empty; give out=FOLDER"]),
        (["out=/proc/x"], ["looper: out=/proc/x cannot be used (No such file or directory)"]),
        (["data=preference"], ["data=preference", "would imitate them"]),
        (["trainer=mlx", "strategy=ewc"], ["strategy=ewc needs", "which trainer=mlx does not know"]),
        (["model=openai", "model.name=m", "model.key_variable=NO_SUCH", "strategy=none"], ["export NO_SUCH=..."]),
    ],
)
def test_the_command_line_explains_itself(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = looper(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr + done.stdout
    assert "Traceback" not in done.stderr and "HYDRA_FULL_ERROR" not in done.stderr
    assert not list(tmp_path.glob("outputs/runs/*/manifest.json")), "what is refused leaves no run behind"
    assert not [line for line in done.stderr.splitlines() if line.startswith("run ")]


def test_keys_that_an_experiment_brings_are_no_mistake() -> None:
    (line,) = meant(["+exp=research", "campaign.experiments=2", "storeX=1"])
    assert line.startswith("there is no storeX")


def test_a_traceback_is_there_for_those_who_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert "Traceback" in looper("seed=1=2", cwd=tmp_path).stderr


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    probe = (
        "import sys; sys.argv=['looper','--help']; import looper.__main__ as m; m.main(); print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "+exp=framework_fixes" in done.stdout
    for heavy in ("torch", "hydra", "transformers", "pydantic", "rich"):
        assert f"'{heavy}'" not in done.stdout


def test_a_second_model_is_asked_for_before_anything_runs() -> None:
    with pytest.raises(
        ConfigError, match=r"synthesizer=model needs a model that writes: give \+model@synthesizer=NAME"
    ):
        read(composed("data=qa", "data.synthesizer=model"))
    assert "synthesizer" in read(composed("data=qa", "data.synthesizer=model", "+model@synthesizer=nano")).parts
    with pytest.raises(ConfigError, match="supervisor is an ensemble"):
        read(composed("+model@supervisor=ensemble"))
    with pytest.raises(ConfigError, match="the model is no ensemble: give model=ensemble"):
        read(composed("+model@members.a=nano"))


@pytest.mark.parametrize("place", ["model", "synthesizer", "supervisor", "members.a"])
def test_a_models_mistake_is_named_where_it_was_made(place: str) -> None:
    chosen = "model=http" if place == "model" else f"+model@{place}=http"
    with pytest.raises(
        ConfigError, match=rf"{place}: {place}\.retries=-1 is too small|^{place}\.retries=-1 is too"
    ) as caught:
        read(composed(chosen, f"{place}.retries=-1"))
    assert place == "model" or "model.retries" not in str(caught.value)
