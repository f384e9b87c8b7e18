"""A prefix of an S3 bucket as a source: on AWS, or any server with its protocol.

boto3 rather than obstore, which reads the other clouds: obstore refuses a whole listing for the sake of one key such as `a//b` or one with
a line break in it, and finds no credentials in profiles.
"""

from collections.abc import Iterator
from typing import Any

from pipeline_project.ingest.sources.base import Listed, SourceUnreachableError, gone
from pipeline_project.ingest.sources.bucket import BucketSource
from pipeline_project.storage.errors import explain_s3_error
from pipeline_project.storage.s3_client import CutBodyError, Patience, open_client, read_object


class S3Source(BucketSource):
    """A prefix of an S3 bucket.

    Args:
        bucket: its name.
        prefix: what all keys begin with; empty, or with a slash at the end.
        endpoint_url: a server other than AWS.
        patience: timeouts and attempts.
    """

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None, patience: Patience | None = None) -> None:
        self._bucket, self._prefix, self._endpoint = bucket, prefix, endpoint_url
        self._patience = patience or Patience()
        self._client = open_client(endpoint_url, self._patience)

    def read(self, key: str, first_bytes: int | None = None) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return read_object(self._client, self._bucket, self._prefix + key, self._patience, first_bytes)
        except (BotoCoreError, CutBodyError) as error:
            raise self._unreachable(f"{key} cannot be read", error) from None
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 416:  # a range of an empty object
                return b""
            if status == 404 and error.response["Error"].get("Code") != "NoSuchBucket":
                raise FileNotFoundError(gone(key, f"s3://{self._bucket}/{self._prefix}")) from None
            raise self._unreachable(f"{key} cannot be read", error) from None

    def _below(self, folder: str, start_after: str) -> Iterator[Listed]:
        after = {"StartAfter": self._prefix + start_after} if start_after else {}
        for page in self._pages(Prefix=self._prefix + folder, **after):
            yield from (self._listed(entry) for entry in page.get("Contents", []))

    def _top(self) -> tuple[list[Listed], list[str]]:
        objects, folders = [], []
        for page in self._pages(Prefix=self._prefix, Delimiter="/"):
            objects += [self._listed(entry) for entry in page.get("Contents", [])]
            folders += [entry["Prefix"].removeprefix(self._prefix)[:-1] for entry in page.get("CommonPrefixes", [])]
        return objects, folders

    def _pages(self, **query: str) -> Iterator[dict[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        pages = iter(self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, **query))
        while True:
            try:
                page = next(pages, None)
            except (BotoCoreError, ClientError) as error:
                raise self._unreachable("cannot be listed", error) from None
            if page is None:
                return
            yield page

    def _unreachable(self, what: str, error: Exception) -> SourceUnreachableError:
        why, next_step = explain_s3_error(
            error, self._bucket, self._endpoint, setting="data.source", again="then materialize raw_images again"
        )
        return SourceUnreachableError(f"data.source: s3://{self._bucket}/{self._prefix}: {what}: {why}. {next_step}")

    def _listed(self, entry: dict[str, Any]) -> Listed:
        return Listed(entry["Key"].removeprefix(self._prefix), entry["Size"], entry["ETag"].strip('"'), entry["LastModified"])
