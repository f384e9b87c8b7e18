"""What all commands share: the project they work on, and errors as one message."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline_project.settings import Settings

Config = Annotated[Path | None, typer.Option(help="settings file; default: the project last used here")]


def project_of(config: Path | None) -> "tuple[Path, Settings]":
    """The project of a command: the option's file, else what the environment names, else the one last used here, else the sample."""
    from pipeline_project.local.project import current_project
    from pipeline_project.settings import load_settings
    from pipeline_project.settings.loading import named_config

    named = config or named_config()
    if named is not None:
        return Path(named), load_settings(named)
    return current_project(Path.cwd()) or (Path("sample"), load_settings())


@contextmanager
def user_errors() -> Iterator[None]:
    """Errors for users: the message alone, on stderr, and exit status 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"\nerror: {error}", err=True)
        raise typer.Exit(1) from None
