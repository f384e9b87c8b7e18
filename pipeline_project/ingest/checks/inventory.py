"""Checks of raw_images."""

from datetime import date

from pipeline_project.ingest.inventory_checks import inventory_outcomes, label_outcomes
from pipeline_project.stage import CheckOutcome, StageContext


def check_raw_images(context: StageContext, day: date) -> list[CheckOutcome]:
    """file_format, labels_schema, missing_values; label_case, conflicting_labels, rows_without_image, images_without_row."""
    listing = context.artifacts.latest("raw_images", day.isoformat()).json("inventory.json")
    return [*inventory_outcomes(listing, context.settings), *label_outcomes(listing)]
