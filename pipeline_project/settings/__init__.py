"""The one typed settings tree: `load_settings()` reads YAML plus environment; nothing else reads `os.environ`."""

from pipeline_project.settings.loading import SettingsError, child_environment, load_settings, secret_address, take_environment
from pipeline_project.settings.tree import Settings

__all__ = ["Settings", "SettingsError", "child_environment", "load_settings", "secret_address", "take_environment"]
