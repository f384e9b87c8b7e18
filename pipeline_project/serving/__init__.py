"""The prediction server: supervisor, workers, router, guard, prediction log. Runs without torch and Dagster."""
