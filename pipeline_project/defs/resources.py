"""What assets are given: the settings, and a store for the small values that dynamic steps hand on."""

from functools import cache
from typing import Any

import dagster as dg

from pipeline_project.settings import Settings, load_settings
from pipeline_project.storage import open_store


@cache
def project_settings() -> Settings:
    """The settings of this process; read once, when the code location loads."""
    return load_settings()


class JsonIOManager(dg.IOManager):
    """Keeps the outputs of ops in the artefact store as JSON, never as pickles: any pod can read them, and none can be attacked by them."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store an op's output."""
        if obj is not None:
            open_store(project_settings()).write_json(self._key(context), obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the output that an op's input stands for."""
        assert context.upstream_output is not None
        return open_store(project_settings()).read_json(self._key(context.upstream_output))

    def _key(self, context: dg.OutputContext) -> str:
        return "/".join(("artifacts/steps", *(part.replace("[", "-").replace("]", "") for part in context.get_identifier()))) + ".json"


def resources() -> dict[str, Any]:
    """The resources of the code location by key."""
    return {"io_manager": JsonIOManager()}
