from datetime import date, timedelta

import pytest

from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.monitoring.checks import check_ground_truth, check_prediction_log
from pipeline_project.monitoring.predictions import collect_truth, compact_predictions, read_predictions, read_truth

PACKAGE = "a" * 64


@pytest.fixture
def day():
    return date(2026, 11, 20)


def test_an_empty_day_gives_an_empty_table(world, day):
    log, truth = compact_predictions(world.context, day), collect_truth(world.context, day)
    assert log.artifact.json("summary.json") == {"records": 0, "counts": [], "gaps": {}}
    assert truth.artifact.json("summary.json")["records"] == 0
    frame = read_predictions(world.context.artifacts, [day], "production")
    assert len(frame) == 0 and "m_brightness" in frame and str(frame["latency_ms"].dtype) == "float64"
    assert check_prediction_log(world.context, day)[0].passed and check_ground_truth(world.context, day)[0].passed


def test_a_segment_shipped_twice_counts_once_and_the_bytes_do_not_depend_on_the_order(world, day):
    records = world.records(PACKAGE, 30)
    world.write(records[:20], segment=1)
    world.write(records[10:], segment=2)
    first = compact_predictions(world.context, day).artifact
    assert first.json("summary.json")["records"] == 30 and first.info["duplicates"] == 10
    world.write(records[::-1], segment=1)
    world.write(records[:5], segment=2)
    assert compact_predictions(world.context, day).artifact.digest == first.digest
    frame = read_predictions(world.context.artifacts, [day], "production")
    assert frame["sequence"].tolist() == list(range(1, 31))
    assert frame[f"m_{FEATURE_NAMES[0]}"].iloc[3] == records[3].measurements[FEATURE_NAMES[0]]
    assert list(frame["features"].iloc[3]) == records[3].features


def test_the_packages_that_answered_are_shown_with_their_counts(world, day):
    world.write(
        [*world.records(PACKAGE, 3), *(r.model_copy(update={"package": "b" * 64, "sequence": 9}) for r in world.records(PACKAGE, 1))]
    )
    shown = compact_predictions(world.context, day).metadata
    counted = {row["package"]: row["requests"] for row in shown["packages"].rows}
    assert counted == {PACKAGE: 3, "b" * 64: 1}
    assert {(row["environment"], row["route"]) for row in shown["packages"].rows} == {("production", "champion")}
    assert "pipeline trace REQUEST_ID" in shown["find_a_request"].text


def test_errors_are_kept_and_counted(world, day):
    failed = {"status": 500, "predicted_class": None, "confidence": None, "probabilities": None, "measurements": None, "features": None}
    world.write(world.records(PACKAGE, 3, **failed))
    summary = compact_predictions(world.context, day).artifact.json("summary.json")
    assert summary["counts"] == [{"environment": "production", "route": "champion", "status": 500, "count": 3}]


def test_a_lost_record_is_found_and_named(world, day):
    records = world.records(PACKAGE, 20)
    world.write([r for r in records if r.sequence not in (7, 8, 15)])
    result = compact_predictions(world.context, day)
    assert result.artifact.json("summary.json")["gaps"] == {"production/worker-a": [[7, 8], [15, 15]]}
    outcome = check_prediction_log(world.context, day)[0]
    assert not outcome.passed and "worker-a" in outcome.detail and outcome.metadata["lost_records"] == 3


def test_a_worker_that_lives_over_midnight_has_no_gap(world, day):
    records = world.records(PACKAGE, 20)
    before, after = records[:9] + records[10:11], [records[9], *records[11:]]  # 10 and 11 in either order around midnight
    worker = "host-20261119T010203-0123abcd"
    world.write([r.model_copy(update={"worker": worker, "time": r.time - timedelta(days=1)}) for r in before], day=day - timedelta(days=1))
    world.write([r.model_copy(update={"worker": worker}) for r in after])
    for at in (day - timedelta(days=1), day):
        assert compact_predictions(world.context, at).artifact.json("summary.json")["gaps"] == {}


def test_a_loss_between_two_days_is_found_on_the_later_one(world, day):
    records = world.records(PACKAGE, 20)
    worker = "host-20261119T010203-0123abcd"
    early = [r.model_copy(update={"worker": worker, "time": r.time - timedelta(days=3)}) for r in records[:8]]
    world.write(early, day=day - timedelta(days=3))
    world.write([r.model_copy(update={"worker": worker}) for r in records[10:]])
    assert compact_predictions(world.context, day).artifact.json("summary.json")["gaps"] == {f"production/{worker}": [[9, 10]]}


def test_the_last_truth_of_a_request_wins_within_and_across_days(world, day):
    world.write_truth([("r1", "home"), ("r1", "toys"), ("r2", "books")])
    world.write_truth([("r2", "clothing")], day=day + timedelta(days=2))
    for at in (day, day + timedelta(days=2)):
        collect_truth(world.context, at)
    known = read_truth(world.context.artifacts, day)
    assert dict(zip(known["request_id"], known["label"], strict=True)) == {"r1": "toys", "r2": "clothing"}
    assert world.context.artifacts.latest("ground_truth", day.isoformat()).json("summary.json")["replaced"] == 1


def test_a_label_outside_the_domain_fails_the_check(world, day):
    world.write_truth([("r1", "home"), ("r2", "gardening")])
    collect_truth(world.context, day)
    outcome = check_ground_truth(world.context, day)[0]
    assert not outcome.passed and "'gardening' (1)" in outcome.detail
