"""What is in an image's metadata, and who is named in a text column, lies nowhere in the store but in the restricted zone."""

import io
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline_project.dataset.profile import profile_data
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact

DAY = date(2026, 11, 1)
SERIAL, OWNER, COMMENT, PLACE = "SN-7734-SERIAL", "Ottilie Beispiel", "seen at granny's house", "52.516275"
SECRETS = (SERIAL, OWNER, COMMENT, PLACE, "GPSLatitude", "ottilie@beispiel.example", "4111 1111 1111 1111", "+49 30 9018 2090")
XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf GPSLatitude="{PLACE}" owner="{OWNER}"/></x:xmpmeta>'.encode()


def exif() -> Image.Exif:
    """Location, camera serial number, owner and a comment, as a camera writes them."""
    tags = Image.Exif()
    tags[0x010E], tags[0x013B], tags[0xA431] = COMMENT, OWNER, SERIAL
    tags.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 58.59), 3: "E", 4: (13.0, 22.0, 39.72), 29: "2026:11:01"})
    tags.get_ifd(0x8769).update({0xA431: SERIAL, 0xA430: OWNER, 0x9286: COMMENT.encode()})
    return tags


def photographs() -> dict[str, bytes]:
    """One image a format, each with all that it can carry, and one that cannot be decoded."""
    random = np.random.default_rng(3)
    found = {}
    for number, name in enumerate(("a.jpg", "b.png", "c.webp")):
        picture = Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        if name == "a.jpg":
            picture.save(buffer, "JPEG", exif=exif(), comment=COMMENT.encode(), xmp=XMP)
        elif name == "b.png":
            texts = PngInfo()
            texts.add_text("Author", OWNER)
            texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
            picture.save(buffer, "PNG", exif=exif(), pnginfo=texts)
        else:
            picture.save(buffer, "WEBP", exif=exif(), xmp=XMP)
        found[f"{DAY}/images/{number}-{name}"] = buffer.getvalue()
    found[f"{DAY}/images/cut.jpg"] = found[f"{DAY}/images/0-a.jpg"][:-500]
    return found


def traces(folder: Path) -> dict[str, list[str]]:
    """{file: secrets in its bytes} below a folder; Parquet files are read, as they are compressed."""
    import pyarrow.parquet as pq

    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet":
                data += str(pq.read_table(path).to_pylist()).encode() + str(pq.read_schema(path).metadata).encode()
            hits = [secret for secret in SECRETS if secret.encode() in data]
            if hits:
                found[path.relative_to(folder).as_posix()] = hits
    return found


def test_metadata_and_masked_texts_stay_in_the_restricted_zone(
    context: StageContext,
    source: Path,
    put: Callable[[str, bytes | str], Path],
    ingest_day: Callable[[StageContext, date], dict[str, Artifact]],
) -> None:
    images = photographs()
    for key, data in images.items():
        put(key, data)
    title = "from ottilie@beispiel.example, 4111 1111 1111 1111, +49 30 9018 2090"
    rows = [f'{key.removeprefix(f"{DAY}/")},home,"{title}"' for key in images]
    put(f"{DAY}/labels.csv", "\n".join(["image,label,title", *rows]) + "\n")
    assert len(traces(source)) == 5, "the search finds what is there"
    made = ingest_day(context, DAY)
    profile_data(context)
    assert made["validated_manifest"].json("verdict.json")["accepted"] == 3
    store = context.settings.home / context.settings.store.root
    found = traces(store)
    assert {name for name in found if not name.startswith("restricted/")} == set()
    assert any(name.startswith("restricted/quarantine/") for name in found), "the bytes of the damaged one are kept there"
    report = made["validated_manifest"].json("personal_data.json")
    assert report["text"]["columns"]["title"]["found"] == {"card": 4, "email": 4, "phone": 4}
