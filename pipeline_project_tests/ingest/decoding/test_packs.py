"""Packs: an index over shards, read row by row."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline_project.contracts import ManifestRow
from pipeline_project.digests import canonical_json, sha256_bytes
from pipeline_project.ingest.decoding import ShardRef, decode_day
from pipeline_project.ingest.erasure import tombstone_key
from pipeline_project.ingest.pack import pack_images
from pipeline_project.ingest.pack_checks import check_pack
from pipeline_project.ingest.packs import ErasedImagesError, PackReader, open_pack
from pipeline_project.storage import ArtifactMissingError
from pipeline_project.tables import records_to_parquet
from pipeline_project_tests.ingest.decoding.conftest import DAY, Shop

COUNT = 600  # four shards
COLOURS = [n % 251 for n in range(COUNT)]


def manifest(shop: Shop, leave_out: frozenset[str] = frozenset()) -> list[ManifestRow]:
    """Publish what validated_manifest would, with the rows in an order of their own; gives the rows."""
    found = decode_day(shop.context, DAY, shop.listed(), examiner=shop.examiner)
    facts = [row for row in found.facts.to_pylist() if row["code"] is None and row["key"] not in leave_out]
    names = ("image_id", "key", "width", "height", "mode", "format", "size", "perceptual_hash")
    rows = [ManifestRow(**{name: row[name] for name in names}, label=("even", "odd")[row["width"] % 2], attributes={}) for row in facts]
    rows.sort(key=lambda row: row.image_id)
    shards = {"size": shop.context.settings.image.size, "shards": [[ref.partition, ref.digest] for ref in found.shards]}
    payload = {"manifest.parquet": records_to_parquet(rows, ManifestRow), "shards.json": canonical_json(shards)}
    shop.context.artifacts.publish("validated_manifest", payload, partition=DAY.isoformat())
    return rows


def packed(shop: Shop) -> PackReader:
    return open_pack(shop.context.artifacts, pack_images(shop.context, DAY).artifact)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("packs"))
    shop.put(**{f"{n:03d}": f"{colour}" for n, colour in enumerate(COLOURS)}, bad="reject")
    return shop


def test_rows_are_the_manifests_and_pixels_those_of_their_images(filled: Shop) -> None:
    rows = manifest(filled, leave_out=frozenset({"003", "444"}))
    pack = packed(filled)
    assert (len(pack), pack.size, len(pack.shards)) == (COUNT - 2, 32, 4)
    assert pack.image_ids == [row.image_id for row in rows]
    assert pack.manifest == filled.context.artifacts.latest("validated_manifest", DAY.isoformat()).digest
    expected = [COLOURS[int(row.key)] for row in rows]
    assert [int(image[0, 0, 0]) for batch in pack.batches(100) for image in batch] == expected
    assert [outcome.passed for outcome in check_pack(filled.context, DAY)] == [True, True]


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, COUNT - 1), max_size=40))
def test_any_rows_in_any_order_as_often_as_asked(filled: Shop, rows: list[int]) -> None:
    named = manifest(filled)
    found = packed(filled).gather(np.array(rows, np.int64))
    assert found.shape == (len(rows), 32, 32, 3)
    assert [int(image.mean()) for image in found] == [COLOURS[int(named[row].key)] for row in rows]


def test_a_pack_copies_no_pixels(filled: Shop) -> None:
    manifest(filled)
    artifact = packed(filled).artifact
    assert sorted(artifact.files) == ["index.parquet", "pack.json"]
    assert sum(len(artifact.read(file)) for file in artifact.files) < 100 * COUNT


def test_an_unchanged_manifest_gives_the_pack_again_unless_a_shard_is_gone(shop: Shop) -> None:
    shop.put(a="1", b="2")
    manifest(shop)
    first = pack_images(shop.context, DAY)
    assert pack_images(shop.context, DAY).metadata["reused"] is True
    pack = open_pack(shop.context.artifacts, first.artifact)
    shop.context.artifacts.version("image_shard", pack.shards[0].digest, pack.shards[0].partition).path("pixels.npy").unlink()
    with pytest.raises(FileNotFoundError):
        pack_images(shop.context, DAY)
    shop.put(b="3")
    manifest(shop)
    assert [int(image.max()) for image in packed(shop).gather(np.arange(2))] in ([1, 3], [3, 1])


def test_a_changed_byte_is_found_and_the_shard_named(shop: Shop) -> None:
    shop.put(a="1", b="2")
    manifest(shop)
    (ref,) = packed(shop).shards
    path = shop.context.artifacts.version("image_shard", ref.digest, ref.partition).path("pixels.npy")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    outcomes = {outcome.name: outcome for outcome in check_pack(shop.context, DAY)}
    assert outcomes["row_count"].passed
    assert not outcomes["content_hash"].passed
    assert ref.partition in outcomes["content_hash"].detail
    assert "recompute=true" in outcomes["content_hash"].detail


def test_a_manifest_whose_image_is_in_no_shard_is_refused(shop: Shop) -> None:
    shop.put(a="1", b="2")
    (row, other) = manifest(shop)
    artifact = shop.context.artifacts.latest("validated_manifest", DAY.isoformat())
    strange = row.model_copy(update={"image_id": sha256_bytes(b"other")})
    payload = {"manifest.parquet": records_to_parquet([strange, other], ManifestRow), "shards.json": artifact.read("shards.json")}
    shop.context.artifacts.publish("validated_manifest", payload, partition=DAY.isoformat())
    with pytest.raises(ValueError, match=f"{row.key}: accepted, but its pixels are in no shard"):
        pack_images(shop.context, DAY)


def test_an_empty_manifest(shop: Shop) -> None:
    shop.put(a="reject")
    assert manifest(shop) == []
    pack = packed(shop)
    assert (len(pack), list(pack.batches()), pack.verify()) == (0, [], [])
    assert pack.gather(np.array([], np.int64)).shape == (0, 32, 32, 3)


def test_a_pack_of_an_older_program_says_what_to_do(shop: Shop) -> None:
    old = {"rows.json": canonical_json({"image_ids": []}), "pixels.npy": b""}
    artifact = shop.context.artifacts.publish("image_pack", old, partition=DAY.isoformat())
    with pytest.raises(ValueError, match=r"another version of this program.*Materialize raw_images"):
        open_pack(shop.context.artifacts, artifact)
    manifest(shop)
    assert not any(outcome.passed for outcome in check_pack(shop.context, DAY))


def test_an_index_whose_bytes_were_changed_is_refused(shop: Shop) -> None:
    shop.put(a="1")
    manifest(shop)
    artifact = packed(shop).artifact
    artifact.store.write(f"{artifact.prefix}pack.json", json.dumps({**artifact.json("pack.json"), "size": 64}).encode())
    with pytest.raises(ValueError, match="bytes differ"):
        open_pack(shop.context.artifacts, artifact)


def test_erased_images_are_never_given(shop: Shop) -> None:
    shop.put(a="1", b="2", c="3")
    rows = manifest(shop)
    artifact = packed(shop).artifact
    lost = sha256_bytes(b"2")
    artifact.store.write(tombstone_key(lost), b"{}")
    pack = open_pack(shop.context.artifacts, artifact)
    assert pack.erased == {lost}
    with pytest.raises(ErasedImagesError, match=lost[:12]):
        pack.gather(np.arange(3))
    kept = [place for place, row in enumerate(rows) if row.image_id != lost]
    assert pack.gather(np.array(kept)).shape[0] == 2


def test_a_shard_that_was_removed_is_told(shop: Shop, tmp_path: Path) -> None:
    shop.put(a="1")
    manifest(shop)
    pack = packed(shop)
    (ref,) = pack.shards
    assert ref == ShardRef(f"{DAY}.00-00000", ref.digest)
    artifact = shop.context.artifacts.version("image_shard", ref.digest, ref.partition)
    shop.context.artifacts.bytes.delete(f"{artifact.prefix}artifact.json")
    assert any(ref.partition in problem for problem in pack.verify())
    with pytest.raises(ArtifactMissingError):
        open_pack(shop.context.artifacts, pack.artifact).gather(np.array([0]))
