"""Official files: found whole under every wrapping, and everything that is not one refused."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hdm.errors import InputError
from hdm.models import build_model, load_imagenet_file, load_official
from hdm.models.network import HEAD

SETTINGS = {"head_channels": 8, "backbone_stride": 8}


def small(joints: int = 5, head_channels: int = 8) -> nn.Module:
    return build_model("resnet18", joints=joints, head_channels=head_channels, backbone_stride=8)


def numbered(model: nn.Module) -> dict[str, Tensor]:
    """Under every name of the model a tensor of the right shape, full of a number of its own; next to nothing on disk,
    because a shape that only repeats one number is saved as that number."""
    tensors = model.state_dict()
    return {name: torch.tensor(float(n)).expand(value.shape) for n, (name, value) in enumerate(tensors.items())}


def shell(name: str, joints: int = 17) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, joints=joints)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}


@pytest.fixture
def unchanged() -> Any:
    """A small network that has to be the same when the test is over."""
    model = small()
    before = copy.deepcopy(model.state_dict())
    yield model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- found whole ---


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 7},
        # as the official training loop saves: the network's name under `model`
        lambda state: {"model": "pose_resnet", "state_dict": {f"module.{n}": v for n, v in state.items()}, "perf": 0.7},
        lambda state: {"best_state_dict": state},
        lambda state: {"model": state, "loss": {}, "optimizer": {"state": {}}, "history": [], "finished": True},
    ],
    ids=["plain", "module", "state_dict", "official run", "best_state_dict", "ours"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_found_under_every_wrapping(tmp_path: Path, wrap: Callable, zipped: bool) -> None:
    """Also in the format of the years of the official files, which is not zipped."""
    source, target = small(), small()
    with torch.no_grad():
        for value in weights(source).values():
            value.uniform_(0.5, 1)
    path = tmp_path / "pose_resnet.pth.tar"
    torch.save(wrap(source.state_dict()), path, _use_new_zipfile_serialization=zipped)
    report = load_official(target, path)
    assert (report.share, report.missing, report.unexpected) == (1, (), ())
    assert set(report.matched) == weights(source).keys()
    assert all(torch.equal(value, weights(source)[name]) for name, value in weights(target).items())


@pytest.mark.parametrize("name", ["resnet50", "hrnet_w32"])
def test_an_official_pose_checkpoint_loads_whole(tmp_path: Path, name: str) -> None:
    """Old files have no counters of batch norm, which came with PyTorch 0.4.1."""
    state = {key: value for key, value in numbered(shell(name)).items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "official.pth")
    model = build_model(name)
    report = load_official(model, str(tmp_path / "official.pth"))
    assert str(report).startswith(f"{len(state)} of the network's {len(state)} tensors found (100.0%), missing: none")
    assert all(bool((value == state[key]).all()) for key, value in weights(model).items())


# --- ImageNet files ---


@pytest.mark.parametrize(("name", "file"), [("hrnet_w32", "hrnet_w32-36af842e.pth")])
def test_the_imagenet_file_of_hrnet_fills_the_backbone(tmp_path: Path, name: str, file: str) -> None:
    """timm's network has the official classifier's tensors, `final_layer` among them, which is another than ours."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        classifier = timm.create_model(name)
    state = numbered(classifier)
    state |= {"final_layer.weight": torch.ones(17, 32, 1, 1), "final_layer.bias": torch.ones(17)}  # a trap
    torch.save(state, tmp_path / file)
    model = build_model(name, pretrained=True, weights_directory=tmp_path)
    for key, value in weights(model).items():
        if not key.startswith("final_layer."):
            assert bool((value == state[key]).all()), key
    assert model.final_layer.weight.std().item() == pytest.approx(0.001, rel=0.2)
    assert torch.equal(model.final_layer.bias, torch.zeros(17))
    report = load_imagenet_file(model, tmp_path / file)
    assert (report.share, report.missing) == (1, ())
    assert len(report.matched) == len(weights(model)) - 2
    assert {"final_layer.weight", "classifier.weight"} < set(report.unexpected)


def test_the_imagenet_file_of_a_resnet_fills_the_backbone(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    model = build_model("resnet18", joints=3, head_channels=8)
    report = load_imagenet_file(model, tmp_path / "resnet18.pth")
    assert (report.share, report.unexpected) == (1, ("fc.bias", "fc.weight"))
    assert not any(name.startswith(HEAD) for name in report.matched)


def test_an_imagenet_file_is_no_pose_checkpoint(tmp_path: Path) -> None:
    """HRNet's has all of a pose network's tensors but two of 1462; its head would stay random."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        classifier = timm.create_model("hrnet_w32")
    torch.save(numbered(classifier), tmp_path / "hrnet_w32-36af842e.pth")
    with pytest.raises(InputError, match=r"has only 1460 of the 1462 tensors .*final_layer.bias"):
        load_official(shell("hrnet_w32"), tmp_path / "hrnet_w32-36af842e.pth")


def test_a_damaged_imagenet_file_is_refused_where_the_model_is_built(tmp_path: Path) -> None:
    (tmp_path / "hrnet_w48-8ef0771d.pth").write_bytes(b"<!DOCTYPE html>")
    with torch.device("meta"), pytest.raises(InputError, match="hrnet_w48-8ef0771d.pth can't be read as a checkpoint"):
        build_model("hrnet_w48", pretrained=True, weights_directory=tmp_path)


# --- files of another network ---


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        ("hrnet_w32", "hrnet_w48", "of another shape"),
        ("hrnet_w48", "resnet50", "missing"),
        ("resnet101", "resnet50", "missing"),
        # It has all that ResNet-50 asks for, and as much again.
        ("resnet50", "resnet101", "uses only 282 of the file's 537 tensors"),
    ],
)
def test_the_file_of_another_network(tmp_path: Path, name: str, other: str, words: str) -> None:
    torch.save(numbered(shell(other)), tmp_path / "other.pth")
    with pytest.raises(InputError, match=f"{words}.*build the network that the file was made for"):
        load_official(shell(name), tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("name", "other"), [("resnet50", "resnet101"), ("resnet101", "resnet152"), ("resnet18", "resnet34")]
)
def test_the_imagenet_file_of_a_deeper_resnet(tmp_path: Path, name: str, other: str) -> None:
    with torch.device("meta"):
        classifier = getattr(torchvision.models, other)()
    torch.save(numbered(classifier), tmp_path / "deeper.pth")
    with pytest.raises(InputError, match="uses only .* of the file's"):
        load_imagenet_file(shell(name), tmp_path / "deeper.pth")


def test_a_backbone_without_its_last_stages_takes_the_first_ones(tmp_path: Path) -> None:
    with torch.device("meta"):
        classifier = torchvision.models.resnet18()
    torch.save(numbered(classifier), tmp_path / "whole.pth")
    report = load_imagenet_file(small(), tmp_path / "whole.pth")
    assert report.share == 1
    assert {name.split(".")[0] for name in report.unexpected} == {"layer3", "layer4", "fc"}


def test_another_number_of_joints(tmp_path: Path, unchanged: nn.Module) -> None:
    """Sixteen joints of MPII into seventeen of COCO: more than 99 % match, and the head would stay random."""
    torch.save(numbered(shell("resnet50", joints=16)), tmp_path / "mpii.pth")
    words = r"has only 280 of the 282 tensors .*final_layer.bias \(16,\) instead of \(17,\)"
    with pytest.raises(InputError, match=words):
        load_official(shell("resnet50"), tmp_path / "mpii.pth")
    torch.save(small(joints=4).state_dict(), tmp_path / "few.pth")
    with pytest.raises(InputError, match=r"final_layer.bias \(4,\) instead of \(5,\)"):
        load_official(unchanged, tmp_path / "few.pth")


def test_another_width_of_the_head_leaves_the_network_as_it_was(tmp_path: Path, unchanged: nn.Module) -> None:
    torch.save(numbered(small(head_channels=16)), tmp_path / "wide.pth")
    with pytest.raises(InputError, match=r"missing: 6 .deconv_layers.0.weight, \.\.\.."):
        load_official(unchanged, tmp_path / "wide.pth")


# --- files that are no checkpoints ---


class Payload:
    """A pickle that makes a file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("writer", ["torch", "torch, old format", "pickle 2", "pickle 4"])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, unchanged: nn.Module, writer: str) -> None:
    made, path = tmp_path / "made", tmp_path / "evil.pth"
    content = {"state_dict": small().state_dict(), "extra": Payload(made)}
    if writer.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(writer[-1])))
    with pytest.raises(InputError) as refusal:
        load_official(unchanged, path)
    assert not made.exists()
    if writer != "pickle 4":  # of which torch reads so little that it does not come to the code
        assert "evil.pth are a pickle that needs code (" in str(refusal.value)
        assert "never run: save the tensors alone" in str(refusal.value)
    # The payload would have worked.
    torch.load(path, weights_only=False) if writer.startswith("torch") else pickle.loads(path.read_bytes())
    assert made.exists()


def damaged(kind: str) -> bytes:
    if kind == "a text":
        return b"epoch,loss\n1,0.5\n"
    if kind == "a page":
        return b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"
    if kind == "noise":
        return torch.randint(0, 256, (5000,), dtype=torch.uint8).numpy().tobytes()
    buffer = io.BytesIO()
    torch.save(small().state_dict(), buffer, _use_new_zipfile_serialization=kind != "cut short, old format")
    return buffer.getvalue()[: {"cut at the start": 300}.get(kind, len(buffer.getvalue()) // 2)]


@pytest.mark.parametrize(
    "kind", ["a text", "a page", "noise", "cut short", "cut short, old format", "cut at the start"]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, unchanged: nn.Module, kind: str) -> None:
    (tmp_path / "file.pth").write_bytes(damaged(kind))
    with pytest.raises(InputError, match=r"file.pth can't be read as a checkpoint of tensors alone .*fetch it again"):
        load_official(unchanged, tmp_path / "file.pth")


def test_a_file_that_is_missing_or_empty(tmp_path: Path, unchanged: nn.Module) -> None:
    for path in (tmp_path / "no.pth", tmp_path):
        with pytest.raises(InputError, match="are not there"):
            load_official(unchanged, path)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(InputError, match=r"empty.pth are an empty file"):
        load_official(unchanged, tmp_path / "empty.pth")


@pytest.mark.parametrize("content", [{}, [1, 2], 3.5, {"state_dict": {"epoch": 3}}, torch.zeros(3), {"model": "hrnet"}])
def test_a_file_without_named_tensors(tmp_path: Path, unchanged: nn.Module, content: object) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(InputError, match="odd.pth hold no tensors by name"):
        load_official(unchanged, tmp_path / "odd.pth")


def test_a_tensor_that_cannot_be_copied_counts_as_missing(tmp_path: Path, unchanged: nn.Module) -> None:
    state = small().state_dict()
    for odd in (state["conv1.weight"].to_sparse(), state["conv1.weight"].to("meta")):
        torch.save(state | {"conv1.weight": odd}, tmp_path / "odd.pth")
        with pytest.raises(InputError, match=r"missing: 1 .conv1.weight."):
            load_official(unchanged, tmp_path / "odd.pth")
