"""The fast reader of listings gives what botocore's own gives."""

from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_project.storage.s3_client import Patience, open_client
from pipeline_project.storage.s3_listing import _take_entries
from pipeline_project_tests.servers.object_server import ObjectServer


@pytest.mark.slow
def test_as_botocore(object_server: ObjectServer) -> None:
    keys = ["a b+c.jpg", "é%20.jpg", "x&<y>.jpg", "plain.jpg", "d/1.jpg", "d/2.jpg"]
    bucket = object_server.filled_bucket({key: key.encode() for key in keys})
    fast, plain = open_client(object_server.endpoint, Patience()), object_server.client()
    for query in ({}, {"MaxKeys": 2}, {"Prefix": "d/"}, {"Delimiter": "/"}, {"Prefix": "none"}, {"StartAfter": "d/1.jpg"}):
        ours, theirs = (client.list_objects_v2(Bucket=bucket, **query) for client in (fast, plain))
        for page in (ours, theirs):
            page.pop("ResponseMetadata")
        kept = ("Key", "Size", "ETag", "LastModified")
        theirs["Contents"] = [{name: entry[name] for name in kept} for entry in theirs.get("Contents", [])]
        assert ours.pop("Contents", []) == theirs.pop("Contents")
        ours.pop("NextContinuationToken", None), theirs.pop("NextContinuationToken", None)
        assert ours == theirs


def page_of(entries: str) -> dict[str, Any]:
    return {"status_code": 200, "body": f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()}


@settings(deadline=None)
@given(
    keys=st.lists(st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs", "Cc", "Cn"]), min_size=1), max_size=5),
    size=st.integers(0),
)
def test_entries_are_taken_out_of_the_page(keys: list[str], size: int) -> None:
    time = "2026-11-21T18:19:30.000Z"
    page = page_of(
        "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>&quot;e&quot;</ETag><LastModified>{time}</LastModified></Contents>"
            for key in keys
        )
    )
    taken: dict[str, Any] = {}
    _take_entries(page, taken)
    assert [(entry["Key"], entry["Size"], entry["ETag"]) for entry in taken.get("Contents", [])] == [(key, size, '"e"') for key in keys]
    assert b"Contents" not in page["body"]
    assert b"IsTruncated" in page["body"]


@pytest.mark.parametrize(
    "entries",
    [
        "<Contents><Key>a</Key></Contents>",
        "<Contents><Key>a</Key><Size>x</Size><ETag>e</ETag><LastModified>2026-11-21T18:19:30Z</LastModified></Contents>",
        "<Contents><Key>a</Key><Size>1</Size><ETag>e</ETag><LastModified>Sat, 21 Nov 2026</LastModified></Contents>",
        "<Contents>",
    ],
)
def test_what_is_unusual_is_left_to_botocore(entries: str) -> None:
    page, taken = page_of(entries), {}
    before = page["body"]
    _take_entries(page, taken)
    assert (page["body"], taken) == (before, {})
