"""Drift of a day: alarms at the stated rate where nothing moved, and found where something did."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.ingest.day_drift import (
    ALARM_RATE,
    FEWEST,
    PAST_DAYS,
    ColumnDrift,
    check_day_drift,
    check_feature_drift,
    compare_columns,
)
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext, Table
from pipeline_project.tables import frame_to_parquet

Columns = dict[str, NDArray[Any]]


def images(random: np.random.Generator, count: int, shift: float = 0.0) -> Columns:
    """Columns that hang together, some with many ties, as real ones do."""
    common = random.normal(size=(count, 1))
    features = 0.7 * common + 0.7 * random.normal(size=(count, len(FEATURE_NAMES))) + shift
    found: Columns = {name: features[:, i] for i, name in enumerate(FEATURE_NAMES)}
    found["size"] = np.exp(features[:, 0] + 10).round(-2)
    found["aspect"] = np.log2(random.choice([1, 4 / 3, 3 / 4], count))
    found["label"] = random.choice(list("abcde"), count)
    return found


def test_equal_days_raise_no_more_alarms_than_stated() -> None:
    """Over all columns of both checks together, without the second condition, at a level that 400 days can tell from its neighbours."""
    random, days, level = np.random.default_rng(11), 400, 0.2
    alarms = 0
    for _ in range(days):
        alarms += any(c.moved for c in _compared(random, level))
    assert alarms / days <= level + 3 * np.sqrt(level * (1 - level) / days)
    assert alarms / days >= level / 4, "a test that never alarms would keep its rate, too"


def _compared(random: np.random.Generator, level: float) -> list[ColumnDrift]:
    return compare_columns(images(random, 200), images(random, 60), max_psi=1e-9, alarm_rate=level, draws=199)


@pytest.mark.parametrize(("count", "shift"), [(60, 1.2), (300, 0.6)])
def test_moved_days_are_found(count: int, shift: float) -> None:
    random, days = np.random.default_rng(13), 10
    found = [compare_columns(images(random, 7 * count), images(random, count, shift), max_psi=0.25, draws=1999) for _ in range(days)]
    assert sum(any(c.moved for c in columns) for columns in found) >= 0.9 * days
    assert not any(c.moved for columns in found for c in columns if c.column in ("aspect", "label")), "these did not move"


def test_a_sure_but_small_move_is_no_drift() -> None:
    random = np.random.default_rng(14)
    old, new = images(random, 20_000), images(random, 20_000, 0.1)
    small = compare_columns(old, new, max_psi=0.25)
    assert min(c.p_value for c in small) == 0.0001
    assert not any(c.moved for c in small)
    assert any(c.moved for c in compare_columns(old, new, max_psi=0.001))


def test_a_new_label_moves_the_labels_only() -> None:
    random = np.random.default_rng(15)
    old, new = images(random, 500), images(random, 100)
    new["label"] = np.where(np.arange(100) < 40, "novel", new["label"])
    assert [c.column for c in compare_columns(old, new, max_psi=0.25) if c.moved] == ["label"]


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    return StageContext.open(load_settings("sample", environment={"PIPELINE_HOME": str(tmp_path)}))


def publish(context: StageContext, day: date, columns: Columns) -> None:
    """What the checks read of a day."""
    width = np.round(1000 * np.exp2(columns["aspect"])).astype(int)
    manifest = pd.DataFrame({"size": columns["size"], "width": width, "height": 1000, "label": columns["label"]})
    context.artifacts.publish("validated_manifest", {"manifest.parquet": frame_to_parquet(manifest)}, partition=str(day))
    features = pd.DataFrame({name: columns[name] for name in FEATURE_NAMES})
    context.artifacts.publish("image_features", {"features.parquet": frame_to_parquet(features)}, partition=str(day))


def test_the_checks_compare_with_the_last_seven_days_that_have_images(context: StageContext) -> None:
    random = np.random.default_rng(16)
    for number in range(1, 12):
        far = 5.0 if number < 3 else 0.0  # older than the last seven
        publish(context, date(2026, 11, number), images(random, 0 if number == 5 else 60, far))
    today = date(2026, 11, 11)
    for check, name, columns in ((check_day_drift, "day_drift", 3), (check_feature_drift, "feature_drift", len(FEATURE_NAMES))):
        outcome = check(context, today)
        assert outcome.name == name
        assert outcome.passed, outcome.detail
        assert outcome.metadata["compared_days"] == [f"2026-11-{d:02d}" for d in (3, 4, 6, 7, 8, 9, 10)]
        assert outcome.metadata["false_alarm_rate"] == ALARM_RATE
        assert "at most 1% raise an alarm" in outcome.detail
        table = outcome.metadata["columns"]
        assert isinstance(table, Table)
        assert len(table.rows) == columns
    assert len(outcome.metadata["compared_days"]) == PAST_DAYS


def test_the_checks_name_what_moved(context: StageContext) -> None:
    random = np.random.default_rng(17)
    publish(context, date(2026, 11, 1), images(random, 200))
    moved = images(random, 100)
    moved["brightness"] = moved["brightness"] + 3
    moved["label"] = np.full(100, "a")
    publish(context, date(2026, 11, 2), moved)
    day, features = check_day_drift(context, date(2026, 11, 2)), check_feature_drift(context, date(2026, 11, 2))
    assert not day.passed
    assert day.detail.startswith("label (PSI")
    assert not features.passed
    assert features.detail.startswith("brightness (PSI")
    assert "against 2026-11-01" in features.detail


@pytest.mark.parametrize(("before", "today"), [(0, 100), (100, FEWEST - 1), (FEWEST - 1, 100), (100, 0)])
def test_too_little_to_compare_passes_and_says_so(context: StageContext, before: int, today: int) -> None:
    random = np.random.default_rng(18)
    publish(context, date(2026, 11, 1), images(random, before))
    publish(context, date(2026, 11, 2), images(random, today, 5.0))
    for outcome in (check_day_drift(context, date(2026, 11, 2)), check_feature_drift(context, date(2026, 11, 2))):
        assert outcome.passed
        assert outcome.detail.startswith("Too little to compare")


def test_the_first_day_has_nothing_to_compare_with(context: StageContext) -> None:
    publish(context, date(2026, 11, 1), images(np.random.default_rng(19), 100))
    assert check_day_drift(context, date(2026, 11, 1)).passed
