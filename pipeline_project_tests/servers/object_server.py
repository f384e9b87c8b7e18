"""S3-protocol servers on loopback for tests: Swift in a process of its own, moto in a thread of this one."""

import secrets
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_S = 60


@dataclass(frozen=True)
class ObjectServer:
    """A server that runs, and whom it knows."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str

    def environment(self, **wrong: str) -> dict[str, str]:
        """What a process needs in its environment to be let in; arguments replace values, such as `AWS_SECRET_ACCESS_KEY="wrong"`."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        } | wrong

    def client(self, endpoint: str | None = None) -> Any:
        """A plain boto3 client that sees what is really stored."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def new_bucket(self) -> str:
        """An empty bucket of its own."""
        name = f"b{secrets.token_hex(8)}"
        self.client().create_bucket(Bucket=name)
        return name

    def filled_bucket(self, objects: Mapping[str, bytes]) -> str:
        """A bucket of its own with these objects."""
        bucket, client = self.new_bucket(), self.client()
        if self.name == "moto" and len(objects) > 100:  # moto lives in this process: thousands of keys without thousands of requests
            from moto.s3.models import s3_backends

            for key, data in objects.items():
                s3_backends["123456789012"]["aws"].put_object(bucket, key, data)
            return bucket
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=objects[key]), objects))
        return bucket


@contextmanager
def swift(folder: Path) -> Iterator[ObjectServer]:
    """OpenStack Swift, its data in `folder`. It checks credentials, signatures and checksums as a real server does."""
    user, secret = "test:tester", secrets.token_hex(12)
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("swift_server.py")), str(folder), user, secret],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        port = _ready(server, folder / "log.txt")
        yield ObjectServer("swift", f"http://127.0.0.1:{port}", user, secret)
    finally:
        server.kill()
        server.wait()


def _ready(server: "subprocess.Popen[str]", log: Path) -> int:
    assert server.stdout is not None
    answers, _, _ = select.select([server.stdout], [], [], _START_S)
    said = server.stdout.readline().split() if answers else []
    if said[:1] != ["ready"]:
        raise RuntimeError(f"Swift did not start within {_START_S} s:\n{log.read_text(errors='replace')[-2000:]}")
    return int(said[1])


@contextmanager
def moto() -> Iterator[ObjectServer]:
    """moto's server: a wide interface (encryption headers, conditional writes, queues), no check of credentials, all in memory."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield ObjectServer("moto", f"http://{host}:{port}", "testing", "testing")
    finally:
        stopper = threading.Thread(target=server.stop, daemon=True)  # it waits for idle connections otherwise
        stopper.start()
        stopper.join(5)
