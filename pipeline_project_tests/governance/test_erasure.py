"""Erasing as a person asks for it: told once in the audit ledger, and what remains is said."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.governance import ledger
from pipeline_project.governance.erasure import erase_images, render_erasure
from pipeline_project.governance.removal import apply_removal
from pipeline_project.governance.retention import plan_removal
from pipeline_project.ingest.erasing import erase
from pipeline_project.ingest.erasure import erased
from pipeline_project.ingest.packs import open_pack
from pipeline_project.tables import frame_to_parquet
from pipeline_project_tests.dataset.shelf import Shelf, open_shelf_in

DAY = "2026-11-01"
WHY = {"reason": "her wish", "who": "Ada"}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = open_shelf_in(tmp_path)
    shelf.good_day(DAY, 0, 40)
    make_dataset_version(shelf.context)
    return shelf


def told(shelf: Shelf) -> list[tuple[str, str, str]]:
    return [(e.actor, e.action, e.subject) for e in ledger.entries(shelf.context.artifacts.bytes)]


def test_the_ledger_tells_it_once_for_each_image(shelf: Shelf) -> None:
    ids = sorted(shelf.row(n, "a").image_id for n in (3, 4))
    report = erase_images(shelf.context, ids, **WHY)
    assert told(shelf) == [("Ada", "erased", image) for image in ids]
    entry = next(ledger.entries(shelf.context.artifacts.bytes))
    assert entry.details["reason"] == "her wish"
    assert entry.details["removed"]["rows of pixels"] == 2
    assert report.done.days == [DAY]
    again = erase_images(shelf.context, ids, **WHY)
    assert len(told(shelf)) == 2
    assert "nothing: it was erased before" in render_erasure(again)
    assert ledger.verify(shelf.context.artifacts.bytes).intact


def test_an_erasure_that_died_before_the_ledger_is_told_when_run_again(shelf: Shelf) -> None:
    image = shelf.row(5, "a").image_id
    erase(shelf.context, [image], **WHY)  # all of it, but the ledger
    assert told(shelf) == []
    erase_images(shelf.context, [image], **WHY)
    assert told(shelf) == [("Ada", "erased", image)]


def test_what_remains_is_said(shelf: Shelf) -> None:
    row = shelf.row(6, "a")
    dataset = shelf.context.artifacts.latest("dataset_splits")
    publish = shelf.context.artifacts.publish
    model = publish("trained_model", {"weights.safetensors": b"w"}, info={"dataset": dataset.digest})
    publish("data_profile", {"profile.json": b"{}"}, sidecars={"profile.html": b"<html>"})
    log = pd.DataFrame({"image_id": [None, row.image_id], "request_id": ["r1", "r2"]})
    publish("prediction_log", {"predictions.parquet": frame_to_parquet(log)}, partition="2026-11-05")
    publish("prediction_log", {"predictions.parquet": frame_to_parquet(log.head(1))}, partition="2026-11-06")
    report = erase_images(shelf.context, [row.key], **WHY)
    assert report.models == [model.digest]
    assert report.versions == [dataset.digest]
    text = render_erasure(report)
    for part in (
        row.image_id,
        row.key,
        f"Materialize raw_images and what follows it of {DAY}",
        model.digest[:12],
        "data_profile",
        "Backups",
    ):
        assert part in text
    assert "2026-11-05" in text
    assert "2026-11-06" not in text
    assert erased(shelf.context.artifacts.bytes) == {row.image_id}
    version = make_dataset_version(shelf.context)
    assert version.metadata["erased_images"] == 1
    assert erase_images(shelf.context, [row.image_id], **WHY).versions == [dataset.digest]


def test_housekeeping_keeps_tombstones_and_the_record_of_blanked_rows(shelf: Shelf) -> None:
    """A version that stays must stay readable, and what was erased must stay erased."""
    row = shelf.row(7, "a")
    erase_images(shelf.context, [row.image_id], **WHY)
    plan = plan_removal(shelf.context)
    assert not [piece for piece in plan.pieces if "tombstones" in piece.place]
    apply_removal(shelf.context, plan)
    assert erased(shelf.context.artifacts.bytes) == {row.image_id}
    pack = open_pack(shelf.context.artifacts, shelf.context.artifacts.latest("image_pack", DAY))
    assert pack.verify() == []
    assert pack.erased == {row.image_id}
