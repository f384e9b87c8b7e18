"""The `pipeline` command. Thin: each command calls one function and turns user errors into one message and exit status 1."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline_project.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Image classification, from photos to a served, monitored model.")
keys = typer.Typer(no_args_is_help=True, help="Signing keys and whose approvals count.")
app.add_typer(keys, name="keys")

Config = Annotated[Path | None, typer.Option(help="settings file; default: the project last used here")]


@app.command()
def demo(
    source: Annotated[str | None, typer.Option(help="a folder of your own images with labels.csv")] = None,
    config: Annotated[Path | None, typer.Option(help="your own settings file")] = None,
) -> None:
    """Run the whole job: on the sample catalogue, or on your own images."""
    from pipeline_project.local import project
    from pipeline_project.local.demo import run_demo

    with _user_errors():
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
    """Start the Dagster UI, the MLflow UI and the endpoints in the background, on the project last used."""
    from pipeline_project.local import services

    with _user_errors():
        file, settings = _project(config)
        wanted = [*services.dagster_services(settings), services.mlflow_service(settings)]
        for service in wanted:
            services.start(settings, service, file)
        print(f"project {settings.name} in {settings.home}")
        print(f"staging endpoint     {services.start_endpoint(settings, 'staging')}")
        print(f"production endpoint  {services.start_endpoint(settings, 'production')}")
        for service in wanted:
            services.wait_ready(settings, service)
            if service.url:
                print(f"{service.name:20} {service.url}")
        print("Stop all of them with `make stop`.")


@app.command()
def stop(config: Config = None) -> None:
    """Stop what `demo` and `dev` started."""
    from pipeline_project.local import services

    with _user_errors():
        _, settings = _project(config)
        names = services.stop_all(settings)
        print(f"stopped: {', '.join(names)}" if names else "nothing was running")


@app.command()
def serve(environment: Annotated[str, typer.Argument(help="staging or production")] = "production", config: Config = None) -> None:
    """Serve an environment in the foreground: whatever its newest desired-state document says."""
    from pipeline_project.serving.supervisor import run_supervisor

    with _user_errors():
        if environment not in ("staging", "production"):
            raise ValueError(f"{environment}: the environments are staging and production.")
        _, settings = _project(config)
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
    from pydantic import TypeAdapter

    from pipeline_project.governance import ledger
    from pipeline_project.storage import open_store
    from pipeline_project.trust.approvals import ApprovalKind, record_approval
    from pipeline_project.trust.signing import load_private_key

    with _user_errors():
        _, settings = _project(config)
        private = load_private_key(key or settings.home / "keys" / f"{approver}.pem")
        checked: ApprovalKind = TypeAdapter(ApprovalKind).validate_python(kind)
        record_approval(open_store(settings), private, checked, subject, approver=approver, reason=reason)
        ledger.append(open_store(settings), approver, "approved", subject, {"kind": kind, "reason": reason})
        print(f"{kind} of {subject[:12]} approved by {approver}.")


@keys.command("create")
def create_key(
    owner: Annotated[str, typer.Argument(help="whose key; a lower-case name")],
    signer: Annotated[bool, typer.Option("--signer", help="trust it to sign packages instead of approvals")] = False,
    config: Config = None,
) -> None:
    """Make a key in the runtime home and trust it: a person's approvals, or with --signer the packages it signs."""
    from pipeline_project.trust.signing import load_or_create_key

    with _user_errors():
        _, settings = _project(config)
        path = settings.home / "keys" / f"{owner}.pem"
        trusted = settings.trusted_signers if signer else settings.trusted_approvers
        load_or_create_key(path, trusted)
        print(f"{path} (keep it secret); trusted in {trusted}.")


@app.command("settings")
def show_settings(config: Config = None) -> None:
    """Print every value of the settings as they are read."""
    import json

    with _user_errors():
        _, settings = _project(config)
        print(json.dumps(settings.model_dump(mode="json"), indent=2))


def main() -> None:
    """The entry point."""
    app()


def _project(config: Path | None) -> "tuple[Path, Settings]":
    """The project of a command: the option's file, else what the environment names, else the one last used here, else the sample."""
    from pipeline_project.local.project import current_project
    from pipeline_project.settings import load_settings
    from pipeline_project.settings.loading import named_config

    named = config or named_config()
    if named is not None:
        return Path(named), load_settings(named)
    return current_project(Path.cwd()) or (Path("sample"), load_settings())


@contextmanager
def _user_errors() -> Iterator[None]:
    """Errors for users: the message alone, on stderr, and exit status 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"\nerror: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    main()
