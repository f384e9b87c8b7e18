"""Rebuilding a dataset version as a folder of images and label files: `pipeline data checkout VERSION FOLDER` (R24, R30, R48).

The folder holds train_images/, val_images/, test_images/ with train_labels.csv, val_labels.csv, test_labels.csv (paths relative to their
folder), labels.csv over all of them, missing.csv (what could not be had, and why) and dataset.json (the version's record). It is made
in a draft beside it and renamed when it is whole: it is there complete, or not at all.
"""

import csv
import io
import json
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_project.contracts import DatasetVersion, Split
from pipeline_project.dataset.history import find_version
from pipeline_project.dataset.reading import load_version
from pipeline_project.digests import sha256_bytes
from pipeline_project.ingest.erasure import erased, read_tombstone
from pipeline_project.ingest.packs import PackReader, open_pack
from pipeline_project.ingest.repairs import repairs
from pipeline_project.ingest.sources import Source, open_source
from pipeline_project.stage import StageContext
from pipeline_project.storage import ByteStore
from pipeline_project.tables import parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd

FOLDERS: Mapping[Split, str] = {"train": "train", "validation": "val", "test": "test"}
_READERS, _AT_ONCE, _TOLD = 8, 64, 500
_PLAIN = re.compile(r"^(?![-.])[\w .,()+=@-]{1,100}(?<![ .])$", re.ASCII)
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names that Windows refuses


@dataclass(frozen=True)
class Missing:
    """An image of the version that could not be had. `code`: erased, gone (from the source) or changed (there)."""

    image_id: str
    key: str
    split: Split
    code: str
    detail: str


@dataclass
class Checkout:
    """What was rebuilt. `images`: written, by split."""

    version: str
    folder: Path
    images: Counter[str] = field(default_factory=Counter)
    missing: list[Missing] = field(default_factory=list)


@dataclass(frozen=True)
class _Wanted:
    """One image of the version, as its manifest describes it."""

    image_id: str
    key: str
    day: str
    pack_row: int
    split: Split
    label: str
    format: str
    attributes: dict[str, str]


def checkout_version(context: StageContext, name: str, folder: Path, *, pixels: bool = False) -> Checkout:
    """Rebuild a version.

    The images are the original bytes, with everything in them (faces, metadata): keep the folder as you keep the source. With `pixels`
    they are the packed pixels as PNG files, which is what training sees, and what there is when the originals are gone.

    Args:
        name: a digest, the beginning of one, or "newest".
        folder: must not exist, or be empty.
        pixels: take the packed pixels.

    Raises:
        ValueError: the name fits no version or several; the folder is taken; a stored pack is damaged.
        SourceUnreachableError: the source does not answer.
        OSError: the folder cannot be written.
    """
    artifact = find_version(context, name)
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already, and not empty. Name a new folder, or remove that one first.")
    version = load_version(artifact)
    wanted = _wanted(context, version, parquet_to_frame(artifact.read("splits.parquet")))
    done = Checkout(artifact.digest, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}.draft-{secrets.token_hex(4)}"
    try:
        names = _names(wanted, pixels)
        with ExitStack() as files:
            tables = _Tables(draft, files, context, wanted)
            found = _pixels(context, version, wanted) if pixels else _originals(context, wanted)
            for count, (image, data) in enumerate(found, start=1):
                if isinstance(data, Missing):
                    done.missing.append(data)
                    tables.miss(image, data)
                else:
                    path = draft / f"{FOLDERS[image.split]}_images" / names[image.image_id]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                    done.images[image.split] += 1
                    tables.add(image, names[image.image_id])
                if count % _TOLD == 0 or count == len(wanted):
                    context.log(f"{count:,} of {len(wanted):,} images, {len(done.missing):,} missing")
        (draft / "dataset.json").write_text(json.dumps({"digest": artifact.digest, **version.model_dump(mode="json")}, indent=2) + "\n")
        draft.replace(folder)  # over an empty folder, too
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return done


def render_checkout(done: Checkout) -> str:
    """What was rebuilt, for a terminal."""
    counts = ", ".join(f"{done.images[split]:,} {split}" for split in FOLDERS)
    text = [f"{done.version[:12]} in {done.folder}: {counts}.\n"]
    for code, count in sorted(Counter(m.code for m in done.missing).items()):
        first = next(m for m in done.missing if m.code == code)
        text.append(f"missing: {count:,} {code}, such as {first.key}: {first.detail}\n")
    if done.missing:
        text.append(f"All of them are in {done.folder / 'missing.csv'}.\n")
    if any(m.code != "erased" for m in done.missing):
        text.append("--pixels takes what training saw of them instead: it needs no originals.\n")
    return "".join(text)


def _wanted(context: StageContext, version: DatasetVersion, rows: "pd.DataFrame") -> list[_Wanted]:
    found: list[_Wanted] = []
    for day, chosen in rows.groupby("day", sort=True):
        manifest = context.artifacts.version("validated_manifest", version.days[str(day)], str(day))
        facts = parquet_to_frame(manifest.read("manifest.parquet")).iloc[chosen["pack_row"]]
        columns = (chosen["image_id"], facts["key"], chosen["pack_row"], chosen["split"], chosen["class_index"], facts["format"])
        found += [
            _Wanted(image_id, key, str(day), int(row), split, version.classes[class_index], str(format_), json.loads(attributes))
            for image_id, key, row, split, class_index, format_, attributes in zip(*columns, facts["attributes"], strict=True)
        ]
    return found


def _originals(context: StageContext, wanted: Sequence[_Wanted]) -> Iterator[tuple[_Wanted, bytes | Missing]]:
    """The bytes of each image from the source (or its repair), in order; a few are in memory at once."""
    store, source = context.artifacts.bytes, open_source(context.settings)
    gone, repaired = erased(store), repairs(store)

    def fetch(image: _Wanted) -> tuple[_Wanted, bytes | Missing]:
        return image, _erased(store, image) if image.image_id in gone else _original(store, source, repaired, image)

    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(wanted), _AT_ONCE):
            yield from readers.map(fetch, wanted[start : start + _AT_ONCE])


def _original(store: ByteStore, source: Source, repaired: Mapping[str, str], image: _Wanted) -> bytes | Missing:
    try:
        data = source.read(image.key)
    except FileNotFoundError:
        return Missing(image.image_id, image.key, image.split, "gone", "it is no longer in the source")
    image_id = sha256_bytes(data)
    if image_id != image.image_id and image_id in repaired:
        data = store.read(repaired[image_id])
    if sha256_bytes(data) != image.image_id:
        return Missing(image.image_id, image.key, image.split, "changed", f"the source now has other bytes there ({image_id[:12]})")
    return data


def _pixels(context: StageContext, version: DatasetVersion, wanted: Sequence[_Wanted]) -> Iterator[tuple[_Wanted, bytes | Missing]]:
    """The packed pixels of each image as PNG, in order; the shards behind them are verified first."""
    store, gone = context.artifacts.bytes, erased(context.artifacts.bytes)
    packs: dict[str, PackReader] = {}
    for image in wanted:
        if image.image_id in gone:
            yield image, _erased(store, image)
            continue
        if image.day not in packs:
            packs = {image.day: open_pack(context.artifacts, context.artifacts.version("image_pack", version.packs[image.day], image.day))}
            problems = packs[image.day].verify()
            if problems:
                raise ValueError(f"image_pack of {image.day} is damaged: {problems[0]}. Materialize image_pack of {image.day} again.")
        yield image, _png(packs[image.day].gather(np.array([image.pack_row]))[0])


def _png(pixels: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _erased(store: ByteStore, image: _Wanted) -> Missing:
    try:
        tombstone = read_tombstone(store, image.image_id)
        told = f"erased on {tombstone.when:%Y-%m-%d} on the word of {tombstone.who}: {tombstone.reason}"
    except ValueError:
        told = "erased; its tombstone is damaged"
    return Missing(image.image_id, image.key, image.split, "erased", told)


def _names(wanted: Sequence[_Wanted], pixels: bool) -> dict[str, str]:
    """A file name for each image: its key where every part of it is a plain name on every system and no other image of the split has it
    (upper and lower case alike); its id otherwise."""
    plain = {image.image_id: _plain(image, pixels) for image in wanted}
    taken = Counter((image.split, plain[image.image_id].lower()) for image in wanted)
    folders = {
        (image.split, str(parent).lower())
        for image in wanted
        for parent in PurePosixPath(plain[image.image_id]).parents
        if plain[image.image_id]
    }
    return {
        image.image_id: name
        if (name := plain[image.image_id]) and taken[image.split, name.lower()] == 1 and (image.split, name.lower()) not in folders
        else f"{image.image_id}{_suffix(image, pixels)}"
        for image in wanted
    }


def _plain(image: _Wanted, pixels: bool) -> str:
    path = PurePosixPath(image.key)
    if pixels:
        path = path.with_name(f"{path.name}.png")
    fit = 0 < len(path.parts) <= 8 and all(_PLAIN.match(part) and not _RESERVED.match(part) for part in path.parts)
    return path.as_posix() if fit and path.as_posix().removesuffix(".png" if pixels else "") == image.key else ""


def _suffix(image: _Wanted, pixels: bool) -> str:
    return ".png" if pixels else f".{image.format.lower()}"


class _Tables:
    """The label files and missing.csv, written as images come."""

    def __init__(self, draft: Path, files: ExitStack, context: StageContext, wanted: Sequence[_Wanted]) -> None:
        data = context.settings.data
        own = {data.image_column, data.label_column, "split", "day", "sha256"}
        self._attributes = sorted({name for image in wanted for name in image.attributes} - own)
        columns = [data.image_column, data.label_column, *self._attributes, "day", "sha256"]
        draft.mkdir()
        for name in FOLDERS.values():
            (draft / f"{name}_images").mkdir()

        def table(file: str, columns: Sequence[str]) -> Any:
            writer = csv.writer(files.enter_context((draft / file).open("w", newline="", encoding="utf-8")))
            writer.writerow(columns)
            return writer

        self._splits = {split: table(f"{name}_labels.csv", columns) for split, name in FOLDERS.items()}
        self._all = table("labels.csv", [*columns, "split"])
        self._missing = table("missing.csv", ["key", "sha256", "split", "day", data.label_column, "code", "detail"])

    def add(self, image: _Wanted, name: str) -> None:
        values = [image.label, *(image.attributes.get(column, "") for column in self._attributes), image.day, image.image_id]
        self._splits[image.split].writerow([name, *values])
        self._all.writerow([f"{FOLDERS[image.split]}_images/{name}", *values, image.split])

    def miss(self, image: _Wanted, missing: Missing) -> None:
        self._missing.writerow([image.key, image.image_id, image.split, image.day, image.label, missing.code, missing.detail])
