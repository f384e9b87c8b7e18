"""Label files: parsed strictly (`parsing`), rows given to days (`days`), held against a declared schema (`schema`)."""

from pipeline_project.ingest.labels.days import row_day, speaks_of
from pipeline_project.ingest.labels.matching import close_class, close_key, fold, in_few_words, same_but_for_case
from pipeline_project.ingest.labels.parsing import LabelProblem, NumberedRow, conflicting_images, parse_labels, read_rows

__all__ = [
    "LabelProblem",
    "NumberedRow",
    "close_class",
    "close_key",
    "conflicting_images",
    "fold",
    "in_few_words",
    "parse_labels",
    "read_rows",
    "row_day",
    "same_but_for_case",
    "speaks_of",
]
