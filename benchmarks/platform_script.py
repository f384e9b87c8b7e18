"""Side B of `make bench-platform`: the same stage functions and checks as the graph, called in order in one process."""

import sys
from datetime import UTC, datetime
from pathlib import Path

from pipeline_project.settings import Settings, load_settings
from pipeline_project.stage import CheckOutcome, StageContext


def main(config: Path, home: Path) -> None:
    """Everything that `make demo` runs through Dagster."""
    settings = load_settings(config, environment={"PIPELINE_HOME": str(home)})
    run_everything(StageContext.open(settings), settings)


def run_everything(context: StageContext, settings: Settings) -> None:
    """Ingest to dossier. A failed check ends it, as a blocking one ends a run."""
    ingest(context)
    train_and_stage(context, settings)
    deploy_and_monitor(context, settings)


def ingest(context: StageContext) -> None:
    """Every day of the source."""
    from pipeline_project.ingest import checks
    from pipeline_project.ingest.arrivals import changed_days
    from pipeline_project.ingest.features import measure_images
    from pipeline_project.ingest.inventory import take_inventory
    from pipeline_project.ingest.manifest import validate_images
    from pipeline_project.ingest.pack import pack_images

    for day in changed_days(context):
        take_inventory(context, day)
        require(checks.check_raw_images(context, day))
        validate_images(context, day)
        require(checks.check_manifest(context, day), "schema", "reject_rate")
        pack_images(context, day)
        require(checks.check_pack(context, day))
        measure_images(context, day)
        checks.check_features(context, day)


def train_and_stage(context: StageContext, settings: Settings) -> None:
    """From the dataset version to the staging endpoint."""
    from pipeline_project.dataset.checks import check_splits
    from pipeline_project.dataset.profile import profile_data
    from pipeline_project.dataset.versions import make_dataset_version
    from pipeline_project.evaluation.checks import check_evaluation, check_load_test, check_release_gate
    from pipeline_project.evaluation.gates import judge
    from pipeline_project.evaluation.load_test import load_test_package
    from pipeline_project.evaluation.report import evaluate_package
    from pipeline_project.packaging.build import build_package
    from pipeline_project.packaging.checks import check_package
    from pipeline_project.release.checks import check_staging
    from pipeline_project.release.registry import register_model
    from pipeline_project.release.rollout import deploy_to_staging
    from pipeline_project.training import checks
    from pipeline_project.training.cross_validation import conclude_folds, run_fold
    from pipeline_project.training.final import train_model
    from pipeline_project.training.tracking import tracked_run
    from pipeline_project.training.tuning import conclude_study, run_trials

    profile_data(context)
    make_dataset_version(context)
    require(check_splits(context))
    for worker in range(settings.tuning.workers):
        run_trials(context, worker)
    conclude_study(context)
    checks.check_tuning(context)
    for fold in range(settings.cross_validation.folds):
        run_fold(context, fold)
    conclude_folds(context)
    checks.check_cross_validation(context)
    train_model(context, lambda: tracked_run(settings, "training"))
    require(checks.check_trained_model(context), "finite", "better_than_baselines")
    build_package(context)
    require(check_package(context))
    evaluate_package(context)
    check_evaluation(context)
    load_test_package(context)
    check_load_test(context)
    judge(context)
    require(check_release_gate(context))
    register_model(context)
    deploy_to_staging(context)
    require(check_staging(context))


def deploy_and_monitor(context: StageContext, settings: Settings) -> None:
    """Approval, production, traffic, reports, dossier."""
    from pipeline_project.governance import ledger
    from pipeline_project.governance.checks import check_chain
    from pipeline_project.governance.dossier import build_dossier
    from pipeline_project.local.demo import approve_for_demo
    from pipeline_project.local.traffic import send_traffic
    from pipeline_project.monitoring import checks
    from pipeline_project.monitoring.ab import report_ab
    from pipeline_project.monitoring.drift import report_drift
    from pipeline_project.monitoring.performance import report_performance
    from pipeline_project.monitoring.predictions import collect_truth, compact_predictions
    from pipeline_project.release.batch import check_batch, predict_batch
    from pipeline_project.release.checks import check_production
    from pipeline_project.release.rollout import deploy_to_production

    approve_for_demo(context, lambda _: None)
    deploy_to_production(context, lambda package: ledger.append(context.artifacts.bytes, "script", "deployed_to_production", package))
    require(check_production(context), "approval", "smoke_test", "observed_split")
    send_traffic(context, settings.local.demo_requests, lambda _: None)
    today = datetime.now(UTC).date()
    compact_predictions(context, today)
    require(checks.check_prediction_log(context, today))
    collect_truth(context, today)
    checks.check_ground_truth(context, today)
    report_drift(context, today)
    checks.check_drift_report(context, today)
    report_performance(context, today)
    checks.check_performance_report(context, today)
    last = datetime.fromisoformat(context.artifacts.partitions("image_pack")[-1]).date()
    predict_batch(context, last)
    check_batch(context, last)
    report_ab(context)
    build_dossier(context)
    require(check_chain(context))


def require(outcomes: list[CheckOutcome], *names: str) -> None:
    """Blocking checks: all of them, or those named."""
    failed = [f"{o.name}: {o.detail}" for o in outcomes if not o.passed and (not names or o.name in names)]
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
