"""Personal data (R190): faces in pictures, contact data in text columns; what was found, and how well the finders find."""

from pipeline_project.ingest.privacy.faces import Box, FaceFinder, mask_faces, open_face_finder
from pipeline_project.ingest.privacy.report import count_texts, personal_data_metadata, personal_data_outcome, personal_data_report
from pipeline_project.ingest.privacy.text import KINDS, check_phone_regions, mask_personal_data

__all__ = [
    "KINDS",
    "Box",
    "FaceFinder",
    "check_phone_regions",
    "count_texts",
    "mask_faces",
    "mask_personal_data",
    "open_face_finder",
    "personal_data_metadata",
    "personal_data_outcome",
    "personal_data_report",
]
