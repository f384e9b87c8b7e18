"""The asset graph: a thin Dagster layer over the stages, one folder a stage."""
