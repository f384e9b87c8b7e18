"""Which images were erased: a tombstone for each in the store, which every reader honours.

A tombstone is written before anything is removed and is never taken away, so whatever a killed erasure left behind is not read either,
and bytes that arrive again do not come back to life. `erasing` removes; here is what readers need.
"""

import json
import re
from datetime import datetime
from typing import Any, Literal

from pipeline_project.contracts import Digest, Record
from pipeline_project.digests import sha256_bytes
from pipeline_project.storage import Artifact, ByteStore

TOMBSTONES = "processed-data/tombstones/"
ERASED_ROWS = "erased.json"
_TOMBSTONE = re.compile(rf"^{TOMBSTONES}([0-9a-f]{{64}})\.json$")


class Tombstone(Record):
    """Who had an image erased, when, and why. `image_id` is the SHA-256 of its bytes."""

    version: Literal[1] = 1
    image_id: Digest
    reason: str
    who: str
    when: datetime


def erased(store: ByteStore) -> frozenset[str]:
    """The ids (SHA-256 of the bytes) of all erased images. One listing of the store; nothing is read."""
    found = (_TOMBSTONE.match(key) for key in store.list(TOMBSTONES))
    return frozenset(match[1] for match in found if match)


def tombstone_key(image_id: str) -> str:
    """Where the tombstone of an image lies."""
    return f"{TOMBSTONES}{image_id}.json"


def read_tombstone(store: ByteStore, image_id: str) -> Tombstone:
    """The tombstone of an erased image.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged. It counts all the same.
    """
    try:
        return Tombstone.model_validate_json(store.read(tombstone_key(image_id)))
    except ValueError as error:
        raise ValueError(f"{tombstone_key(image_id)} in {store.uri} is damaged ({error}). Erase the image again.") from None


def erased_rows(artifact: Artifact) -> dict[str, Any]:
    """{payload file: {"rows": [...], "after": [...]}}: which rows of a version's arrays were overwritten with zeros, and the SHA-256
    that the file may have since."""
    try:
        record: dict[str, Any] = json.loads(artifact.sidecar(ERASED_ROWS))["files"]
    except FileNotFoundError:
        return {}
    return record


def read_payload(artifact: Artifact, file: str) -> bytes:
    """A payload file's bytes, checked: they are those published, or those without the erased rows.

    Raises:
        ValueError: neither.
        FileNotFoundError: they are gone.
    """
    data = artifact.store.read(f"{artifact.prefix}{file}")
    digest = sha256_bytes(data)
    if digest != artifact.files[file] and digest not in erased_rows(artifact).get(file, {}).get("after", ()):
        raise ValueError(f"{artifact.prefix}{file}: the bytes differ from those published. Materialize {artifact.name} again.")
    return data


def verify_payload(artifact: Artifact) -> None:
    """Read every payload file of a version that may have erased rows; raises what `read_payload` raises."""
    for file in artifact.files:
        read_payload(artifact, file)
