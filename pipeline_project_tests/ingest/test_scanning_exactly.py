"""Random histories of a source, scans cut anywhere, ticks and runs that are lost: in the end exactly the changed days were asked for."""

import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from pipeline_project.ingest.scanning import ScanLimits, ScanState, advance, judge_days, scan_identity
from pipeline_project_tests.ingest.days import NOW, Story, take_in

DAYS = [date(2026, 11, day) for day in (1, 2, 3)]
DATED = [f"{day}/{name}" for day in DAYS for name in ("a.jpg", "sub/b.jpg")]
NESTED = ["shop/2026-11-02/c.jpg", "z/2026-11-04/d.jpg"]
FLAT = ["0.jpg", "flat/e.jpg", "y.jpg"]
DATED_LABELS = ["2026-11-01/labels.csv", "2026-11-03/sub/labels.csv"]
LABELS = ["labels.csv", "flat/labels.csv"]

LAYOUTS = {
    "dated": (DATED, [*DATED_LABELS, "labels.csv"]),
    "dated without common labels": (DATED, DATED_LABELS),
    "flat": (FLAT, LABELS),
    "mixed": ([*DATED, *NESTED, *FLAT], [*DATED_LABELS, "shop/2026-11-02/labels.csv", *LABELS]),
}


@st.composite
def histories(draw: st.DrawFn) -> tuple[str, list[tuple[Any, ...]]]:
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    images, label_files = LAYOUTS[layout]
    rows = st.dictionaries(st.sampled_from([*images, "2026-11-02/nobody.jpg", "nobody.jpg"]), st.sampled_from(["toys", "home"]), max_size=4)
    step = st.one_of(
        st.tuples(st.just("put"), st.sampled_from(images), st.integers(1, 5)),
        st.tuples(st.just("put"), st.sampled_from(images), st.integers(1, 5)),
        st.tuples(st.just("remove"), st.integers(0, 50)),
        st.tuples(st.just("label"), st.sampled_from(label_files), rows),
        st.tuples(st.just("tick"), st.integers(1, 9)),
        st.tuples(st.just("tick"), st.integers(1, 9)),
        st.tuples(st.just("lost tick"), st.integers(1, 9)),
        st.tuples(st.just("look"), st.sampled_from(DAYS)),
        st.tuples(st.just("runs"), st.integers(1, 3)),
        st.tuples(
            st.just("all runs"),
        ),
    )
    return layout, draw(st.lists(step, min_size=3, max_size=25))


KNOWN_TO_THE_RUN = (  # the run of a day has read a label file of all days that no scan has seen yet
    "dated",
    [
        ("put", DATED[0], 1),
        ("tick", 3),
        ("label", "labels.csv", {DATED[0]: "toys"}),
        ("all runs",),
        ("look", DAYS[2]),
    ],
)


class Platform:
    """A sensor with its cursor, and the runs of what it asks for."""

    def __init__(self, story: Story) -> None:
        self.story, self.context = story, story.context
        self.identity = scan_identity(self.context.settings)
        self.cursor: str | None = None
        self.taken: dict[date, object] = {}

    def tick(self, keys: int, *, lost: bool = False) -> ScanState:
        state = ScanState.load(self.cursor, self.identity)
        advance(self.context, state, ScanLimits(keys=keys), now=NOW)
        if not lost:
            self.cursor = state.dump()
        return state

    def run(self, day: date) -> None:
        take_in(self.context, day)
        self.taken[day] = self.story.looks(day)[day]

    def to_take_in(self) -> set[date]:
        looks = self.story.looks(*self.taken)
        return {day for day, look in looks.items() if day not in self.taken or self.taken[day] != look}


def tell(platform: Platform, step: tuple[Any, ...]) -> None:
    story = platform.story
    match step:
        case ("put", key, day):
            story.put(key, "x", datetime(2026, 11, day, 8, tzinfo=UTC))
        case ("remove", number):
            keys = story.objects()
            if keys:
                story.remove(keys[number % len(keys)])
        case ("label", key, rows):
            above = key.count("/") * "../"
            story.label(key, {f"{above}{image}": label for image, label in rows.items()})
        case ("tick", keys):
            platform.tick(keys)
        case ("lost tick", keys):
            platform.tick(keys, lost=True)
        case ("look", day):
            state = ScanState.load(platform.cursor, platform.identity)
            judge_days(platform.context, state, [day], now=NOW)
            platform.cursor = state.dump()
        case ("runs", count):
            for day in sorted(ScanState.load(platform.cursor, platform.identity).changes)[:count]:
                platform.run(day)
        case _:
            for day in ScanState.load(platform.cursor, platform.identity).changes:
                platform.run(day)


@pytest.mark.slow
@given(history=histories(), keys=st.integers(1, 7))
@example(history=KNOWN_TO_THE_RUN, keys=4)
@settings(max_examples=60, deadline=None, phases=set(Phase) - {Phase.shrink, Phase.explain}, suppress_health_check=[HealthCheck.too_slow])
def test_exactly_the_changed_days_are_asked_for(history: tuple[str, list[tuple[Any, ...]]], keys: int) -> None:
    layout, steps = history
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(Story(Path(folder)))
        for step in steps:
            tell(platform, step)

        left_over = set(ScanState.load(platform.cursor, platform.identity).changes)
        state = ScanState.load(platform.cursor, platform.identity)
        scans = state.scans + (2 if not state.begun else 3)  # that under way, then two whole ones
        asked: list[date] = []
        expected: set[date] | None = None
        for _ in range(200):
            state = platform.tick(keys)
            if expected is None:
                expected = platform.to_take_in()
            for day in sorted(state.changes):
                asked.append(day)
                platform.run(day)
            if state.scans >= scans:
                break
        assert state.scans >= scans, "a scan comes to its end"
        assert expected is not None
        assert len(asked) == len(set(asked)), "no day twice in one state"
        assert expected <= set(asked), f"{layout}: missed"
        assert set(asked) - expected <= left_over, f"{layout}: asked for although nothing changed"
        assert platform.to_take_in() == set()
        for _ in range(40):
            if platform.tick(keys).scans > state.scans:
                break
        assert ScanState.load(platform.cursor, platform.identity).changes == {}
