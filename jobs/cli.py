"""`idia`, the command line."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from idia_core.config import Study
from idia_core.errors import IdiaError, UsageError
from idia_core.storage import as_path, keep_private
from jobs import cluster_files, options, outputs, planning, remote
from jobs.doctor import doctor

TOLERANT, TOLERATED = ("scan", "shards"), "tolerate_failed_inputs"
"""The stages that may go on without some of their input files, and the field of their configs that lets them."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Was this person's face and name in the data a vision-language model was trained on?",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. What is done stays: run again to go on.",
)


@app.command(
    epilog="Examples:\n\n"
    "idia run demo.yaml scan select --set select.max_occurrences=100\n\n"
    "idia run cc3m.yaml download --retry-failed\n\n"
    "idia run cc3m.yaml train --address auto --set 'train.resources.pairs_per_second={ViT-B-32: 900}' --dry-run\n\n"
    "idia run cc3m.yaml train --launcher slurm --sbatch=--partition=gpu --submit"
)
def run(
    study: options.StudyFile,
    stages: Annotated[list[str] | None, typer.Argument(help="Only these stages.")] = None,
    settings: options.Settings = None,
    tolerate: options.Tolerate = None,
    retry_failed: options.RetryFailed = False,
    dry_run: options.DryRun = False,
    address: options.Address = None,
    launcher: options.Launcher = "ray",
    submit: options.Submit = False,
    sbatch: options.Sbatch = None,
) -> None:
    """Run the stages of a study that are not done yet."""
    loaded = options.load(study, settings)
    if tolerate is not None:
        own = [f"{name}.{TOLERATED}={tolerate}" for name in loaded.stages if loaded.kind(name) in TOLERANT]
        loaded = options.load(study, [*(settings or []), *own])
    if launcher == "slurm":
        if retry_failed:
            raise UsageError("Slurm trains and fetches nothing", "--retry-failed", "Leave out --launcher slurm.")
        from jobs.slurm import train_by_slurm  # noqa: PLC0415

        if stages != ["train"]:
            raise UsageError("Slurm runs the stage 'train' alone", "--launcher slurm", "Name it: idia run STUDY train.")
        if address:
            raise UsageError("Slurm's jobs use no Ray", "--address", "Leave it out.")
        train_by_slurm(loaded, Console(), tuple(sbatch or ()), send=submit, dry=dry_run)
        return
    if submit or sbatch:
        raise UsageError("there is no job to submit", "--submit" if submit else "--sbatch", "Add --launcher slurm.")
    _run(loaded, stages or [], dry_run, address, retry_failed)


@app.command(epilog="Example: idia names 'Jörg Müller' Sting · idia names --list people.csv")
def names(
    given: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Names to look at.")] = None,
    lists: Annotated[
        list[str] | None, typer.Option("--list", metavar="FILE", help="Parquet, CSV or text; may be repeated.")
    ] = None,
    show: Annotated[int, typer.Option(min=1, help="How many names to print.")] = 20,
) -> None:
    """Show how names will be searched for, before millions of captions are read."""
    from jobs.names import print_names  # noqa: PLC0415

    print_names(given or [], lists or [], show, Console())


@app.command(epilog="Example: idia demo --people my_pictures/ --out out/mine")
def demo(
    people: Annotated[
        str | None, typer.Option(help="Your own people: a folder with a sub-folder of pictures for each.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Where to write; out/demo when not given.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another world.")] = 0,
    settings: options.Settings = None,
    dry_run: options.DryRun = False,
) -> None:
    """Train models that know some people and not others, attack them, and say who was in the training data."""
    own = [f"seed={seed}"]
    if out:
        own.append(f"out={json.dumps(out)}")
    if people:
        own.append(f"people.inputs.people={json.dumps(str(as_path(people)))}")
    study = options.load("own_people.yaml" if people else "demo.yaml", [*own, *(settings or [])])
    _run(study, [], dry_run, None)


@app.command(
    epilog="Examples:\n\n"
    "idia audit --model ViT-B-32:laion400m_e32 --people people/ --panel panel/ --out audit/\n\n"
    "idia audit --model ViT-B-32:runs/epoch_50.pt --model hf-hub:owner/name --people people.csv --dry-run\n\n"
    "idia audit --model https://models.example/clip --people people/ --questions 20000 --per-second 10"
)
def audit(
    model: options.Models,
    people: options.People,
    panel: options.Panel = None,
    out: options.Out = "out/audit",
    names: options.NameFiles = None,
    by_locale: options.ByLocale = True,
    candidates: options.Candidates = 1000,
    threshold: options.Threshold = 1,
    alpha: options.Alpha = 0.05,
    min_pictures: options.MinPictures = 3,
    redact: options.Redact = False,
    device: options.Device = "cpu",
    workers: options.Workers = None,
    questions: options.Questions = None,
    per_second: options.PerSecond = None,
    token_env: options.TokenVariable = None,
    seed: options.Seed = 0,
    settings: options.Settings = None,
    dry_run: options.DryRun = False,
    address: options.Address = None,
) -> None:
    """Say who was in the training data of models, and how sure that is.

    Run it again with another `--threshold` or `--alpha`, and the votes are judged again without a model.
    """
    from jobs.audit import audit_study  # noqa: PLC0415

    fields = {
        "out": out,
        "seed": seed,
        "attack.candidates": candidates,
        "attack.names.by_locale": by_locale,
        "attack.device": device,
        "attack.resources.gpus": 0 if device == "cpu" else 1,
        "judge.rules.threshold": threshold,
        "judge.rules.alpha": alpha,
        "judge.rules.min_pictures": min_pictures,
        "evidence.redact": redact,
    }
    if names:
        fields |= {"attack.names.first_names": names[0], "attack.names.last_names": names[1]}
    optional = {
        "attack.resources.workers": workers,
        "attack.resources.questions": questions,
        "attack.resources.questions_per_second": per_second,
        "attack.resources.black_box.token_env": token_env,
    }
    fields |= {key: value for key, value in optional.items() if value is not None}
    _run(audit_study(model, people, panel, fields, settings or []), [], dry_run, address)


@app.command(epilog="Example: idia judge audit/evidence/page/audit.json --threshold 2")
def judge(
    audit_file: Annotated[str, typer.Argument(metavar="AUDIT.json", help="What an audit wrote.")],
    threshold: Annotated[int | None, typer.Option(min=1, help="Another tau.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Another share of false findings.")] = None,
    min_pictures: Annotated[int | None, typer.Option(min=1, help="Another least number of pictures.")] = None,
) -> None:
    """Judge an audit again from its file: no model, no pictures, no trust in whoever made it."""
    from jobs.judge_file import judge_file  # noqa: PLC0415

    judge_file(audit_file, Console(), threshold, alpha, min_pictures)


@app.command(epilog="Example: idia verify out/demo/shards · idia verify s3://bucket/cc3m --out faults.parquet")
def verify(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="What the stage `shards` wrote, or any folder, file or glob of tars.")
    ],
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every picture, also of tars whose hash is the ledger's.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; as many as CPUs if not given.")] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE.parquet", help="Write every fault there; the first 50 are printed.")
    ] = None,
) -> None:
    """Read training shards again and name every fault: structure, pairs, pictures, hashes, counts against the plan.

    Exit code 1 where there is one.
    """
    from jobs.verify import verify_folder  # noqa: PLC0415

    if verify_folder(folder, Console(), decode=decode, workers=workers, out=out):
        raise typer.Exit(1)


@app.command(epilog="Example: idia serve-model ViT-B-32:laion400m_e32 --port 8000")
def serve_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As `--model` of `idia audit`.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own are on the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8000,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    token_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable with the token that callers must give.")
    ] = None,
    per_second: Annotated[float | None, typer.Option(help="The most questions answered in a second.")] = None,
) -> None:
    """Offer a model as a black box over HTTP: pictures and prompts in, the best prompts out."""
    from idia_core.model_reference import ModelReference  # noqa: PLC0415
    from jobs.serve_model import serve  # noqa: PLC0415

    serve(ModelReference.parse(model), host=host, port=port, device=device, token_env=token_env, rate=per_second)


app.command(
    epilog="Examples:\n\n"
    "idia plan laion400m.yaml --sizes paper --cpus 64\n\n"
    "idia plan cc3m.yaml embed index --size 'cc3m/*.tar=2.8e6 rows, 76 GB, 331 files' --gpus 8 --gpu-price 2.5"
)(planning.plan)
app.command(epilog="Example: idia status demo.yaml")(planning.status)
app.command(epilog="Example: idia watch s3://bucket/cc3m.yaml --set out=s3://bucket/cc3m")(planning.watch)
app.command(
    epilog="Example: duckdb -c \"select * from '$(idia path demo.yaml judge.verdicts)/*.parquet'\"",
)(outputs.path)
app.command(
    epilog="Examples:\n\n"
    "idia export cc3m.yaml retrieve.candidates candidates.tsv\n\n"
    "idia export cc3m.yaml portraits.ledger s3://bucket/ledger.parquet"
)(outputs.export)
app.command(epilog="Example: idia erase cc3m.yaml --identity 'Ann Ash' --dry-run")(outputs.erase)
app.command(
    epilog="Examples:\n\n"
    "idia submit cc3m.yaml --set out=s3://bucket/cc3m --address http://127.0.0.1:8265 --follow\n\n"
    "idia submit /shared/cc3m.yaml download --retry-failed --image registry.example/idia:1"
)(remote.submit)
app.command(epilog="Example: idia jobs --address http://127.0.0.1:8265")(remote.jobs)
app.command(epilog="Example: idia logs --follow idia-cc3m-1a2b3c4d5e-1")(remote.logs)
app.command(epilog="Example: idia stop idia-cc3m-1a2b3c4d5e-1")(remote.stop)
app.command(epilog="Example: idia doctor --storage s3://bucket/cc3m --address http://127.0.0.1:8265")(doctor)
app.add_typer(cluster_files.app, name="cluster")


def _run(study: Study, stages: list[str], dry_run: bool, address: str | None, retry_failed: bool = False) -> None:
    if dry_run:
        _show_plan(study, stages, previews=True, retry_failed=retry_failed)
        return
    from jobs.run import run_study  # noqa: PLC0415
    from jobs.summary import print_summary  # noqa: PLC0415

    try:
        plans = run_study(study, Console(stderr=True), stages, address, retry_failed=retry_failed)
    except KeyboardInterrupt:
        typer.echo("Interrupted. What is done stays: run the same command to go on.", err=True)
        raise
    print_summary(plans, Console())


def _show_plan(study: Study, stages: list[str], *, previews: bool = False, retry_failed: bool = False) -> None:
    from jobs.plan import check_stage_names, plan_study, with_new_attempt  # noqa: PLC0415
    from jobs.preview import print_plan  # noqa: PLC0415
    from jobs.run import check_retries  # noqa: PLC0415
    from jobs.stages import stage_configs  # noqa: PLC0415

    check_stage_names(study, stages)
    if retry_failed:
        check_retries(study, stage_configs(study), stages)
    shown = [plan for name, plan in plan_study(study, stages).items() if not stages or name in stages]
    shown = [with_new_attempt(plan) for plan in shown] if retry_failed else shown
    print_plan(study, shown, Console(), previews=previews)


def main() -> None:
    """Run the command line; an error of ours is one line, and decides the exit code."""
    keep_private()
    try:
        app()
    except IdiaError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
