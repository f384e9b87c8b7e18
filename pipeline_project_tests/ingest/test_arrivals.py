"""Changed days: exactly those whose objects or label rows differ from what was last taken in."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pipeline_project.ingest.arrivals import changed_days, nightly_scan
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.sources import SourceError
from pipeline_project_tests.ingest.days import NOW, Story, take_in

ONE, TWO, THREE = date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def settle(story: Story) -> list[date]:
    """Takes in what changed, as the sensor's runs do, and tells which days that were."""
    days = list(changed_days(story.context, now=NOW))
    for day in days:
        take_in(story.context, day)
    assert changed_days(story.context, now=NOW) == {}, "what was taken in is not asked for again"
    return days


def lay(story: Story, layout: str = "{day}/{name}") -> None:
    for day in (ONE, TWO):
        for name in ("a.jpg", "b.jpg"):
            story.put(layout.format(day=day, name=name), f"{day}{name}")
        story.label(layout.format(day=day, name="labels.csv"), {"a.jpg": "toys", "b.jpg": "home"})


@pytest.mark.parametrize("layout", ["{day}/{name}", "{day}/images/{name}", "shop/{day}/{name}"])
def test_new_days_are_asked_for_once(story: Story, layout: str) -> None:
    lay(story, layout)
    assert settle(story) == [ONE, TWO]


def test_exactly_the_day_with_a_new_changed_or_deleted_object_is_asked_for(story: Story) -> None:
    lay(story)
    settle(story)
    story.put(f"{TWO}/c.jpg", "new")
    assert settle(story) == [TWO]
    story.put(f"{ONE}/a.jpg", "changed")
    assert settle(story) == [ONE]
    story.remove(f"{TWO}/b.jpg")
    assert settle(story) == [TWO]
    story.label(f"{ONE}/labels.csv", {"a.jpg": "books"})
    assert settle(story) == [ONE]
    story.remove(f"{TWO}/labels.csv")
    assert settle(story) == [TWO]
    story.put(f"{THREE}/a.jpg", "x")
    story.put(f"{ONE}/z.jpg", "x")
    assert settle(story) == [ONE, THREE]


def test_a_label_file_that_was_written_again_with_the_same_rows_changes_nothing(story: Story) -> None:
    lay(story)
    settle(story)
    story.label(f"{ONE}/labels.csv", {"b.jpg": "home", "a.jpg": "toys"})
    assert settle(story) == []


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_day_that_was_not_taken_in_to_its_end_is_asked_for_again(story: Story, steps: int) -> None:
    lay(story)
    settle(story)
    story.put(f"{TWO}/c.jpg", "new")
    context = story.context
    raw = take_inventory(context, TWO).artifact
    if steps > 1:
        manifest = context.artifacts.publish("validated_manifest", {"x": b"1"}, partition=str(TWO), info={"inventory": raw.digest})
    if steps > 2:
        context.artifacts.publish("image_pack", {"x": manifest.digest.encode()}, partition=str(TWO))
    assert list(changed_days(story.context, now=NOW)) == [TWO]
    assert settle(story) == [TWO]


def test_emptied_day_is_asked_for(story: Story) -> None:
    lay(story)
    settle(story)
    for key in [key for key in story.objects() if key.startswith(str(ONE))]:
        story.remove(key)
    assert settle(story) == [ONE]
    assert story.context.artifacts.latest("raw_images", str(ONE)).info["fingerprint"] == "0" * 64


def test_a_label_file_of_all_days_concerns_the_days_of_the_rows_that_changed(story: Story) -> None:
    lay(story)
    settle(story)
    rows = {f"{ONE}/a.jpg": "toys"}
    story.label("labels.csv", rows)
    assert settle(story) == [ONE]
    story.label("labels.csv", {**rows, f"{TWO}/a.jpg": "home"})  # one row more
    assert settle(story) == [TWO]
    story.label("labels.csv", {f"{TWO}/a.jpg": "home"})
    assert settle(story) == [ONE]


def test_an_unreadable_label_file_concerns_every_day_that_it_may_speak_of(story: Story) -> None:
    lay(story)
    settle(story)
    story.put("labels.csv", "no,such,columns\n1,2,3\n")
    assert settle(story) == [ONE, TWO]
    story.remove("labels.csv")
    assert settle(story) == [ONE, TWO]
    story.put(f"{TWO}/labels.csv", "")
    assert settle(story) == [TWO]


def test_flat_source(story: Story) -> None:
    def arrive(name: str, day: date) -> None:
        story.put(name, name, datetime(day.year, day.month, day.day, tzinfo=UTC))

    arrive("a.jpg", ONE)
    arrive("b.jpg", TWO)
    assert settle(story) == [ONE, TWO]
    arrive("a.jpg", THREE)  # a copy onto itself: new bytes perhaps, but its day stays
    assert settle(story) == [ONE]


def test_a_row_of_a_flat_image_stays_on_its_day_when_the_image_goes(story: Story) -> None:
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg"), 1):
        story.put(name, name, datetime(2026, 11, number, tzinfo=UTC))
    story.label("labels.csv", {"a.jpg": "toys", "b.jpg": "home"}, datetime(2026, 11, 3, tzinfo=UTC))
    assert settle(story) == [ONE, TWO, THREE]
    story.remove("a.jpg")
    assert settle(story) == [ONE]


def test_future_days_wait(story: Story) -> None:
    today = NOW.date()
    for day in (today, today + timedelta(days=1)):
        story.put(f"{day}/a.jpg", "x")
    assert list(changed_days(story.context, now=NOW)) == [today]


def test_an_object_before_the_start_is_an_error(story: Story) -> None:
    story.put("2019-12-31/a.jpg", "x")
    with pytest.raises(SourceError, match="before data.start_date"):
        changed_days(story.context, now=NOW)


def test_unreachable_source_is_never_quiet(story: Story) -> None:
    story.source.rename(story.source.with_name("moved"))
    with pytest.raises(SourceError, match="is not a folder"):
        changed_days(story.context, now=NOW)


def test_the_day_that_ended_is_looked_at_though_the_night_is_too_short_for_the_source(story: Story) -> None:
    for number in range(3_000):
        story.put(f"{ONE}/{number:05}.jpg", "x")
    story.put(f"{THREE}/late.jpg", "x")
    story.settings["INGEST__SCAN_SECONDS"] = "0.000001"
    state = nightly_scan(story.context, THREE, now=NOW)
    assert state.begun, "it is not through"
    assert list(state.changes) == [THREE]
