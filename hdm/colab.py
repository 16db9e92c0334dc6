"""A hosted session made ready for one of the book's notebooks: the project's files, data, a place that outlives it.

The notebooks' set-up cell installs the package, without touching the torch that is there, and calls `prepare`. Nothing
here needs Colab but the mounting of a Google Drive.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from hdm.data.archives import unpack
from hdm.data.download import download, part_of
from hdm.data.fetch import fetch
from hdm.data.manifest import KINDS, MANIFEST, read_manifest
from hdm.errors import InputError
from hdm.models import build_model, training_memory
from hdm.project import load_profile, project_root

DRIVE = Path("/content/drive")
NETWORK = ("head_channels", "backbone_stride", "heatmap_stride")
USABLE = 0.8  # of a GPU's memory: the rest is for workspaces, and for what lies between the blocks
GIB = 1 << 30


def prepare(profile: str, repository: str, commit: str) -> Path:
    """Makes this session ready for a notebook under a profile, says what it can do, and returns the project's folder.

    Fetches the project's files at a commit, which hold the profiles and the run records that pages show, and makes them
    HDM_ROOT and the current directory; new records name the commit. Mounts a Google Drive for runs and checkpoints if
    the reader agrees. Fetches the data set where the profile has one that must be downloaded. What is there already is
    left alone.
    Raises InputError for an unknown profile and for what can't be fetched.
    """
    root = fetch_project(repository, commit)
    os.environ |= {"HDM_ROOT": str(root), "HDM_COMMIT": commit}
    os.chdir(root)  # where notebooks run when the book is built
    settings = load_profile(profile, root)
    drive = mount_drive() if agreed("Keep runs and checkpoints on your Google Drive? [y/N] ") else None
    if drive:
        keep_on_drive(root, profile, drive)
    fetch_data(settings, root)
    print("\n".join(session_report(profile, root, drive)))
    return root


def fetch_project(repository: str, commit: str) -> Path:
    """The project's files at a commit, unpacked below the current directory from the one archive that GitHub makes."""
    if not repository or not commit:
        raise InputError("this copy of the notebook does not know its repository: take one from the published book")
    name = f"{repository.rpartition('/')[2]}-{commit}"
    if Path(os.environ.get("HDM_ROOT", "")).name == name:
        return project_root()
    folder = Path.cwd() / name
    if not (folder / "_config.yml").is_file():
        archive = folder.with_name(f"{name}.tar.gz")
        download(f"{repository}/archive/{commit}.tar.gz", archive, progress=False)
        os.replace(part_of(archive), archive)
        unpack(archive, folder.parent, [name], progress=False)
        archive.unlink()
    return folder


def agreed(question: str) -> bool:
    """Whether the reader says yes; no where nobody can be asked."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (EOFError, OSError, NotImplementedError):  # the last is what a kernel without a reader raises
        return False


def mount_drive() -> Path | None:
    """The folder for this project on the reader's Google Drive; None, with a word on it, where it can't be mounted."""
    try:
        from google.colab import drive

        drive.mount(str(DRIVE))
    except Exception as error:  # Colab's own errors have no common name
        print(f"Google Drive was not mounted ({error}): runs stay in this session")
        return None
    return DRIVE / "MyDrive" / "hdm"


def keep_on_drive(root: Path, profile: str, drive: Path) -> None:
    """Lets a profile's runs and checkpoints lie on the drive; records that the project brings are copied there."""
    for kind in ("runs", "checkpoints"):
        here, there = root / "data" / kind / profile, drive / kind / profile
        there.mkdir(parents=True, exist_ok=True)
        if here.is_symlink():
            continue
        if here.exists():
            shutil.copytree(here, there, dirs_exist_ok=True)
            shutil.rmtree(here)
        here.parent.mkdir(parents=True, exist_ok=True)
        here.symlink_to(there, target_is_directory=True)


def fetch_data(settings: dict[str, Any], root: Path, manifest: Path = MANIFEST) -> None:
    """Downloads a profile's data set, as the few archives that its publisher offers, unless it is generated or there.

    Raises InputError where a part can't be downloaded or must be fetched by hand.
    """
    kind, _, place = settings["data"].partition(":")
    folder = root / Path(place).expanduser()
    if kind not in KINDS or (os.environ.get("HDM_DATA") and folder.is_dir()):
        return
    wanted = [asset.name for asset in read_manifest(manifest)[kind] if not asset.optional]
    report = fetch(kind, folder, only=wanted, manifest=manifest)
    if not report.complete:
        raise InputError("; and ".join(report.by_hand))


def session_report(profile: str, root: Path, drive: Path | None = None) -> list[str]:
    """What this session can do, a line each: its GPU, the profile that fits, batches, and where results go."""
    settings = load_profile("colab", root)["train"]
    rows, columns = settings["input_size"]
    name, available = gpu()
    largest = largest_batch(settings, available)
    fits = largest >= settings["batch_size"]
    lines = [f"GPU: {name}, {available / GIB:.1f} GiB" if available else f"GPU: none; {os.cpu_count()} processor cores"]
    best = "colab, which downloads COCO," if fits else "quick"
    lines.append(
        f"Profile: this notebook uses {profile}; the largest that fits here is {best} and smoke is a quick try"
    )
    if available:
        lines.append(
            f"Batches: up to {largest} crops of {rows} x {columns} with {settings['model']} in float32, "
            f"computed from the network and not tried; colab has {settings['batch_size']}"
        )
    end = "on your Google Drive" if drive else "lost when this session ends"
    lines.append(f"Results: {(drive or root / 'data') / 'runs' / profile}, {end}")
    return lines


def gpu() -> tuple[str, int]:
    """Name and memory in bytes of the first GPU; 0 bytes where there is none."""
    if not torch.cuda.is_available():
        return "none", 0
    properties = torch.cuda.get_device_properties(0)
    return properties.name, properties.total_memory


def largest_batch(settings: dict[str, Any], available: int) -> int:
    """The largest power of 2 whose training step fits into `available` bytes, by `training_memory`; 0 for none."""
    model = build_model(settings["model"], **{key: settings[key] for key in NETWORK if key in settings})
    memory = training_memory(model, tuple(settings["input_size"]))
    crops = int((USABLE * available - memory.fixed) / memory.per_crop)
    return 1 << (crops.bit_length() - 1) if crops > 0 else 0
