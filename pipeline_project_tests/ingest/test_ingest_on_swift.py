"""A day from a bucket on Swift into a store on Swift, from the listing to the features: the same as from a folder into a folder."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from pipeline_project.ingest.sources import SourceUnreachableError
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact
from pipeline_project_tests.servers.faulty_proxy import FaultyProxy
from pipeline_project_tests.servers.object_server import ObjectServer

pytestmark = pytest.mark.slow

DAY = date(2026, 11, 1)
Ingest = Callable[[StageContext, date], dict[str, Artifact]]
Open = Callable[..., StageContext]


@pytest.fixture
def day(photo: Callable[..., bytes]) -> dict[str, bytes]:
    """A day's objects: photos, one that is cut short, one twice, and labels."""
    photos = {f"2026-11-01/images/{n}.jpg": photo(n) for n in range(6)}
    photos["2026-11-01/images/cut.jpg"] = photo(7)[:200]
    photos["2026-11-01/images/again.jpg"] = photos["2026-11-01/images/0.jpg"]
    labels = "".join(f"images/{key.rpartition('/')[2]},books,standard,north,a book\n" for key in sorted(photos))
    return photos | {"2026-11-01/labels.csv": f"image,label,brand_tier,region,title\n{labels}".encode()}


def payloads(made: dict[str, Artifact]) -> dict[str, dict[str, str]]:
    """{artefact: {file: digest}}, without what tells ETags, which a folder and a bucket make differently."""
    return {name: {file: digest for file, digest in artifact.files.items() if file != "objects.parquet"} for name, artifact in made.items()}


def test_ingest_on_swift(
    swift_login: ObjectServer, open_context: Open, ingest_day: Ingest, put: Callable[[str, bytes], Path], day: dict[str, bytes]
) -> None:
    for key, data in day.items():
        put(key, data)
    on_disk = ingest_day(open_context(), DAY)
    bucket = swift_login.filled_bucket({f"shop/{key}": data for key, data in day.items()})
    store = swift_login.new_bucket()
    where = {"DATA__SOURCE": f"s3://{bucket}/shop/", "STORE__ROOT": f"s3://{store}/ml/", "STORE__ENDPOINT_URL": swift_login.endpoint}
    on_swift = ingest_day(open_context(**where), DAY)
    assert payloads(on_swift) == payloads(on_disk)
    for artifact in on_swift.values():
        artifact.verify()
    keys = [entry["Key"] for entry in swift_login.client().list_objects_v2(Bucket=store, Prefix="ml/")["Contents"]]
    assert {key.split("/")[1] for key in keys} >= {"processed-data", "features"}
    again = ingest_day(open_context(**where), DAY)
    assert {name: artifact.digest for name, artifact in again.items()} == {name: artifact.digest for name, artifact in on_swift.items()}


def test_ingest_through_a_bad_network(
    swift_login: ObjectServer,
    open_context: Open,
    ingest_day: Ingest,
    put: Callable[[str, bytes], Path],
    day: dict[str, bytes],
    faulty: Callable[[ObjectServer], FaultyProxy],
) -> None:
    for key, data in day.items():
        put(key, data)
    on_disk = ingest_day(open_context(), DAY)
    bucket, store, proxy = (
        swift_login.filled_bucket({f"shop/{k}": data for k, data in day.items()}),
        swift_login.new_bucket(),
        faulty(swift_login),
    )
    where = {"DATA__SOURCE": f"s3://{bucket}/shop/", "STORE__ROOT": f"s3://{store}/ml/", "STORE__ENDPOINT_URL": proxy.endpoint}
    proxy.spacing, proxy.refusals, proxy.cut_after, proxy.cuts = 5, 2, 350, 6
    shaken = ingest_day(open_context(**where), DAY)
    assert proxy.refusals == proxy.cuts == 0
    assert payloads(shaken) == payloads(on_disk)


def test_bucket_that_is_gone_is_an_error_and_leaves_the_last_good_version(
    swift_login: ObjectServer, open_context: Open, ingest_day: Ingest, day: dict[str, bytes]
) -> None:
    bucket = swift_login.filled_bucket({f"shop/{key}": data for key, data in day.items()})
    context = open_context(DATA__SOURCE=f"s3://{bucket}/shop/", STORE__ENDPOINT_URL=swift_login.endpoint)
    made = ingest_day(context, DAY)
    client = swift_login.client()
    for key in day:
        client.delete_object(Bucket=bucket, Key=f"shop/{key}")
    client.delete_bucket(Bucket=bucket)
    with pytest.raises(SourceUnreachableError, match=f"has no bucket {bucket}"):
        ingest_day(context, DAY)
    assert context.artifacts.latest("raw_images", DAY.isoformat()).digest == made["raw_images"].digest
