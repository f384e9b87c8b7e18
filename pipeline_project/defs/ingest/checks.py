"""Checks of the ingest assets."""

from pipeline_project.defs.common import asset_checks

raw_images_checks = asset_checks(
    "raw_images",
    "ingest.checks:check_raw_images",
    {
        "file_format": "The first bytes of (nearly) every object announce an accepted image format.",
        "labels_schema": "Label files are UTF-8 CSV with the columns of the settings; labels are known classes.",
        "missing_values": "(Nearly) every image has a label, every label row an image.",
        "label_case": "No label is a class but for upper and lower case, blanks or Unicode form.",
        "conflicting_labels": "No image is labelled more than once, differently.",
        "rows_without_image": "Every label row names an image that is there.",
        "images_without_row": "Every image has a label row.",
    },
    blocking=frozenset({"file_format", "labels_schema", "missing_values"}),
    daily=True,
)

validated_manifest_checks = asset_checks(
    "validated_manifest",
    "ingest.checks:check_manifest",
    {
        "schema": "Rows are unique and complete.",
        "reject_rate": "Not too many images of the day were rejected.",
        "label_domain": "No image was refused for a label outside the classes.",
        "duplicates": "No image arrived twice on the day.",
        "conversions": "How many images were converted on the way to RGB pixels, and how; never fails.",
        "personal_data": "Texts and pictures were searched for personal data, and what is found is masked.",
        "day_drift": "Sizes, shapes and labels are distributed as on the days before.",
    },
    blocking=frozenset({"schema", "reject_rate"}),
    daily=True,
)

image_pack_checks = asset_checks(
    "image_pack",
    "ingest.checks:check_pack",
    {
        "row_count": "The pack holds exactly the manifest's images, in order.",
        "content_hash": "The pack's bytes are those that were published.",
    },
    blocking=frozenset({"row_count", "content_hash"}),
    daily=True,
)

image_features_checks = asset_checks(
    "image_features",
    "ingest.checks:check_features",
    {
        "ranges": "Every measurement is finite and within its range.",
        "feature_drift": "Measurements are distributed as on the days before.",
    },
    daily=True,
)
