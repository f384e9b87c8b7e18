"""`make bench-ingest`: ingest against the same written plainly, against the bare decoder, and at scale."""
