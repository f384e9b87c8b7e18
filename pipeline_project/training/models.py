"""The networks: a convolutional backbone and the classification head of R81, from torchvision or our own small one."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import torchvision
from torch import Tensor, nn

from pipeline_project.settings.tree import ModelSettings

_CLASSIFIER_PREFIXES = ("fc.", "classifier.")


class NetworkOutput(NamedTuple):
    """What a forward pass gives: one row per image."""

    logits: Tensor
    """(N, C) unscaled scores"""
    features: Tensor
    """(N, D) the feature map averaged over its positions"""
    feature_map: Tensor
    """(N, D, h, w) the last map before pooling"""


class ClassifierNetwork(nn.Module):
    """A backbone that makes feature maps, and a head that scores their average.

    Args:
        backbone: from (N, 3, H, W) to (N, D, h, w).
        head: from (N, D) to (N, C).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.backbone_frozen = False

    def forward(self, batch: Tensor) -> NetworkOutput:
        """Scores a batch of normalised images, float (N, 3, H, W)."""
        feature_map = self.backbone(batch)
        features = feature_map.mean(dim=(2, 3))  # unlike adaptive pooling, its gradient is deterministic on every device
        return NetworkOutput(self.head(features), features, feature_map)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; a frozen backbone keeps its batch-norm statistics either way."""
        super().train(mode)
        if self.backbone_frozen:
            self.backbone.eval()
        return self


def build_model(settings: ModelSettings, num_classes: int, *, dropout: float | None = None) -> ClassifierNetwork:
    """A network with random weights, drawn from torch's global generator.

    Args:
        settings: architecture, width of the head, dropout.
        num_classes: C, at least 2.
        dropout: stands in for `settings.dropout` (a tuned value), 0 to below 1.

    Raises:
        ValueError: fewer than two classes, or a dropout out of range.
    """
    probability = settings.dropout if dropout is None else dropout
    if num_classes < 2:
        raise ValueError(f"model: {num_classes} class cannot be classified. Give data.classes at least two names.")
    if not 0 <= probability < 1:
        raise ValueError(f"model: dropout {probability:g} is not a share of units to drop. Give 0 to below 1.")
    backbone, width = _BACKBONES[settings.architecture]()
    head = nn.Sequential(
        nn.Dropout(probability),
        nn.Linear(width, settings.head_hidden),
        nn.ReLU(),
        nn.Dropout(probability),
        nn.Linear(settings.head_hidden, num_classes),
    )
    return ClassifierNetwork(backbone, head)


def set_backbone_frozen(network: ClassifierNetwork, frozen: bool) -> None:
    """Stop (or resume) training of the backbone: no gradients, and batch-norm statistics stay as they are."""
    network.backbone_frozen = frozen
    for parameter in network.backbone.parameters():
        parameter.requires_grad_(not frozen)
    network.train(network.training)


def load_backbone_weights(network: ClassifierNetwork, settings: ModelSettings) -> None:
    """Replace the backbone's random weights, if `settings.pretrained` asks for it.

    Reads the local .safetensors file `settings.weights_uri` (torchvision's key names; its classifier is left out), or without one
    downloads torchvision's ImageNet weights. An s3:// address must have been fetched to a local file by the caller.

    Raises:
        ValueError: the file is missing, is no .safetensors file or does not fit the architecture, or the download failed.
    """
    if not settings.pretrained:
        return
    if settings.weights_uri is None:
        weights, where = _download_weights(settings), f"torchvision's weights of {settings.architecture}"
    else:
        weights, where = _read_weights(settings.weights_uri), settings.weights_uri
    _load(network.backbone, weights, where, settings.architecture)


def _load(backbone: nn.Module, weights: Mapping[str, Tensor], where: str, architecture: str) -> None:
    own = backbone.state_dict()
    given = {key: value for key, value in weights.items() if not key.startswith(_CLASSIFIER_PREFIXES)}
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]  # a counter: old files lack it
    unknown = [key for key in given if key not in own]
    misfit = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in given and given[key].shape != value.shape
    ]
    problems = [f"{title} {_some(keys)}" for title, keys in (("missing", missing), ("unknown", unknown), ("wrong shape", misfit)) if keys]
    if problems:
        raise ValueError(
            f"{where}: these weights do not fit model.architecture={architecture}: {'; '.join(problems)}. "
            "Give a file of that architecture's backbone in model.weights_uri, or change model.architecture."
        )
    backbone.load_state_dict(given, strict=False)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _read_weights(uri: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(uri).is_file():
        raise ValueError(f"model.weights_uri={uri}: no such file. Give a local .safetensors file, or set model.pretrained to false.")
    try:
        weights: dict[str, Tensor] = load_file(uri)
    except SafetensorError as error:
        raise ValueError(f"model.weights_uri={uri}: not a .safetensors file ({error}). Convert the weights to safetensors first.") from None
    return weights


def _download_weights(settings: ModelSettings) -> Mapping[str, Tensor]:
    if settings.architecture == "small_cnn":
        raise ValueError(
            "model.pretrained=true: there are no published weights of small_cnn. "
            "Set model.pretrained to false, or model.weights_uri to a .safetensors file of your own."
        )
    try:
        official = torchvision.models.get_model_weights(settings.architecture).DEFAULT
        # weights_only keeps torch from executing anything that a tampered file might contain
        weights: Mapping[str, Tensor] = official.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return weights
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise ValueError(
            f"model.pretrained=true: downloading the ImageNet weights of {settings.architecture} failed ({error}). "
            "Without internet access, set model.weights_uri to a local .safetensors file, or model.pretrained to false."
        ) from None


def _resnet(architecture: str) -> tuple[nn.Module, int]:
    full = torchvision.models.get_model(architecture, weights=None)
    width = int(full.fc.in_features)
    return nn.Sequential(OrderedDict((name, child) for name, child in full.named_children() if name not in ("avgpool", "fc"))), width


def _mobilenet() -> tuple[nn.Module, int]:
    full = torchvision.models.mobilenet_v3_small(weights=None)
    return nn.Sequential(OrderedDict(features=full.features)), int(full.classifier[0].in_features)


def _small_cnn() -> tuple[nn.Module, int]:
    """Five convolutions for 32 to 64 pixels: halved three times, so 48 pixels end as a 6 x 6 map.

    Each image is first brought to mean 0 and deviation 1: with few images, there is no need to learn that light does not matter.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(light=nn.InstanceNorm2d(3))
    channels = 3
    for index, (width, halved) in enumerate(((24, True), (48, True), (96, True), (128, False), (128, False)), start=1):
        layers[f"conv{index}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers[f"bn{index}"] = nn.BatchNorm2d(width)
        layers[f"relu{index}"] = nn.ReLU(inplace=True)
        if halved:
            layers[f"pool{index}"] = nn.MaxPool2d(2)
        channels = width
    return nn.Sequential(layers), channels


_BACKBONES: dict[str, Callable[[], tuple[nn.Module, int]]] = {
    "resnet50": lambda: _resnet("resnet50"),
    "resnet18": lambda: _resnet("resnet18"),
    "mobilenet_v3_small": _mobilenet,
    "small_cnn": _small_cnn,
}
