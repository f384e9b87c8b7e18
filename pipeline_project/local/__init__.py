"""The whole platform on one machine: its services by process id, Dagster through its GraphQL API, and the demo."""
