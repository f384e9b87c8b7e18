"""From a source of photos and label files to validated, measured, packed days."""
