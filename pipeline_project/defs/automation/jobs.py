"""Jobs name the usual selections, for schedules, sensors, the command line and people; the UI's "Materialize" needs none of them."""

import dagster as dg

INGEST = dg.AssetSelection.groups("ingest")
TRAIN = dg.AssetSelection.groups("dataset", "training", "packaging", "evaluation") | dg.AssetSelection.assets(
    "registered_model", "staging_endpoint"
)
MONITOR = dg.AssetSelection.groups("monitoring", "governance")

ingest_day = dg.define_asset_job("ingest_day", INGEST, description="Take in, validate, pack and measure one day.")
train_and_stage = dg.define_asset_job("train_and_stage", TRAIN, description="From all good days to a judged package that serves staging.")
deploy = dg.define_asset_job(
    "deploy", dg.AssetSelection.assets("deployed_endpoint"), description="Serve the registered package in production, if approved."
)
monitor_day = dg.define_asset_job(
    "monitor_day", MONITOR, description="One day's predictions, truth, drift and performance; the A/B report and the dossier."
)
predict_day = dg.define_asset_job(
    "predict_day", dg.AssetSelection.assets("batch_predictions"), description="The champion's predictions for one day's images."
)

JOBS = [ingest_day, train_and_stage, deploy, monitor_day, predict_day]
