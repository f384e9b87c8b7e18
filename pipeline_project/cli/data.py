"""`pipeline data` and `pipeline quarantine`: versions of the dataset, erased images, rejected ones."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline_project.cli.common import Config, project_of, user_errors

data = typer.Typer(no_args_is_help=True, help="Versions of the dataset; images that must go.")
quarantine = typer.Typer(no_args_is_help=True, help="Images that were rejected.")

Json = Annotated[bool, typer.Option("--json", help="as JSON, for machines")]
Version = Annotated[str, typer.Argument(help="a version's digest, or enough of its first digits; see `pipeline data list`")]


@data.command("list")
def list_versions(as_json: Json = False, config: Config = None) -> None:
    """Every dataset version, newest first: days, images, and the models that were trained on it."""
    import json

    from pipeline_project.dataset import history
    from pipeline_project.stage import StageContext

    with user_errors():
        found = history.list_versions(StageContext.open(project_of(config)[1]))
        print(json.dumps([entry.model_dump(mode="json") for entry in found], indent=2) if as_json else history.render_versions(found))


@data.command("diff")
def diff_versions(before: Version, after: Version, as_json: Json = False, config: Config = None) -> None:
    """What changed between two versions: days; images that came, went, moved or were labelled anew."""
    from pipeline_project.dataset import diff
    from pipeline_project.stage import StageContext

    with user_errors():
        found = diff.diff_versions(StageContext.open(project_of(config)[1]), before, after)
        print(found.model_dump_json(indent=2) if as_json else diff.render_diff(found))


@data.command("checkout")
def checkout_version(
    version: Version,
    folder: Annotated[Path, typer.Argument(help="a folder that does not exist yet")],
    pixels: Annotated[bool, typer.Option("--pixels", help="what training sees, as PNG, instead of the original files")] = False,
    config: Config = None,
) -> None:
    """Rebuild a version: images and label files by split, each image verified. Exit status 1 where some could not be had."""
    from pipeline_project.dataset import checkout
    from pipeline_project.stage import StageContext

    with user_errors():
        done = checkout.checkout_version(StageContext.open(project_of(config)[1], log=print), version, folder, pixels=pixels)
        print(checkout.render_checkout(done))
        if done.missing:
            raise typer.Exit(1)


@data.command("erase")
def erase_images(
    images: Annotated[list[str], typer.Argument(help="image ids, or keys in the source")],
    reason: Annotated[str, typer.Option(help="why, for the audit ledger")],
    by: Annotated[str, typer.Option(help="who erases, for the audit ledger")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    config: Config = None,
) -> None:
    """Remove images from everything stored, for good. They never come back, whatever the source holds."""
    from pipeline_project.governance import erasure
    from pipeline_project.stage import StageContext

    with user_errors():
        _, settings = project_of(config)
        if not yes:
            typer.confirm(f"Erase {len(images)} images of {settings.name} for good?", abort=True)
        print(erasure.render_erasure(erasure.erase_images(StageContext.open(settings), images, reason=reason, who=by)), end="")


@quarantine.command("list")
def list_quarantine(
    day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="of this day only")] = None, config: Config = None
) -> None:
    """Rejected images: day, code, id, key, and why."""
    from pipeline_project.ingest import quarantine as rejected
    from pipeline_project.stage import StageContext

    with user_errors():
        found = rejected.list_quarantine(StageContext.open(project_of(config)[1]), day.date() if day else None)
        for one in found:
            reject = one.reject
            state = "repaired" if one.repair else "kept" if one.kept else "bytes not kept"
            print(f"{one.day} {reject.code:18} {(reject.image_id or '-')[:12]:12} {state:14} {reject.key}: {reject.detail}")
        print(f"{len(found)} images are rejected" if found else "nothing is rejected")


@quarantine.command("release")
def release(
    image: Annotated[str, typer.Argument(help="id of the rejected image, or enough of its first digits")],
    repaired: Annotated[Path, typer.Argument(help="the repaired file")],
    reason: Annotated[str, typer.Option(help="what was repaired")],
    by: Annotated[str, typer.Option(help="who says that it is still the same picture")],
    config: Config = None,
) -> None:
    """Take a repaired file in place of a rejected image. The original stays in quarantine."""
    from pipeline_project.ingest import quarantine as rejected
    from pipeline_project.stage import StageContext

    with user_errors():
        done = rejected.release(StageContext.open(project_of(config)[1]), image, repaired, reason, by)
        days = ", ".join(map(str, done.days))
        print(f"{done.original[:12]} is taken as {done.repaired[:12]} from now on.")
        print(f"Materialize validated_manifest and what follows it of {days}.")
