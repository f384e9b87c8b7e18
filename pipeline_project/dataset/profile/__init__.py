"""data_profile: what a person should see of the data before training on it (R46)."""

from pipeline_project.dataset.profile.step import profile_data

__all__ = ["profile_data"]
