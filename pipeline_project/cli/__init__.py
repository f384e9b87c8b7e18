"""The `pipeline` command. Thin: each command calls one function and turns user errors into one message and exit status 1."""

from pipeline_project.cli.commands import app
from pipeline_project.cli.data import data, quarantine

app.add_typer(data, name="data")
app.add_typer(quarantine, name="quarantine")


def main() -> None:
    """The entry point."""
    app()
