"""The S3 client of the store and of the sources: one set of timeouts and retries, and reads that are whole or fail.

Works with AWS and with S3-compatible servers: with an endpoint of its own, buckets are addressed by path. Credentials are found by
boto3's own chain (environment, profile, web identity, instance role); none is ever put into a message.
"""

import base64
import functools
import hashlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline_project.storage.s3_listing import read_listings_fast

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client  # type: ignore[import-not-found,unused-ignore]

_MD5 = re.compile(r"^[0-9a-f]{32}$")


class CutBodyError(Exception):
    """An object's bytes did not come whole, however often it was asked for."""


@dataclass(frozen=True)
class Patience:
    """How long to try: seconds to connect, seconds without a byte, attempts in all, and the first pause between two (it doubles)."""

    connect_s: float = 10
    read_s: float = 60
    attempts: int = 5
    pause_s: float = 0.2


IMPATIENT = Patience(connect_s=3, read_s=6, attempts=2)
"""For what must end within seconds, such as a sensor's tick."""


def open_client(endpoint_url: str | None, patience: Patience) -> "S3Client":
    """A client that retries what is worth it (botocore's standard mode: connections, timeouts, 5xx, throttling; backoff with jitter)."""
    import boto3
    import botocore.session
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        connect_timeout=patience.connect_s,
        read_timeout=patience.read_s,
        max_pool_connections=32,
        s3={"addressing_style": "path"} if endpoint_url else {},
    )
    # a session of its own: boto3's shared one is not safe to use from threads, and keeps the first credentials it finds
    session = botocore.session.get_session()
    session.register_component("data_loader", _service_models())
    client = boto3.session.Session(botocore_session=session).client("s3", endpoint_url=endpoint_url, config=config)
    read_listings_fast(client)
    return client


@functools.cache
def _service_models() -> Any:
    """botocore's description of S3, read from the disk once."""
    from botocore.loaders import create_loader

    return create_loader()


def md5_header(data: bytes) -> str:
    """The Content-MD5 of a body, which every S3 server checks before it stores anything."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def read_object(client: "S3Client", bucket: str, key: str, patience: Patience, first_bytes: int | None = None) -> bytes:
    """An object's bytes, or only its first ones; a connection that ends in the middle is tried again, and never gives half an object.

    The length is checked against Content-Length, checksums where the server sends them, and the bytes against the ETag where that is
    an MD5 (neither multipart nor encrypted with KMS). A server whose ETags merely look like one is recognized: it sends the same
    bytes twice.

    Raises:
        CutBodyError: no attempt brought all bytes.
        botocore's errors: the request itself failed, after botocore's own retries.
    """
    from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError
    from urllib3.exceptions import HTTPError

    span = {} if first_bytes is None else {"Range": f"bytes=0-{first_bytes - 1}"}
    refused: bytes | None = None
    why = ""
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.pause_s * 2 ** (attempt - 1))
        try:
            answer: dict[str, Any] = client.get_object(Bucket=bucket, Key=key, **span)
        except HTTPError as error:  # botocore lets it through where an answer that says why not is cut in the middle
            why = str(error)
            continue
        try:
            data: bytes = answer["Body"].read()
        except (IncompleteReadError, FlexibleChecksumError, HTTPClientError) as error:
            why = str(error)
            continue
        if len(data) != answer["ContentLength"]:
            why = f"{len(data):,} of {answer['ContentLength']:,} bytes came"
        elif first_bytes is not None or _matches(answer, data) or data == refused:
            return data
        else:
            refused, why = data, "the bytes do not match their ETag"
    raise CutBodyError(f"the connection ended before all bytes came, {patience.attempts} times ({why})")


def _matches(answer: dict[str, Any], data: bytes) -> bool:
    etag: str = answer.get("ETag", "").strip('"')
    if not _MD5.match(etag) or answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer:
        return True
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == etag
