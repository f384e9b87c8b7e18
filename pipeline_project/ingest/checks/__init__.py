"""Checks of the ingest assets: over what was published, so each can be run alone."""

from pipeline_project.ingest.checks.features import check_features
from pipeline_project.ingest.checks.inventory import check_raw_images
from pipeline_project.ingest.checks.manifest import check_manifest
from pipeline_project.ingest.pack_checks import check_pack

__all__ = ["check_features", "check_manifest", "check_pack", "check_raw_images"]
