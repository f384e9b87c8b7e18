"""The networks: shapes, the head, loading of weights, freezing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline_project.settings import load_settings
from pipeline_project.settings.tree import ModelSettings
from pipeline_project.training.models import build_model, load_backbone_weights, set_backbone_frozen

SAMPLE = load_settings("sample", environment={}).model


def settings(**changes: object) -> ModelSettings:
    return SAMPLE.model_copy(update=changes)


@pytest.mark.parametrize(
    ("architecture", "width", "side", "map_side"),
    [
        ("small_cnn", 128, 48, 6),
        ("small_cnn", 128, 64, 8),
        ("resnet18", 512, 64, 2),
        ("resnet50", 2048, 64, 2),
        ("mobilenet_v3_small", 576, 64, 2),
    ],
)
def test_output_shapes(architecture: str, width: int, side: int, map_side: int) -> None:
    network = build_model(settings(architecture=architecture), 5).eval()
    with torch.inference_mode():
        output = network(torch.rand(2, 3, side, side))
        logits_of_features = network.head(output.features)
    assert output.logits.shape == (2, 5)
    assert output.feature_map.shape == (2, width, map_side, map_side)
    torch.testing.assert_close(output.features, output.feature_map.mean(dim=(2, 3)))
    torch.testing.assert_close(output.logits, logits_of_features)


def test_the_head_is_the_specified_one() -> None:
    head = build_model(settings(head_hidden=64), 5, dropout=0.25).head
    assert isinstance(head, nn.Sequential)
    assert [type(layer) for layer in head] == [nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.25, 0.25]
    assert [(layer.in_features, layer.out_features) for layer in head if isinstance(layer, nn.Linear)] == [(128, 64), (64, 5)]


@pytest.mark.parametrize(("classes", "dropout"), [(1, 0.1), (5, 1.0), (5, -0.1)])
def test_senseless_values_are_refused(classes: int, dropout: float) -> None:
    with pytest.raises(ValueError, match="model:"):
        build_model(SAMPLE, classes, dropout=dropout)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small"])
def test_weights_in_torchvisions_names_are_loaded(tmp_path: Path, architecture: str) -> None:
    import torchvision

    published = torchvision.models.get_model(architecture, weights=None)
    file = tmp_path / "weights.safetensors"
    save_file(published.state_dict(), file)
    chosen = settings(architecture=architecture, pretrained=True, weights_uri=str(file))
    network = build_model(chosen, 5)
    load_backbone_weights(network, chosen)
    batch = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        features = network.eval()(batch).features
        if architecture == "resnet18":
            published.fc = nn.Identity()
        else:
            published.classifier = nn.Identity()
        torch.testing.assert_close(features, published.eval()(batch))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = build_model(SAMPLE, 5).backbone.state_dict()
    state["conv2.weight"] = torch.zeros(3, 3)
    state["stranger"] = torch.zeros(1)
    del state["conv1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    chosen = settings(pretrained=True, weights_uri=str(tmp_path / "w.safetensors"))
    with pytest.raises(ValueError, match=r"missing conv1\.weight; unknown stranger; wrong shape conv2\.weight \(3, 3\) instead of"):
        load_backbone_weights(build_model(chosen, 5), chosen)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "weights.pth"
    foreign.write_bytes(b"not safetensors")
    for uri, reason in ((tmp_path / "none.safetensors", "no such file"), (foreign, "not a .safetensors file")):
        chosen = settings(pretrained=True, weights_uri=str(uri))
        with pytest.raises(ValueError, match=reason):
            load_backbone_weights(build_model(chosen, 5), chosen)


def test_a_failed_download_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    chosen = settings(architecture="resnet18", pretrained=True)
    with pytest.raises(ValueError, match=r"no route to host.*model\.weights_uri.*model\.pretrained"):
        load_backbone_weights(build_model(chosen, 5), chosen)


def test_small_cnn_has_no_published_weights() -> None:
    chosen = settings(pretrained=True)
    with pytest.raises(ValueError, match=r"small_cnn.*model\.pretrained"):
        load_backbone_weights(build_model(chosen, 5), chosen)


def test_without_pretraining_nothing_is_loaded() -> None:
    network = build_model(SAMPLE, 5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    load_backbone_weights(network, SAMPLE)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_frozen_backbone_keeps_weights_and_statistics() -> None:
    network = build_model(SAMPLE, 5)
    set_backbone_frozen(network, True)
    network.train()
    assert not network.backbone.training and network.head.training
    before = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(4, 3, 48, 48)).logits.sum().backward()
    optimizer.step()
    assert all(torch.equal(before[key], value) for key, value in network.backbone.state_dict().items())
    set_backbone_frozen(network, False)
    assert network.backbone.training and all(parameter.requires_grad for parameter in network.parameters())
