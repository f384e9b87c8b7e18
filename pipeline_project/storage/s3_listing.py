"""Reads listings of S3 an order of magnitude faster than botocore, whose general parser takes 10 s of processor time for 100,000 keys.

It sits before that parser: the entries of a page are read here, and the rest of the page, which is short then, goes on as ever. A page
that looks unusual is left to botocore as it is.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client  # type: ignore[import-not-found,unused-ignore]


def read_listings_fast(client: "S3Client") -> None:
    """From now on the pages of this client's ListObjectsV2 hold of each entry Key, Size, ETag and LastModified, and no more."""
    client.meta.events.register("before-parse.s3.ListObjectsV2", _take_entries)


def _take_entries(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    if response_dict["status_code"] != 200:
        return
    try:
        page = ElementTree.fromstring(response_dict["body"])  # noqa: S314  # as botocore does; expat bounds the expansion of entities
        space = page.tag.removesuffix("ListBucketResult")
        entries = page.findall(f"{space}Contents")
        contents = [_entry(entry, space) for entry in entries]
    except (ElementTree.ParseError, ValueError, TypeError):
        return
    if contents:
        for entry in entries:
            page.remove(entry)
        response_dict["body"] = ElementTree.tostring(page)
        customized_response_dict["Contents"] = contents


def _entry(entry: ElementTree.Element, space: str) -> dict[str, Any]:
    """One entry as botocore would give it. Raises `TypeError` or `ValueError` where a part is missing or strange."""
    key, size, etag, modified = (entry.findtext(f"{space}{name}") for name in ("Key", "Size", "ETag", "LastModified"))
    if not key or etag is None or modified is None:
        raise ValueError("an entry without a key, an ETag or a time")
    moment = datetime.fromisoformat(modified)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return {"Key": key, "Size": int(size or ""), "ETag": etag, "LastModified": moment}
