"""`looper memory`: the research memory from the command line; thin commands that import what they need when called."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from looper.memory.terminal import existing, ids, line_of, notice, opened, print_json, say, text_of, written

app = typer.Typer(
    help="A local memory of papers, methods, experiments and results, in one SQLite file.", no_args_is_help=True
)

Db = Annotated[Path, typer.Option("--db", help="The memory file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Scope = Annotated[str, typer.Option(help="Where results are measured, e.g. nanochat/h100/depth8.")]
Campaign = Annotated[str, typer.Option(help="Name of the series of experiments.")]
Metric = Annotated[str, typer.Option(help="What results are logged as.")]
MOST = 10_000
"""Most rows that are asked for."""
DB = Path("researchfs.db")


@app.command()
def init(db: Db = DB) -> None:
    """Make a memory file with the bundled methods; one that is there stays as it is."""
    with opened(db, make=True) as client:
        say(f"{db}: {len(client.store.methods())} methods")


@app.command()
def ingest(
    targets: Annotated[list[str], typer.Argument(help="arXiv ids, addresses of repositories, folders, files.")],
    db: Db = DB,
    scope: Scope = "",
    as_json: Json = False,
) -> None:
    """Read sources into the memory; their passages are found by search and quoted in briefs."""
    with opened(db, make=True) as client:
        found = [one for target in targets for one in client.ingest(target, scope=scope, notice=notice)]
    if as_json:
        print_json(found)
    else:
        for one in found:
            say(f"{one.paper.id}: {one.passages} passages, {'added' if one.new else 'known already'}")


@app.command("import")
def import_(
    repo: Annotated[Path, typer.Argument(help="Working tree of a finished campaign.")],
    db: Db = DB,
    table: Annotated[str, typer.Option(help="Its table of results.")] = "results.tsv",
    code: Annotated[str, typer.Option(help="The file that its agent edited.")] = "train.py",
    campaign: Campaign = "",
    scope: Scope = "",
    sigma: Annotated[float | None, typer.Option(help="Noise of one result, where it was measured.")] = None,
    as_json: Json = False,
) -> None:
    """Read a finished campaign: its results table, and the changes from its git history."""
    with opened(db, make=True) as client:
        found = client.import_log(repo, table=table, code=code, campaign=campaign, scope=scope, sigma=sigma)
    if as_json:
        return print_json(found)
    for note in found.notes:
        notice(note)
    say(f"{found.campaign}: {found.experiments} new experiments; {found.credited} in all hold a known method")


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="Any words.")],
    db: Db = DB,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Most passages and methods.")] = 8,
    scope: Annotated[str | None, typer.Option(help="Only passages of this scope and of those above it.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only arxiv, repository, folder, file or pack.")] = None,
    as_json: Json = False,
) -> None:
    """Find passages and methods."""
    from looper.memory.quoting import origins_of

    with opened(db) as client:
        found = client.search(text, limit=limit, scope=scope, origins=origins_of(source or ()))
    if as_json:
        return print_json(found)
    for method in found.methods:
        say(f"method {method.method}: {line_of(method.name)}")
    for passage in found.passages:
        say(f"{passage.paper}, {passage.locator}: {line_of(passage.text)[:160]}")
    if not found.methods and not found.passages:
        print("nothing found")


@app.command()
def suggest(
    goal: Annotated[str, typer.Argument(help="What should get better.")],
    code: Annotated[Path, typer.Option(help="The program as it stands.")] = Path("train.py"),
    db: Db = DB,
    query: Annotated[str, typer.Option(help="Words to search for; the memory chooses without them.")] = "",
    scope: Scope = "",
    campaign: Campaign = "",
    seed: Annotated[int, typer.Option(help="Of the campaign's draws.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Most methods.")] = 6,
    budget_tokens: Annotated[int, typer.Option(help="Most tokens of the brief.")] = 2000,
    metric_name: Metric = "val_bpb",
    as_json: Json = False,
) -> None:
    """Print the experiment brief for a goal and a program; the answer is remembered."""
    text = text_of(code)
    with opened(db, write=True) as client:
        found = client.suggest_query(
            goal,
            text,
            query=query,
            scope=scope,
            campaign=campaign,
            seed=seed,
            limit=limit,
            budget_tokens=budget_tokens,
            metric_name=metric_name,
        )
    if as_json:
        return print_json(found)
    say(found.brief, end="")
    notice(f"{found.retrieval}; {found.tokens.brief} tokens ({found.tokens.counted_by})")


@app.command()
def propose(
    before: Annotated[Path, typer.Argument(help="The program as it stands.")],
    after: Annotated[Path, typer.Argument(help="The program with the change.")],
    db: Db = DB,
    scope: Scope = "",
    campaign: Campaign = "",
    seed: Annotated[int, typer.Option(help="The run's.")] = 0,
    budget_kind: Annotated[str, typer.Option(help="steps, tokens or seconds.")] = "",
    budget: Annotated[float, typer.Option(help="How many of them a run has.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Ask whether a change was tried before; ends with 1 if it is blocked."""
    texts = text_of(before), text_of(after)
    with opened(db, write=True) as client:
        answer = client.propose(
            *texts, scope=scope, campaign=campaign, seed=seed, budget_kind=budget_kind, budget=budget
        )
    if as_json:
        print_json(answer)
    else:
        say(f"{answer.ruling}: {line_of(answer.reason)}")
        for condition in answer.reopens:
            say(f"  reopened by: {condition}")
    if answer.ruling == "block":
        raise typer.Exit(1)


@app.command()
def record(
    after: Annotated[Path, typer.Argument(help="The program that ran.")],
    before: Annotated[Path | None, typer.Option(help="What it was before the change; a baseline has none.")] = None,
    metric: Annotated[float | None, typer.Option(help="Its result, lower is better.")] = None,
    metric_name: Metric = "val_bpb",
    status: Annotated[str, typer.Option(help="ok, crash or timeout.")] = "ok",
    db: Db = DB,
    retrieval: Annotated[str, typer.Option(help="Id of the suggestion that it followed.")] = "",
    description: Annotated[str, typer.Option(help="The change in words.")] = "",
    scope: Scope = "",
    campaign: Campaign = "",
    seed: Annotated[int, typer.Option(help="The run's.")] = 0,
    budget_kind: Annotated[str, typer.Option(help="steps, tokens or seconds.")] = "",
    budget: Annotated[float, typer.Option(help="How many of them a run has.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Log a finished run: credit from its code, and a verdict given the noise."""
    from looper.memory.experience import require_result

    require_result(status, metric, metric_name)
    texts = text_of(after), text_of(before) if before else ""
    with opened(db, make=True) as client, client.store.transaction():
        experiment = client.log_experiment(
            *texts,
            retrieval=retrieval,
            description=description,
            scope=scope,
            campaign=campaign,
            seed=seed,
            budget_kind=budget_kind,
            budget=budget,
        )
        logged = client.log_outcome(experiment.id, metric, status=status, metric_name=metric_name)
    if as_json:
        return print_json(logged)
    verdict = logged.verdict
    say(f"{experiment.id}: {'baseline' if verdict is None else verdict.decision}; methods {ids(experiment.methods)}")
    if verdict is not None and verdict.delta is not None:
        sigma = "unknown" if verdict.sigma is None else f"{verdict.sigma:.3g}"
        say(f"  delta {verdict.delta:+.6g} (positive is better), noise {sigma}")
    for note in logged.notes:
        notice(note)


@app.command()
def log(
    db: Db = DB,
    campaign: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Most experiments.")] = 20,
    as_json: Json = False,
) -> None:
    """List the last experiments, the newest last."""
    with opened(db) as client:
        if campaign is not None:
            client.store.require_campaign(campaign)
        rows = client.log(campaign=campaign, limit=limit)
    if as_json:
        return print_json(rows)
    for row in rows:
        metric = "no result" if row.metric is None else f"{row.metric_name} {row.metric:.6f}"
        delta = "" if row.delta is None else f" {row.delta:+.6f}"
        words = line_of(row.description)
        say(f"{row.experiment}  {metric}{delta}  {row.decision or '-'}  {ids(row.methods)}  {words}")


@app.command()
def why(experiment: Annotated[str, typer.Argument(help="Id of an experiment, see log.")], db: Db = DB) -> None:
    """Show why an experiment was made and what came of it, back to the passage of the paper."""
    with opened(db) as client:
        say(client.why(experiment), end="")


@app.command()
def stats(db: Db = DB, as_json: Json = False) -> None:
    """Count what the memory holds; win rates of the methods that were tried."""
    with opened(db) as client:
        found = client.stats()
    if as_json:
        return print_json(found)
    print(", ".join(f"{name} {count}" for name, count in found.counts.items()) + f"; {found.bytes:,} bytes")
    for row in found.methods:
        low = "unknown" if row.win_rate_low is None else f"{row.win_rate_low:.2f}"
        say(
            f"{row.method}: {row.tried} tried, {row.kept} kept, {row.discarded} discarded, "
            f"{row.inconclusive} inconclusive, {row.crashed} crashed; win rate at least {low} (95 %)"
        )


@app.command()
def check(db: Db = DB, as_json: Json = False) -> None:
    """Verify the file, its log and every row against the log; ends with 1 and the problems if there are any."""
    from looper.memory.check import check as problems_of

    problems = problems_of(db)
    if as_json:
        print(json.dumps({"problems": problems}))
    else:
        say("\n".join(problems) or f"{db} is whole")
    if problems:
        raise typer.Exit(1)


@app.command()
def export(
    db: Db = DB,
    out: Annotated[Path | None, typer.Option(help="File to write; standard output without it.")] = None,
    results: Annotated[str, typer.Option(help="Write this campaign as a results.tsv instead.")] = "",
) -> None:
    """Write everything as JSON lines, or one campaign as a results.tsv."""
    from looper.memory.export import export as write
    from looper.memory.export import results as table

    with opened(db) as client:
        if results:
            text = table(client.store, results)
            if out is None:
                print(text, end="")
            else:
                with written(out, db) as file:
                    file.write(text)
        elif out is None:
            write(client.store, sys.stdout)
        else:
            with written(out, db) as file:
                count = write(client.store, file)
            say(f"{out}: {count} lines")


@app.command()
def restore(
    lines: Annotated[Path, typer.Argument(help="What export wrote.")],
    db: Db = DB,
) -> None:
    """Make a new memory file from an export; the result is checked."""
    from looper.memory.export import restore as read

    with existing(lines).open(encoding="utf-8") as file:
        print(f"{db}: {read(file, db)} rows")


@app.command()
def replay(
    log: Annotated[Path | None, typer.Argument(help="A results.tsv or .jsonl of evidence; else the memory.")] = None,
    db: Db = DB,
    campaign: Annotated[str | None, typer.Option(help="Of the memory, only this campaign.")] = None,
    scope: Annotated[str | None, typer.Option(help="Of the memory, only what was measured here.")] = None,
    goal: Annotated[str, typer.Option(help="Words of the goal; adds the keyword policy.")] = "",
    choices: Annotated[list[int] | None, typer.Option(help="After how many choices; 5, 10 and 20 without it.")] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.")] = 2000,
    sigma: Annotated[float | None, typer.Option(help="Noise of one result, where it was measured.")] = None,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    policies: Annotated[str, typer.Option(help="Some of ours,ucb,keyword,random,order; else all.")] = "",
    measure: Annotated[str, typer.Option(help="sum of the gains found, or best: the largest alone.")] = "sum",
    as_json: Json = False,
) -> None:
    """Tell whether another order of a campaign's experiments would have found its gains sooner."""
    from looper.memory.ranking.logs import log_of, read_log
    from looper.memory.replay import Policy, measure_of, policies_of, table
    from looper.memory.replay import replay as play

    chosen = policies_of(policies) or [policy for policy in Policy if goal or policy is not Policy.KEYWORD]
    worth = measure_of(measure)
    if log is not None:
        read = read_log(existing(log), sigma)
    else:
        with opened(db) as client:
            if campaign is not None:
                client.store.require_campaign(campaign)
            rows = [e for e in client.store.evidence() if campaign in (None, e.campaign) and scope in (None, e.scope)]
        read = log_of(rows, sigma)
    for note in read.notes:
        notice(note)
    lines = play(read, chosen, ks=choices or (5, 10, 20), resamples=resamples, seed=seed, goal=goal, measure=worth)
    if as_json:
        return print_json(lines)
    say(table(lines))


@app.command()
def serve(
    db: Db = DB,
    http: Annotated[bool, typer.Option("--http", help="Streamable HTTP at /mcp instead of standard input.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of 127.0.0.1, for HTTP.")] = 8765,
) -> None:
    """Offer the memory to agents over the Model Context Protocol, to this machine alone."""
    from looper.memory.mcp_server import serve as run

    if not db.exists():
        notice(f"{db} is not there yet; it is made")
    run(db, http=http, port=port)
