"""Changed days: exactly those whose objects or labels differ from what was last taken in."""

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pipeline_project.ingest.arrivals import changed_days
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.sources import SourceError
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact

Put = Callable[[str, bytes | str], Path]
Settle = Callable[[StageContext], list[date]]
Ingest = Callable[[StageContext, date], dict[str, Artifact]]
ONE, TWO, THREE = date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)


@pytest.fixture
def shop(open_context: Callable[..., StageContext]) -> StageContext:
    """The start lies well in the past, whatever today is."""
    return open_context(DATA__START_DATE="2020-01-01")


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    """The days of these tests are not in the future."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Clock":
            return cls(2026, 11, 20, tzinfo=UTC)

    monkeypatch.setattr("pipeline_project.ingest.arrivals.datetime", Clock)


@pytest.fixture
def settle(ingest_day: Ingest) -> Settle:
    """Takes in what changed, as the sensor's runs do, and tells which days that were."""

    def settled(context: StageContext) -> list[date]:
        days = list(changed_days(context))
        for day in days:
            ingest_day(context, day)
        assert changed_days(context) == {}, "what was taken in is not asked for again"
        return days

    return settled


def lay(put: Put, layout: str = "{day}/{name}") -> None:
    for day in (ONE, TWO):
        for name in ("a.jpg", "b.jpg"):
            put(layout.format(day=day, name=name), f"{day}{name}")
        put(layout.format(day=day, name="labels.csv"), "image,label\na.jpg,toys\nb.jpg,home\n")


@pytest.mark.parametrize("layout", ["{day}/{name}", "{day}/images/{name}", "shop/{day}/{name}"])
def test_new_days_are_asked_for_once(shop: StageContext, put: Put, settle: Settle, layout: str) -> None:
    lay(put, layout)
    assert settle(shop) == [ONE, TWO]


def test_exactly_the_day_with_a_new_changed_or_deleted_object_is_asked_for(
    shop: StageContext, put: Put, settle: Settle, source: Path
) -> None:
    lay(put)
    settle(shop)
    put(f"{TWO}/c.jpg", "new")
    assert settle(shop) == [TWO]
    put(f"{ONE}/a.jpg", "changed")
    assert settle(shop) == [ONE]
    (source / str(TWO) / "b.jpg").unlink()
    assert settle(shop) == [TWO]
    put(f"{ONE}/labels.csv", "image,label\na.jpg,books\n")
    assert settle(shop) == [ONE]
    (source / str(TWO) / "labels.csv").unlink()
    assert settle(shop) == [TWO]
    put(f"{THREE}/a.jpg", "x")
    put(f"{ONE}/z.jpg", "x")
    assert settle(shop) == [ONE, THREE]


def test_day_that_was_not_taken_in_to_its_end_is_asked_for_again(shop: StageContext, put: Put, settle: Settle) -> None:
    lay(put)
    settle(shop)
    put(f"{TWO}/c.jpg", "new")
    take_inventory(shop, TWO)
    assert list(changed_days(shop)) == [TWO]
    validate_images(shop, TWO)
    assert list(changed_days(shop)) == [TWO]
    assert settle(shop) == [TWO]


def test_emptied_day_is_asked_for(shop: StageContext, put: Put, settle: Settle, source: Path) -> None:
    lay(put)
    settle(shop)
    for path in (source / str(ONE)).iterdir():
        path.unlink()
    assert settle(shop) == [ONE]
    assert shop.artifacts.latest("raw_images", str(ONE)).json("inventory.json")["objects"] == []


def test_label_file_of_all_days_concerns_all_days(shop: StageContext, put: Put, settle: Settle) -> None:
    lay(put)
    settle(shop)
    labels = put("labels.csv", f"image,label\n{ONE}/a.jpg,toys\n")
    moment = datetime(2026, 11, 2, tzinfo=UTC).timestamp()
    os.utime(labels, (moment, moment))
    assert settle(shop) == [ONE, TWO]


def test_flat_source(shop: StageContext, put: Put, settle: Settle) -> None:
    def arrive(name: str, day: date) -> None:
        moment = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        os.utime(put(name, name), (moment, moment))

    arrive("a.jpg", ONE)
    arrive("b.jpg", TWO)
    assert settle(shop) == [ONE, TWO]
    arrive("a.jpg", THREE)  # a copy onto itself: new bytes perhaps, but its day stays
    assert settle(shop) == [ONE]


def test_future_days_wait(shop: StageContext, put: Put) -> None:
    today = date(2026, 11, 20)
    for day in (today, today + timedelta(days=1)):
        put(f"{day}/a.jpg", "x")
    assert list(changed_days(shop)) == [today]


def test_unreachable_source_is_never_quiet(shop: StageContext, put: Put, source: Path) -> None:
    source.rename(source.with_name("moved"))
    with pytest.raises(SourceError, match="is not a folder"):
        changed_days(shop)
