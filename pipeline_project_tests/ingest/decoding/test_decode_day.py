"""decode_day: each object once, and the same result whatever was there before."""

import io
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from pipeline_project.digests import sha256_bytes
from pipeline_project.imaging import DecodeLimits, decode_image, perceptual_hash, to_pixels
from pipeline_project.ingest.decoding import DecodedDay, decode_day, shards
from pipeline_project.ingest.decoding.examine import Examiner
from pipeline_project.ingest.erasure import tombstone_key
from pipeline_project.ingest.sources import SourceUnreachableError
from pipeline_project.storage import FolderStore
from pipeline_project_tests.ingest.decoding.conftest import DAY, Shop


def facts(found: DecodedDay) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in found.facts.to_pylist()}


def values(shop: Shop, found: DecodedDay) -> dict[str, int]:
    """{key: brightness} of all pixels that the shards hold."""
    held = {}
    for shard in shards.find_shards(shop.context, found.shards):
        pixels = shard.read_pixels()
        assert len(pixels) == len(shard.rows)
        held_rows = {row for row in shard.rows.values() if row is not None}
        assert not any(image.any() for row, image in enumerate(pixels) if row not in held_rows)
        for key, row in shard.rows.items():
            if row is not None:
                assert np.ptp(pixels[row]) == 0
                held[key] = int(pixels[row, 0, 0, 0])
    return held


def test_facts_and_pixels_of_a_day(shop: Shop) -> None:
    shop.put(b="7", a="4", c="reject", d="7")
    found = shop.decode()
    assert found.facts.schema.names == [name for name in shards.SCHEMA.names if name != "measured"]
    assert found.facts["key"].to_pylist() == ["a", "b", "c", "d"]
    assert facts(found)["b"] == {
        "key": "b", "image_id": sha256_bytes(b"7"), "size": 1, "format": "TEXT", "mode": "L", "width": 8, "height": 2, "notes": '["odd"]',
        "perceptual_hash": perceptual_hash(np.full((32, 32, 3), 7, np.uint8)), "faces": None, "code": None, "detail": None,
    }  # fmt: skip
    reject = facts(found)["c"]
    assert (reject["code"], reject["detail"], reject["image_id"]) == ("corrupt", "it says so", sha256_bytes(b"reject"))
    assert reject["width"] is reject["format"] is None
    assert values(shop, found) == {"a": 4, "b": 7, "d": 7}
    assert found.decoded == 4


def test_real_photographs(shop: Shop) -> None:
    shop.examiner = Examiner
    random = np.random.default_rng(3)
    for number in range(5):
        out = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (50 + number, 70, 3), np.uint8)).save(out, "JPEG")
        shop.put(**{f"{number}.jpg": out.getvalue()})
    shop.put(**{"cut.jpg": out.getvalue()[:400], "text.jpg": "no picture"})
    found = shop.decode()
    assert {key: row["code"] for key, row in facts(found).items() if row["code"]} == {"cut.jpg": "corrupt", "text.jpg": "not_an_image"}
    assert (facts(found)["4.jpg"]["width"], facts(found)["4.jpg"]["height"]) == (70, 54)
    (shard,) = shards.find_shards(shop.context, found.shards)
    limits = DecodeLimits.from_settings(shop.context.settings.ingest)
    row = shard.rows["4.jpg"]
    assert row is not None
    expected = to_pixels(decode_image(out.getvalue(), limits, 32).pixels, 32)
    assert np.array_equal(shard.read_pixels()[row], expected)


def test_an_empty_day_and_a_day_of_one_image(shop: Shop) -> None:
    found = shop.decode()
    assert (found.facts.num_rows, found.shards, found.decoded) == (0, [], 0)
    assert found.facts.schema.names == [name for name in shards.SCHEMA.names if name != "measured"]
    shop.put(only="9")
    found = shop.decode()
    assert values(shop, found) == {"only": 9}


def test_nothing_new_starts_no_process_and_writes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.put(a="1", b="2")
    first = shop.decode()
    before = {path: path.stat().st_mtime_ns for path in (shop.root / "home").rglob("*") if path.is_file() and path.name == "pixels.npy"}
    monkeypatch.setattr("pipeline_project.ingest.decoding.day.DecodingPool", None)  # to need one would fail
    again = shop.decode()
    assert (again.decoded, again.shards) == (0, first.shards)
    assert again.facts.equals(first.facts)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_thousand_objects_lie_in_several_shards_and_each_change_is_decoded_alone(shop: Shop) -> None:
    shop.put(**{f"{n:04d}": str(n % 250) for n in range(1000)})
    first = shop.decode()
    assert (len(first.shards), first.decoded) == (4, 1000)
    assert values(shop, first) == {f"{n:04d}": n % 250 for n in range(1000)}
    shop.put(**{"0007": "99", "0500": "reject", "1000": "5"})
    (shop.source / "0003").unlink()
    second = shop.decode()
    assert second.decoded == 3
    assert values(shop, second) == {f"{n:04d}": n % 250 for n in range(1000) if n not in (3, 500)} | {"0007": 99, "1000": 5}


_KEYS = st.sampled_from([f"k{n}" for n in range(12)])
_CHANGES = st.one_of(
    st.tuples(st.just("put"), _KEYS, st.sampled_from(["1", "2", "3", "reject"])),
    st.tuples(st.just("delete"), _KEYS, st.just("")),
    st.tuples(st.just("touch"), _KEYS, st.just("")),
)


@hypothesis_settings(max_examples=25, deadline=None)
@given(runs=st.lists(st.lists(_CHANGES, max_size=6), min_size=1, max_size=4))
def test_after_any_changes_the_result_is_that_of_a_cold_run(runs: list[list[tuple[str, str, str]]]) -> None:
    """Buckets of three: the layout changes as the day grows and shrinks."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "BUCKET", 3)
        shop = Shop(Path(folder))
        contents: dict[str, str] = {}
        known: dict[str, str] = {}
        for changes in runs:
            touched = set()
            for what, key, text in changes:
                if what == "delete":
                    contents.pop(key, None)
                    (shop.source / key).unlink(missing_ok=True)
                elif what == "put" or key in contents:
                    contents[key] = text or contents[key]
                    shop.put(**{key: contents[key]})
                    touched.add(key)
            found = shop.decode()
            assert values(shop, found) == {key: int(text) for key, text in contents.items() if text != "reject"}
            assert found.decoded == len((touched | (contents.keys() - known.keys())) & contents.keys())
            assert found.decoded <= len(contents)
            known = dict(contents)
            shop.home = "cold"
            cold = shop.decode()
            assert cold.facts.equals(found.facts)
            assert cold.shards == found.shards
            shop.home = "home"
            shutil.rmtree(Path(folder) / "cold", ignore_errors=True)


def test_rows_are_not_taken_over_when_what_shapes_them_changed(shop: Shop) -> None:
    shop.put(a="1", b="2")
    shop.decode()
    shop.settings["IMAGE__SIZE"] = "48"
    assert shop.decode().decoded == 2
    shop.settings["INGEST__DECODE_SECONDS"] = "7"
    shop.settings["INGEST__WORKERS"] = "1"
    assert shop.decode().decoded == 0


def test_recompute_decodes_everything(shop: Shop) -> None:
    shop.put(a="1", b="2")
    first = shop.decode()
    again = decode_day(replace(shop.context, recompute=True), DAY, shop.listed(), examiner=shop.examiner)
    assert (again.decoded, again.shards) == (2, first.shards)


@pytest.mark.parametrize("what", ["removed", "changed"])
def test_a_damaged_shard_is_decoded_again(shop: Shop, what: str) -> None:
    shop.put(a="1", b="2")
    first = shop.decode()
    path = shop.shards(first)[0].path("pixels.npy")
    if what == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    shop.put(c="3")
    second = shop.decode()
    assert second.decoded == 3
    assert values(shop, second) == {"a": 1, "b": 2, "c": 3}


def test_too_large_objects_are_not_read(shop: Shop) -> None:
    shop.settings["INGEST__MAX_BYTES"] = "1000"
    shop.put(a="1", b="hang" + "x" * 997)
    row = facts(shop.decode())["b"]
    assert (row["code"], row["detail"], row["image_id"]) == ("too_many_bytes", "1001 bytes; at most 1000 are allowed", None)


def test_an_object_that_vanished_is_told(shop: Shop) -> None:
    shop.put(a="1", b="2")
    listed = shop.listed()
    (shop.source / "b").unlink()
    with pytest.raises(FileNotFoundError, match=r"b: no longer in .*Materialize raw_images of its day again"):
        shop.decode(listed)


def test_a_source_that_fails_is_no_reject_and_what_is_done_is_kept(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BUCKET", 3)
    shop.put(**{f"k{n}": str(n) for n in range(12)})
    listed = shop.listed()
    lost = max(range(12), key=lambda n: shards.bucket_of(f"k{n}", shards.bits_for(13)))
    name = f"k{lost}"
    extra = pa.table({"key": [f"{name}/inside"], "size": [1], "etag": ["x"]}, listed.schema)
    with pytest.raises(SourceUnreachableError, match="inside"):  # a file where a folder was listed
        shop.decode(pa.concat_tables([listed, extra]).sort_by("key"))
    assert 0 < shop.decode().decoded < 12


def test_an_erased_image_is_named_and_has_no_pixels(shop: Shop) -> None:
    shop.put(a="1", b="2", c="reject")
    shop.decode()
    store = shop.context.artifacts.bytes
    store.write(tombstone_key(sha256_bytes(b"1")), b"{}")
    found = shop.decode()
    assert facts(found)["a"]["code"] == "erased"
    assert facts(found)["a"]["image_id"] == sha256_bytes(b"1")
    assert facts(found)["a"]["perceptual_hash"] is None
    assert (values(shop, found), found.decoded) == ({"b": 2}, 0)
    shop.put(d="1")  # the same bytes under another name
    found = shop.decode()
    assert facts(found)["d"]["code"] == "erased"
    assert (values(shop, found), found.decoded) == ({"b": 2}, 1)
    shop.home = "cold"
    shop.context.artifacts.bytes.write(tombstone_key(sha256_bytes(b"1")), b"{}")
    assert shop.decode().shards == found.shards


def test_repaired_bytes_take_the_place_of_the_object(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.put(a="1", b="reject")
    shop.decode()
    shop.context.artifacts.bytes.write("restricted/repaired/x/y", b"9")
    mended = {sha256_bytes(b"reject"): "restricted/repaired/x/y"}
    monkeypatch.setattr("pipeline_project.ingest.decoding.day.repairs", lambda _: mended)
    found = shop.decode()
    assert (facts(found)["b"]["image_id"], facts(found)["b"]["code"], found.decoded) == (sha256_bytes(b"9"), None, 1)
    assert shop.decode().decoded == 0
    mended.clear()
    found = shop.decode()
    assert (facts(found)["b"]["code"], found.decoded) == ("corrupt", 1)


def test_a_shard_that_housekeeping_may_take_is_made_the_newest_again(shop: Shop) -> None:
    shop.put(a="1")
    (shard,) = shop.shards(shop.decode())
    store = shop.context.artifacts.bytes
    assert isinstance(store, FolderStore)
    record = store.root / shard.prefix / "artifact.json"
    os.utime(record, (0, 0))
    shop.decode()
    assert record.stat().st_mtime > 10**9
