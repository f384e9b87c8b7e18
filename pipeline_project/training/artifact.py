"""Reading a trained model back: weights from safetensors, never from a pickle."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline_project.settings.tree import ModelSettings
from pipeline_project.storage import Artifact, ArtifactStore

if TYPE_CHECKING:
    from pipeline_project.training.models import ClassifierNetwork


def architecture_of(model: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """What makes an architecture the same one; a change of it needs an approval (R198).

    Args:
        model: the settings' section `model` as JSON. Dropout is tuned, so it is no part of the architecture.
        classes: how many classes the head tells apart.
    """
    return {**{name: value for name, value in model.items() if name != "dropout"}, "classes": classes}


def load_network(artifacts: ArtifactStore, digest: str | None = None) -> "tuple[ClassifierNetwork, dict[str, Any], Artifact]":
    """The network with its best weights in evaluation mode, the training record, and the artefact (default: the newest).

    Raises:
        ArtifactMissingError: there is no such trained model.
    """
    from safetensors.torch import load

    from pipeline_project.training.models import build_model

    artifact = artifacts.version("trained_model", digest) if digest else artifacts.latest("trained_model")
    record = artifact.json("training.json")
    model = ModelSettings.model_validate(record["model"])
    network = build_model(model, len(record["classes"]), dropout=record["hyperparameters"]["dropout"])
    network.load_state_dict(load(artifact.read("weights.safetensors")))
    network.eval()
    return network, record, artifact
