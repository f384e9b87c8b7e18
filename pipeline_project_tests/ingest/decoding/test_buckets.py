"""Decoding from a bucket: workers read it themselves, with the credentials of their parent."""

from collections.abc import Callable

import pytest

from pipeline_project.ingest.sources import SourceUnreachableError
from pipeline_project_tests.ingest.decoding.conftest import Shop
from pipeline_project_tests.servers.faulty_proxy import FaultyProxy
from pipeline_project_tests.servers.object_server import ObjectServer

CONTENTS = {f"{n:03d}": str(n % 200) for n in range(120)} | {"bad": "reject"}


@pytest.fixture
def both(shop: Shop, request: pytest.FixtureRequest) -> tuple[Shop, ObjectServer]:
    """A shop whose fork server ran before the credentials were known, and the bucket that it reads from now on."""
    shop.put(**CONTENTS)
    shop.decode()
    shop.home = "bucket"
    server: ObjectServer = request.getfixturevalue("moto_login")
    bucket = server.filled_bucket({f"shop/{key}": text.encode() for key, text in CONTENTS.items()})
    shop.address = f"s3://{bucket}/shop/"
    shop.settings["STORE__ENDPOINT_URL"] = server.endpoint
    return shop, server


def test_a_bucket_gives_what_a_folder_gives(both: tuple[Shop, ObjectServer]) -> None:
    shop, _ = both
    found = shop.decode()
    assert found.decoded == len(CONTENTS)
    assert shop.decode().decoded == 0
    shop.home, shop.address = "home", ""
    folder = shop.decode()
    assert folder.decoded == 0
    assert found.facts.equals(folder.facts)
    assert found.shards == folder.shards


@pytest.mark.slow
def test_a_bucket_out_of_reach_is_an_error_and_not_a_reject(
    both: tuple[Shop, ObjectServer], faulty: Callable[[ObjectServer], FaultyProxy]
) -> None:
    shop, server = both
    proxy = faulty(server)
    shop.settings["STORE__ENDPOINT_URL"] = proxy.endpoint
    listed = shop.listed()
    proxy.close()
    with pytest.raises(SourceUnreachableError, match="s3://"):
        shop.decode(listed)
    shop.settings["STORE__ENDPOINT_URL"] = server.endpoint
    assert shop.decode(listed).decoded == len(CONTENTS)
