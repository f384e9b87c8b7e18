"""One tick of a scan: what it may cost, what it keeps, when a day is complete, what a lost or failed tick leaves."""

from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.ingest.scanning import Change, ScanLimits, ScanState, Waiting, advance, scan_identity
from pipeline_project.ingest.scanning import label_totals as label_totals_module
from pipeline_project.ingest.scanning import taken as taken_module
from pipeline_project.ingest.scanning.state import LabelFile, Tally
from pipeline_project.ingest.scanning.taken import read_taken
from pipeline_project.ingest.sources import FolderSource, SourceError, SourceUnreachableError
from pipeline_project.storage import FolderStore
from pipeline_project_tests.ingest.days import NOW, Story, take_in

DAYS = [date(2026, 11, day) for day in range(1, 9)]
MINUTE = timedelta(minutes=1)
WITHOUT_LIMIT = ScanLimits()


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """What the store and the source are asked for."""
    counted: Counter[str] = Counter()

    def count(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def counting(self: Any, *arguments: Any, **named: Any) -> Any:
            counted[f"{kind.__name__}.{name}"] += 1
            return real(self, *arguments, **named)

        monkeypatch.setattr(kind, name, counting)

    for name in ("read", "write", "entries", "list"):
        count(FolderStore, name)
    count(FolderSource, "read")
    yield counted


def fresh(story: Story) -> ScanState:
    return ScanState(scan_identity(story.context.settings))


def tick(story: Story, state: ScanState, limits: ScanLimits = WITHOUT_LIMIT, now: datetime = NOW) -> ScanState:
    """One tick, its state carried over as the cursor carries it."""
    advance(story.context, state, limits, now=now)
    return ScanState.load(state.dump(), state.identity)


def lay(story: Story, days: list[date] = DAYS) -> None:
    for day in days:
        for name in ("a.jpg", "b.jpg"):
            story.put(f"{day}/{name}", "x")
        story.label(f"{day}/labels.csv", {"a.jpg": "toys"})


def take_all_in(story: Story) -> ScanState:
    state = tick(story, fresh(story))
    for day in state.changes:
        take_in(story.context, day)
    return tick(story, state)


def test_a_tick_counts_no_more_keys_than_it_may_and_the_next_goes_on(story: Story) -> None:
    lay(story)
    state, positions = fresh(story), []
    for _ in range(5):
        state = tick(story, state, ScanLimits(keys=5))
        positions.append(state.keys)
    assert positions == [5, 10, 15, 20, 0]
    assert (state.scans, state.begun) == (1, False)
    assert sorted(state.changes) == DAYS


def test_a_day_is_asked_for_in_the_tick_that_has_passed_its_folder(story: Story) -> None:
    lay(story)
    state = tick(story, fresh(story), ScanLimits(keys=7))
    assert sorted(state.changes) == DAYS[:2], "days that were never taken in, in the first scan"
    state = take_all_in(story)
    assert state.changes == {}
    story.put(f"{DAYS[1]}/c.jpg", "late")
    state = tick(story, state, ScanLimits(keys=8))
    assert sorted(state.changes) == [DAYS[1]], "a day of the next scan, which is not through"
    assert state.begun
    assert len(state.passed) == 2
    assert list(state.tallies) == [DAYS[2]], "what was judged is not carried along"


def test_a_common_label_file_that_changed_is_waited_for(story: Story) -> None:
    lay(story)
    story.label("labels.csv", {f"{DAYS[0]}/b.jpg": "toys"})
    state = take_all_in(story)
    story.label("labels.csv", {f"{DAYS[5]}/b.jpg": "toys"})
    state = tick(story, state, ScanLimits(keys=20))
    assert (state.changes, state.begun) == ({}, True), "whether rows of a passed day changed is known at the end"
    state = tick(story, state, ScanLimits(keys=20))
    assert sorted(state.changes) == [DAYS[0], DAYS[5]]


def test_a_cursor_stays_small(story: Story) -> None:
    identity = scan_identity(story.context.settings)
    first = date(2023, 1, 1)
    days = [first + timedelta(days=n) for n in range(1_000)]
    sums = {day: int.from_bytes(repr(day).encode().ljust(32, b"x")[:32], "big") ** 3 % 2**256 for day in days}
    at_rest = ScanState(identity, scans=9, known=[LabelFile("labels.csv", 10**6, "e" * 32, NOW.timestamp())], plain=True)
    dated = ScanState(identity, position=f"{days[-1]}/x.jpg", passed=set(days[:-1]), tallies={days[-1]: Tally(sums[days[-1]], 9, 1e9)})
    flat = ScanState(
        identity, position="x", tallies={day: Tally(total, 1_000, NOW.timestamp(), False, False) for day, total in sums.items()}
    )
    new = ScanState(identity, changes={day: Change(f"{total:064x}"[:32], None) for day, total in sums.items()})
    sizes = [len(state.dump()) for state in (at_rest, dated, flat, new)]
    assert sizes[0] < 500
    assert sizes[1] < 500
    assert sizes[2] < 64_000, "the longest: 1,000 days without folders in the middle of a scan"
    assert sizes[3] < 32_000
    for state in (at_rest, dated, flat, new):
        assert ScanState.load(state.dump(), identity) == state
        state.dump().encode("ascii")


@given(st.text(max_size=200))
def test_a_cursor_that_is_none_begins_anew(text: str) -> None:
    assert ScanState.load(text, "x") == ScanState("x")


def test_a_cursor_of_another_source_or_start_begins_anew(story: Story) -> None:
    lay(story)
    cursor = advance(story.context, fresh(story), ScanLimits(keys=3), now=NOW).dump()
    story.settings["DATA__START_DATE"] = "2020-01-02"
    identity = scan_identity(story.context.settings)
    assert ScanState.load(cursor, identity) == ScanState(identity)


def test_a_source_that_cannot_be_read_fails_the_tick_and_the_cursor_goes_on_from_where_it_was(story: Story) -> None:
    lay(story)
    cursor = advance(story.context, fresh(story), ScanLimits(keys=4), now=NOW).dump()
    moved = story.source.rename(story.source.with_name("moved"))
    with pytest.raises(SourceError, match="is not a folder"):
        advance(story.context, ScanState.load(cursor, scan_identity(story.context.settings)), WITHOUT_LIMIT, now=NOW)
    moved.rename(story.source)
    state = tick(story, ScanState.load(cursor, scan_identity(story.context.settings)))
    assert (state.scans, sorted(state.changes)) == (1, DAYS)


def test_a_label_file_that_cannot_be_read_fails_the_tick(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(story)

    def cut(*_: object) -> bytes:
        raise SourceUnreachableError("the connection was cut")

    monkeypatch.setattr(FolderSource, "read", cut)
    with pytest.raises(SourceUnreachableError):
        advance(story.context, fresh(story), WITHOUT_LIMIT, now=NOW)


class TestSettling:
    """settle_minutes = 10."""

    @pytest.fixture
    def story(self, tmp_path: Path) -> Story:
        return Story(tmp_path, {"INGEST__SETTLE_MINUTES": "10"})

    def test_a_day_waits_until_its_newest_object_is_old_enough(self, story: Story) -> None:
        story.put(f"{DAYS[0]}/a.jpg", "x", NOW - 60 * MINUTE)
        story.put(f"{DAYS[0]}/b.jpg", "x", NOW - 9 * MINUTE)
        state = tick(story, fresh(story))
        assert (state.changes, list(state.waiting)) == ({}, DAYS[:1])
        assert f"{DAYS[0]} waits: uploads settle until 12:01 UTC" in state.in_words()
        state = tick(story, state, now=NOW + MINUTE)
        assert (list(state.changes), state.waiting, state.in_words()) == (DAYS[:1], {}, "")

    def test_its_label_file_counts_too(self, story: Story) -> None:
        story.put(f"{DAYS[0]}/a.jpg", "x", NOW - 60 * MINUTE)
        story.label(f"{DAYS[0]}/labels.csv", {"a.jpg": "toys"}, NOW - MINUTE)
        assert tick(story, fresh(story)).changes == {}

    def test_a_change_while_it_waits_starts_over(self, story: Story) -> None:
        story.put(f"{DAYS[0]}/a.jpg", "x", NOW - 5 * MINUTE)
        state = tick(story, fresh(story))
        story.put(f"{DAYS[0]}/b.jpg", "x", NOW + 4 * MINUTE)
        assert tick(story, state, now=NOW + 6 * MINUTE).changes == {}

    def test_a_source_whose_clock_is_ahead_settles_by_ours(self, story: Story) -> None:
        story.put(f"{DAYS[0]}/a.jpg", "x", NOW + timedelta(days=400))
        state = tick(story, fresh(story))
        assert state.changes == {}
        state = tick(story, state, now=NOW + 9 * MINUTE)
        assert state.changes == {}
        assert list(tick(story, state, now=NOW + 10 * MINUTE).changes) == DAYS[:1]

    def test_a_common_label_file_that_grows_all_the_time_holds_no_day_up(self, story: Story) -> None:
        story.put(f"{DAYS[0]}/a.jpg", "x", NOW - 60 * MINUTE)
        state = fresh(story)
        for minute in range(0, 12, 3):
            rows = {f"{DAYS[0]}/a.jpg": "toys"} | {f"{DAYS[1]}/{n}.jpg": "toys" for n in range(minute)}
            story.label("labels.csv", rows, NOW + minute * MINUTE)
            state = tick(story, state, now=NOW + minute * MINUTE)
            assert state.changes == {}
        assert list(tick(story, state, now=NOW + 12 * MINUTE).changes) == DAYS[:1]

    def test_an_emptied_day_waits_as_long(self, story: Story) -> None:
        story.put(f"{DAYS[0]}/a.jpg", "x", NOW - 60 * MINUTE)
        take_in(story.context, DAYS[0])
        story.remove(f"{DAYS[0]}/a.jpg")
        state = tick(story, fresh(story))
        assert list(state.waiting) == DAYS[:1]
        assert list(tick(story, state, now=NOW + 10 * MINUTE).changes) == DAYS[:1]

    def test_with_a_marker_the_marker_decides(self, story: Story) -> None:
        story.settings["INGEST__MARKER"] = "_SUCCESS"
        for day in DAYS[:2]:
            story.put(f"{day}/a.jpg", "x", NOW - 60 * MINUTE)
        story.put(f"{DAYS[1]}/_SUCCESS", "", NOW)
        state = tick(story, fresh(story))
        assert list(state.changes) == DAYS[1:2]
        assert state.waiting[DAYS[0]].why == "its folder has no _SUCCESS yet"
        assert tick(story, state, now=NOW + timedelta(days=9)).waiting.keys() == {DAYS[0]}
        before = state.changes[DAYS[1]].fingerprint
        story.put(f"{DAYS[1]}/_SUCCESS", "again", NOW)
        assert tick(story, state).changes[DAYS[1]].fingerprint == before, "the marker is no image"

    def test_with_a_marker_images_in_no_dated_folder_settle_by_time(self, story: Story) -> None:
        story.settings["INGEST__MARKER"] = "_SUCCESS"
        story.put("a.jpg", "x", NOW - 60 * MINUTE)
        story.put("_SUCCESS", "x", NOW)
        assert list(tick(story, fresh(story)).changes) == [NOW.date()]


class TestLabelFiles:
    def test_a_file_that_did_not_change_is_not_read_again(self, story: Story, operations: Counter[str]) -> None:
        lay(story)
        story.label("labels.csv", {f"{DAYS[0]}/b.jpg": "toys"})
        state = tick(story, fresh(story))
        assert operations["FolderSource.read"] == len(DAYS) + 1
        operations.clear()
        state = tick(story, state)
        assert operations["FolderSource.read"] == 0
        story.label(f"{DAYS[3]}/labels.csv", {"b.jpg": "toys"})
        tick(story, state)
        assert operations["FolderSource.read"] == 1

    @pytest.mark.parametrize("key", ["labels.csv", f"{DAYS[0]}/labels.csv"])
    def test_a_file_too_long_for_a_tick_is_gone_on_with(self, story: Story, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
        monkeypatch.setattr(label_totals_module, "_ROWS_A_LOOK", 10)
        monkeypatch.setattr(label_totals_module, "_LARGE", 100)
        story.put(f"{DAYS[0]}/a.jpg", "x")
        above = "" if key == "labels.csv" else "../"
        story.label(key, {f"{above}{DAYS[0]}/{n:03}.jpg": "toys" for n in range(95)})
        whole = tick(Story(story.folder, home="other"), fresh(story)).changes
        state, ticks = fresh(story), 0
        while not state.scans:
            state = tick(story, state, ScanLimits(seconds=1e-9))
            ticks += 1
        assert ticks == 10
        assert state.changes == whole

    def test_what_is_remembered_of_files_that_are_gone_goes(self, story: Story) -> None:
        story.put(f"{DAYS[0]}/a.jpg", "x")
        for key in ("labels.csv", "a/labels.csv", f"{DAYS[0]}/labels.csv"):
            story.label(key, {"a.jpg": "toys"})
        state = tick(story, fresh(story))
        assert len(story.context.artifacts.bytes.list(f"{label_totals_module.FOLDER}/")) == 3
        story.remove("a/labels.csv")
        tick(story, state)
        assert len(story.context.artifacts.bytes.list(f"{label_totals_module.FOLDER}/")) == 2


class TestWhatWasTakenIn:
    def test_it_costs_listings_and_one_read_however_many_days_there_are(
        self, story: Story, operations: Counter[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(taken_module, "_RACY", timedelta(0))
        lay(story)
        for day in DAYS:
            take_in(story.context, day)
        first = read_taken(story.context)
        operations.clear()
        again = read_taken(story.context)
        assert again == first
        assert set(again.fingerprints.values()) != {None}
        # listings of a folder are counted as entries and list
        assert (operations["FolderStore.entries"], operations["FolderStore.read"], operations["FolderStore.write"]) == (4, 1, 0)

    def test_it_follows_the_heads(self, story: Story) -> None:
        lay(story)
        context = story.context
        fingerprint = take_in(context, DAYS[0])
        assert read_taken(context).of(DAYS[0]) == fingerprint
        context.artifacts.publish("image_pack", {"of": b"another"}, partition=str(DAYS[0]))
        assert read_taken(context).of(DAYS[0]) is None
        assert read_taken(context).days == {DAYS[0]}
        assert take_in(context, DAYS[0]) == read_taken(context).of(DAYS[0])

    @pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version":1,"days":{"2026-11-01":3}}', b'{"version":1}'])
    def test_a_damaged_index_is_made_anew(self, story: Story, damage: bytes) -> None:
        lay(story)
        fingerprint = take_in(story.context, DAYS[0])
        store = story.context.artifacts.bytes
        store.write(taken_module.INDEX, damage)
        assert read_taken(story.context).of(DAYS[0]) == fingerprint
        assert store.read_json(taken_module.INDEX)["version"] == 1

    def test_a_change_that_was_taken_in_is_no_change(self, story: Story) -> None:
        lay(story, DAYS[:2])
        state = tick(story, fresh(story))
        take_in(story.context, DAYS[0])
        state = tick(story, state, ScanLimits(keys=1))
        assert list(state.changes) == DAYS[1:2], "known before the scan comes to that day again"


def test_what_waits_is_told_in_few_words(story: Story) -> None:
    state = fresh(story)
    state.waiting = {date(2026, 1, 1) + timedelta(days=n): Waiting("f", 0.0, "w") for n in range(13)}
    state.position, state.keys = "2026-11-01/x.jpg", 1_234
    assert state.in_words().endswith("3 more days wait; 1,234 keys listed, up to 2026-11-01/x.jpg; the scan goes on at the next tick")
