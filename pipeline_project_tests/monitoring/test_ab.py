from datetime import date, timedelta

import pytest

from pipeline_project.monitoring.ab import report_ab
from pipeline_project.monitoring.predictions import collect_truth, compact_predictions

DAY = date(2026, 11, 20)
CHAMPION, CHALLENGER = "a" * 64, "b" * 64


def run(world, champion: int, challenger: int, *, right=(lambda i: i % 10 != 0, lambda i: i % 10 != 0)):
    one = world.records(CHAMPION, champion, seed=1, document=2)
    two = world.records(CHALLENGER, challenger, seed=2, document=2, route="challenger", worker="worker-b")
    world.write([*one, *two])
    world.write_truth([*world.truth_of(one, right[0]), *world.truth_of(two, right[1])])
    compact_predictions(world.context, DAY)
    collect_truth(world.context, DAY)


def test_without_documents_it_is_refused_and_without_a_challenger_the_report_says_so(world):
    with pytest.raises(ValueError, match="Materialize deployed_endpoint first"):
        report_ab(world.context)
    world.deploy(1, DAY, champion=(CHAMPION, 1.0))
    world.write(world.records(CHAMPION, 12))
    compact_predictions(world.context, DAY)
    report = report_ab(world.context).artifact.json("ab.json")
    assert report["status"] == "no_challenger" and report["routes"]["champion"]["requests"] == 12


def test_equal_models_are_not_decided_and_the_split_fits(world):
    world.deploy(1, DAY - timedelta(days=1), champion=(CHAMPION, 1.0))
    world.deploy(2, DAY, champion=(CHAMPION, 0.8), challenger=(CHALLENGER, 0.2))
    run(world, 400, 100)
    result = report_ab(world.context)
    report = result.artifact.json("ab.json")
    assert report["status"] == "running" and report["since_document"] == 2 and report["decision"] == "keep_running"
    assert report["split"]["ok"] and report["split"]["weights"][0]["observed"] == 0.2
    assert report["routes"]["challenger"]["accuracy"] == report["routes"]["champion"]["accuracy"] == 0.9
    assert report["routes"]["champion"]["auto_categorised_correctly"] == 0.9
    assert report["tests"]["accuracy"]["used"] == [400, 100] and report["tests"]["accuracy"]["p_value"] > 0.01
    assert report_ab(world.context).artifact.digest == result.artifact.digest


def test_a_better_challenger_wins(world):
    world.deploy(1, DAY - timedelta(days=1), champion=(CHAMPION, 1.0))
    world.deploy(2, DAY, champion=(CHAMPION, 0.8), challenger=(CHALLENGER, 0.2))
    run(world, 800, 200, right=(lambda i: i % 3 != 0, lambda i: i % 20 != 0))
    report = report_ab(world.context).artifact.json("ab.json")
    assert report["decision"] == "challenger_wins" and report["tests"]["accuracy"]["difference"] > 0.2


def test_a_split_that_does_not_fit_the_weights_voids_the_comparison(world):
    world.deploy(1, DAY - timedelta(days=1), champion=(CHAMPION, 1.0))
    world.deploy(2, DAY, champion=(CHAMPION, 0.8), challenger=(CHALLENGER, 0.2))
    run(world, 300, 150)
    assert report_ab(world.context).artifact.json("ab.json")["decision"] == "invalid_split"


def test_an_ended_experiment_is_still_reported(world):
    world.deploy(1, DAY - timedelta(days=1), champion=(CHAMPION, 1.0))
    world.deploy(2, DAY, champion=(CHAMPION, 0.8), challenger=(CHALLENGER, 0.2))
    run(world, 80, 20)
    world.deploy(3, DAY, champion=(CHAMPION, 1.0))
    report = report_ab(world.context).artifact.json("ab.json")
    assert report["status"] == "ended" and report["routes"]["challenger"]["requests"] == 20


@pytest.mark.slow
def test_a_report_is_logged_to_mlflow_once(world, tmp_path):
    from mlflow.tracking import MlflowClient

    from pipeline_project.monitoring.tracking import log_report
    from pipeline_project.stage import StageContext

    settings = world.context.settings
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    context = StageContext(
        settings.model_copy(update={"tracking": settings.tracking.model_copy(update={"uri": uri})}),
        world.context.artifacts,
        world.log.append,
    )
    first = log_report(context, "drift-2026-11-20", "f" * 64, {"drift_share": 0.25, "data_drift_detected": 1.0, "kl": None})
    assert first and log_report(context, "drift-2026-11-20", "f" * 64, {"drift_share": 0.25}) == first
    client = MlflowClient(uri)
    run_ = client.get_run(first)
    assert run_.info.run_name == "drift-2026-11-20" and run_.info.status == "FINISHED"
    assert run_.data.metrics == {"drift_share": 0.25, "data_drift_detected": 1.0}
    assert len(client.search_runs([run_.info.experiment_id])) == 1
