"""The ingest assets."""
