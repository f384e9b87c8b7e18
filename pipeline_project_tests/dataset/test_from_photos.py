"""The whole way with real photos: ingest, a repair, a dataset version, its checkout, an erasure, the next version, what differs."""

import io
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline_project.dataset.checkout import checkout_version
from pipeline_project.dataset.checks import check_splits
from pipeline_project.dataset.diff import diff_versions
from pipeline_project.dataset.versions import make_dataset_version
from pipeline_project.digests import sha256_bytes
from pipeline_project.governance.erasure import erase_images
from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.ingest.quarantine import release
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext

DAY = date(2026, 11, 1)


def photo(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.kron(np.random.default_rng(seed).integers(0, 256, (8, 8, 3)), np.ones((6, 6, 1))).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StageContext]:
    folder = tmp_path / "source" / DAY.isoformat()
    folder.mkdir(parents=True)
    for n in range(30):
        (folder / f"{n}.jpg").write_bytes(photo(n))
    (folder / "labels.csv").write_text("image,label,brand\n" + "".join(f"{n}.jpg,{'ab'[n % 2]},brand {n}\n" for n in range(30)))
    environment = {"PIPELINE_HOME": str(tmp_path / "home"), "PIPELINE__DATA__SOURCE": str(folder.parent)}
    environment |= {"PIPELINE__DATA__CLASSES": "[a, b]", "PIPELINE__DATA__START_DATE": "2026-11-01", "PIPELINE__IMAGE__SIZE": "32"}
    return StageContext.open(load_settings("sample", environment=environment))


def ingest(context: StageContext) -> None:
    for step in (take_inventory, validate_images, pack_images, measure_images):
        step(context, DAY)


def test_from_photos_to_a_version_and_back(context: StageContext, tmp_path: Path) -> None:
    source = tmp_path / "source" / DAY.isoformat()
    damaged, mended = photo(3)[:200], tmp_path / "mended.jpg"
    (source / "3.jpg").write_bytes(damaged)
    mended.write_bytes(photo(300))
    ingest(context)
    release(context, sha256_bytes(damaged), mended, "scanned again", "Ada")
    ingest(context)
    first = make_dataset_version(context).artifact
    assert all(outcome.passed for outcome in check_splits(context))

    done = checkout_version(context, "newest", tmp_path / "out")
    assert done.missing == []
    there = {sha256_bytes(path.read_bytes()) for path in (tmp_path / "out").rglob("*.jpg")}
    assert there == {sha256_bytes(photo(300 if n == 3 else n)) for n in range(30)}

    report = erase_images(context, [f"{DAY}/5.jpg", f"{DAY}/3.jpg"], reason="their wish", who="Ada")
    assert set(report.done.image_ids) == {sha256_bytes(photo(5)), sha256_bytes(photo(300)), sha256_bytes(damaged)}
    ingest(context)
    second = make_dataset_version(context).artifact
    diff = diff_versions(context, first.digest, second.digest)
    assert diff.counts == {"added": 0, "removed": 2, "moved": 0, "relabelled": 0}
    assert diff.removed_because == {"erased": 2}
    assert all(outcome.passed for outcome in check_splits(context))

    for pixels in (False, True):
        again = checkout_version(context, first.digest, tmp_path / f"again-{pixels}", pixels=pixels)
        assert sorted((m.key, m.code) for m in again.missing) == [(f"{DAY}/3.jpg", "erased"), (f"{DAY}/5.jpg", "erased")]
        assert again.images.total() == 28
