"""The commands for a project as a whole: run it, serve it, approve, trace, keep house."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_project.cli.common import Config, project_of, user_errors

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Image classification, from photos to a served, monitored model.")
keys = typer.Typer(no_args_is_help=True, help="Signing keys and whose approvals count.")
app.add_typer(keys, name="keys")


@app.command()
def demo(
    source: Annotated[str | None, typer.Option(help="a folder of your own images with labels.csv")] = None,
    config: Annotated[Path | None, typer.Option(help="your own settings file")] = None,
) -> None:
    """Run the whole job: on the sample catalogue, or on your own images."""
    from pipeline_project.local import project
    from pipeline_project.local.demo import run_demo

    with user_errors():
        if source is None and config is None:
            file, settings = project.sample_project(Path.cwd())
            project.remember(Path.cwd(), file, settings)
            run_demo(file, settings, lambda: project.draw_sample(settings))
        else:
            file, settings = project.own_project(Path.cwd(), source, config)
            project.remember(Path.cwd(), file, settings)
            run_demo(file, settings, lambda: None)


@app.command()
def dev(config: Config = None) -> None:
    """Start the Dagster UI (also a read-only one), the MLflow UI and the endpoints in the background, on the project last used."""
    from pipeline_project.local import services

    with user_errors():
        file, settings = project_of(config)
        wanted = [*services.dagster_services(settings), services.audit_service(settings), services.mlflow_service(settings)]
        for service in wanted:
            services.start(settings, service, file)
        print(f"project {settings.name} in {settings.home}")
        print(f"staging endpoint     {services.start_endpoint(settings, 'staging', file)}")
        print(f"production endpoint  {services.start_endpoint(settings, 'production', file)}")
        for service in wanted:
            services.wait_ready(settings, service)
            if service.url:
                print(f"{service.name:20} {service.url}")
        print("Stop all of them with `make stop`.")


@app.command()
def stop(config: Config = None) -> None:
    """Stop what `demo` and `dev` started."""
    from pipeline_project.local import services

    with user_errors():
        _, settings = project_of(config)
        names = services.stop_all(settings)
        print(f"stopped: {', '.join(names)}" if names else "nothing was running")


@app.command()
def serve(environment: Annotated[str, typer.Argument(help="staging or production")] = "production", config: Config = None) -> None:
    """Serve an environment in the foreground: whatever its newest desired-state document says."""
    from pipeline_project.serving.supervisor import run_supervisor

    with user_errors():
        if environment not in ("staging", "production"):
            raise ValueError(f"{environment}: the environments are staging and production.")
        _, settings = project_of(config)
        run_supervisor(settings, "staging" if environment == "staging" else "production")


@app.command()
def approve(
    kind: Annotated[str, typer.Argument(help="production_deployment, model_architecture_changes, data_source_modifications ...")],
    subject: Annotated[str, typer.Argument(help="the digest that the refusal named")],
    approver: Annotated[str, typer.Option(help="who approves")],
    reason: Annotated[str, typer.Option(help="why")],
    key: Annotated[Path | None, typer.Option(help="private key; default: keys/APPROVER.pem in the runtime home")] = None,
    config: Config = None,
) -> None:
    """Record a person's approval, signed."""
    from pipeline_project.governance.approving import approve as record
    from pipeline_project.stage import StageContext

    with user_errors():
        _, settings = project_of(config)
        approval = record(StageContext.open(settings), kind, subject, approver=approver, reason=reason, key=key).approval
        print(f"{approval.kind} of {approval.subject[:12]} approved by {approval.approver}.")


@app.command()
def trace(
    request_id: Annotated[str, typer.Argument(help="the id of an answered request (header X-Request-ID)")],
    as_json: Annotated[bool, typer.Option("--json", help="the whole record as JSON, for machines")] = False,
    config: Config = None,
) -> None:
    """Walk from an answer back to its photo, model, approvals and runs. Exit status 1 where a link does not hold."""
    from pipeline_project.governance.trace import trace_request
    from pipeline_project.governance.trace_text import render_trace
    from pipeline_project.stage import StageContext

    with user_errors():
        _, settings = project_of(config)
        found = trace_request(StageContext.open(settings), request_id)
        print(found.model_dump_json(indent=2) if as_json else render_trace(found), end="\n" if as_json else "")
        if found.problems():
            raise typer.Exit(1)


@app.command()
def gc(
    apply: Annotated[bool, typer.Option("--apply", help="remove it; without this it is only shown")] = False,
    why: Annotated[str | None, typer.Option(help="a digest: print what keeps that version, and nothing else")] = None,
    by: Annotated[str, typer.Option(help="who removes, for the audit ledger")] = "pipeline gc",
    config: Config = None,
) -> None:
    """Show what nothing needs any more: versions, caches, runs. With --apply, remove it."""
    from pipeline_project.local.housekeeping import collect_garbage, explain_kept

    with user_errors():
        _, settings = project_of(config)
        print(explain_kept(settings, why) if why is not None else collect_garbage(settings, apply=apply, by=by))


@app.command()
def doctor(fix: Annotated[bool, typer.Option("--fix", help="mend what can be mended safely")] = False, config: Config = None) -> None:
    """Say what is wrong with this installation, why, and how to mend it. Exit status 1 when something is."""
    from pipeline_project.local.doctor import examine, healthy, mend

    with user_errors():
        file, settings = project_of(config)
        found = examine(settings, file)
        if fix:
            for line in mend(found):
                print(line)
            found = examine(settings, file)
        for finding in found:
            print(finding)
        print(f"project {settings.name} in {settings.home}: {f'{len(found)} findings' if found else 'nothing is wrong'}")
        if not healthy(found):
            raise typer.Exit(1)


@keys.command("create")
def create_key(
    owner: Annotated[str, typer.Argument(help="whose key; a lower-case name")],
    signer: Annotated[bool, typer.Option("--signer", help="trust it to sign packages instead of approvals")] = False,
    config: Config = None,
) -> None:
    """Make a key in the runtime home and trust it: a person's approvals, or with --signer the packages it signs."""
    from pipeline_project.trust.signing import key_file, load_or_create_key

    with user_errors():
        _, settings = project_of(config)
        path = key_file(settings.home / "keys", owner)
        trusted = settings.trusted_signers if signer else settings.trusted_approvers
        load_or_create_key(path, trusted)
        print(f"{path} (keep it secret); trusted in {trusted}.")


@app.command("settings")
def show_settings(config: Config = None) -> None:
    """Print every value of the settings as they are read."""
    import json

    with user_errors():
        _, settings = project_of(config)
        print(json.dumps(settings.model_dump(mode="json"), indent=2))
