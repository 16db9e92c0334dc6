"""The crop cache: the parts of pictures that training can show, decoded once, in one file for each part of a data set.

    folder/train.bin     raw pixels, three bytes each, blue first, as `hdm.data.pictures.read_picture` gives them
    folder/train.npz     where in it lies what of which person, in the order of the annotation file
    folder/train.json    what the cache was made for, and the SHA-256 of the other two: written last

For each person and each reduction it holds the rectangle of the picture that any view within an augmentation can show.
Crops from it are to the bit those from the image files, so a cache is a matter of speed alone; what it does not hold
is read from the files, and where it holds all, the files need not be there.
"""

import contextlib
import hashlib
import io
import json
import os
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray
from tqdm import tqdm

from hdm.data import load_persons
from hdm.data.augment import Augmentation
from hdm.data.crops import PersonCrops
from hdm.data.outlines import Block, blocks_of
from hdm.data.persons import PARTS, PersonData
from hdm.data.pictures import REDUCTIONS, Region, reduced_affine, shown_region, warp_into
from hdm.errors import InputError
from hdm.files import write_whole

VERSION = 1  # of the layout
COLUMNS = tuple(REDUCTIONS)  # the second axis of the table
PLAIN = Augmentation(rotation=0.0, scale=0.0, flip=0.0, half_body=0.0)
STRENGTHS = ("rotation", "scale", "half_body")  # mirror images are always held
THREADS = 16  # more decode no faster than one writes
# What a cache and its user must agree about, and what it is called.
SETTINGS = {
    "data_sha256": "the annotation file of SHA-256",
    "boxes": "the boxes",
    "input_size": "the input size",
    "convention": "the convention",
    "reduced": "reduced =",
}


@dataclass(frozen=True)
class CacheIndex:
    """What `<part>.json` says.

    data_sha256, boxes, persons: of the annotation file, where the boxes come from, and how many persons there are.
    input_size, convention, reduced: as `hdm.data.crops.PersonCrops` takes them. augmentation: the strongest views held.
    bytes, sha256: of the pixels. table_sha256: of `<part>.npz`. jpeg_bytes: of the image files used.
    """

    version: int
    part: str
    data_sha256: str
    boxes: str
    persons: int
    input_size: list[int]
    convention: str
    reduced: bool
    augmentation: dict[str, float]
    bytes: int = 0
    sha256: str = ""
    table_sha256: str = ""
    jpeg_bytes: int = 0


@dataclass(frozen=True)
class CacheReport:
    """A part's cache: bytes of its pixels and of the image files that they come from, and seconds to make it.

    made: False where it was there already.
    """

    folder: Path
    part: str
    persons: int
    bytes: int
    jpeg_bytes: int
    seconds: float
    made: bool


def make_cache(
    source: str,
    folder: Path | str,
    input_size: tuple[int, int],
    *,
    augmentation: Augmentation | None = Augmentation(),  # noqa: B008  # frozen
    convention: str = "half_pixel",
    reduced: bool = True,
    parts: tuple[str, ...] = PARTS,
    threads: int | None = None,
    progress: bool = True,
) -> list[CacheReport]:
    """Makes the cache of a data set, `coco:DIR`, `mpii:DIR` or `synthetic:DIR`, for the boxes of its annotated persons.

    input_size: (rows, columns) of the crops. augmentation: the strongest one of the train part, None for plain views;
    the val part is always for plain ones. convention, reduced: as of the `PersonCrops` that will use it.
    threads: how many decode; by default as many as there are processors, up to 16. progress: show a bar on stderr.
    A part whose cache is there already, made for the same, stays as it is; one that was cut off is made anew.
    Raises InputError where the data set or a picture can't be read, where the folder holds a cache made for something
    else, and where it can't be written; what is unfinished is removed.
    """
    threads = min(THREADS, os.cpu_count() or 1) if threads is None else threads
    if threads < 1:
        raise InputError(f"threads is {threads}: give a whole number, 1 or more")
    if augmentation is not None and not 0 <= augmentation.scale < 1:
        raise InputError(f"scale of the augmentation is {augmentation.scale}: give a number from 0 to below 1")
    folder, reports = Path(folder), []
    for part in parts:
        start = time.monotonic()
        data = load_persons(source, part)
        PersonCrops(data, input_size, convention=convention)  # refuses a size or convention that is none
        views = augmentation if part == "train" else None
        wanted = _index_for(data, input_size, views, convention, reduced)
        finished = _finished(folder, wanted)
        index = finished or _write(folder, data, wanted, threads, progress)
        seconds = round(time.monotonic() - start, 1)
        made = finished is None
        reports.append(CacheReport(folder, part, index.persons, index.bytes, index.jpeg_bytes, seconds, made))
    return reports


class CropCache:
    """Crops from the cache of a part, for `hdm.data.crops.PersonCrops`; `open_cache` gives one.

    pixels_path, size: the file of pixels and its bytes. kept: for each person and reduction (1, 2, 4, 8) the rows and
    columns of the reduced picture, the region x0, y0, x1, y1 held, and where in the file; zeros where nothing is held.
    Each process maps the file into memory at its first crop, so that all of them share its pages.
    """

    def __init__(self, pixels_path: Path, size: int, kept: Int64[ndarray, "N 4 7"]) -> None:
        self.pixels_path, self.size, self.kept = pixels_path, size, kept

    @cached_property
    def pixels(self) -> UInt8[ndarray, " bytes"]:
        """The whole file."""
        return np.memmap(self.pixels_path, np.uint8, "r", shape=(self.size,)).view(ndarray)

    def __getstate__(self) -> dict:
        """Without the pixels: a process that this is sent to maps them itself."""
        return {name: value for name, value in self.__dict__.items() if name != "pixels"}

    def draw(self, index: int, crop: UInt8[ndarray, "h w 3"], affine: Float[ndarray, "2 3"], reduction: int) -> bool:
        """Fills a person's crop with what it would show from the image file; False where not all of that is held.

        affine: image pixels -> crop pixels.
        """
        rows, columns, x0, y0, x1, y1, start = self.kept[index, COLUMNS.index(reduction)].tolist()
        affine = reduced_affine(affine, reduction)
        if not rows:
            return False
        shown = shown_region(affine, crop.shape[:2], (rows, columns))
        if not Region(x0, y0, x1, y1).holds(shown):
            return False
        height, width = y1 - y0, x1 - x0
        block = self.pixels[start : start + height * width * 3].reshape(height, width, 3)
        part = block[shown.y0 - y0 : shown.y1 - y0, shown.x0 - x0 : shown.x1 - x0]
        warp_into(crop, part, affine, shown)
        return True


def open_cache(
    folder: Path | str,
    data: PersonData,
    input_size: tuple[int, int],
    *,
    augmentation: Augmentation | None = None,
    convention: str = "half_pixel",
    reduced: bool = True,
) -> CropCache:
    """The cache of `data`, all of it or its first persons, for a `PersonCrops` with the same settings.

    Raises InputError where there is none, where it is incomplete or damaged, and where it was made for other
    annotations, boxes or settings, or for weaker views. Pixels are not read: `check_cache` does that.
    """
    folder = Path(folder)
    remedy = f"make one with `hdm cache {data.source} FOLDER`"
    wanted = _index_for(data, input_size, augmentation, convention, reduced)
    try:
        index = _read_index(folder / f"{data.part}.json")
    except FileNotFoundError:
        raise InputError(f"{folder} holds no finished cache of the part {data.part}: {remedy}") from None
    _check_settings(folder, index, wanted, SETTINGS, remedy)
    # Where there is rotation, every angle is held, and where there are half bodies, all of them.
    made, asked = index.augmentation, wanted.augmentation
    for name in STRENGTHS:
        if asked[name] > made[name] and (name == "scale" or made[name] == 0):
            raise InputError(
                f"the cache of the part {data.part} in {folder} was made for {name} {made[name]:g} and can't serve "
                f"{asked[name]:g}: {remedy}"
            )
    images, kept = _read_table(folder, index)
    if not np.array_equal(images[: len(data.persons)], _image_ids(data)):
        raise InputError(f"the cache of the part {data.part} in {folder} holds other persons than asked for: {remedy}")
    return CropCache(folder / f"{data.part}.bin", index.bytes, kept)


def check_cache(folder: Path | str) -> list[str]:
    """Compares the SHA-256 of every part's pixels; returns what is wrong, a sentence for each part, and nothing where
    all is well. Raises InputError where the folder holds no finished cache."""
    folder, problems = Path(folder), []
    parts = [part for part in PARTS if (folder / f"{part}.json").exists()]
    if not parts:
        raise InputError(f"{folder} holds no finished cache: make one with `hdm cache DATA FOLDER`")
    for part in parts:
        path = folder / f"{part}.bin"
        try:
            index = _read_index(folder / f"{part}.json")
            _read_table(folder, index)
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while content := file.read(1 << 20):
                    digest.update(content)
        except InputError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path} can't be read ({error.strerror}): make the cache anew")
        else:
            if digest.hexdigest() != index.sha256:
                problems.append(f"{path} has other bytes than were written: delete it and make the cache anew")
    return problems


# --- the index and the table ---


def _index_for(
    data: PersonData, input_size: tuple[int, int], views: Augmentation | None, convention: str, reduced: bool
) -> CacheIndex:
    """What the index says of a cache that serves these settings, but for its files."""
    strengths = {name: float(getattr(views or PLAIN, name)) for name in STRENGTHS}
    size = [int(length) for length in input_size]
    persons = len(data.persons)
    return CacheIndex(VERSION, data.part, data.sha256, data.boxes, persons, size, convention, reduced, strengths)


def _image_ids(data: PersonData) -> Int64[ndarray, " N"]:
    """Which picture each person is in: a sign that a table is about these persons."""
    return np.array([person.image_id for person in data.persons], np.int64)


def _check_settings(folder: Path, index: CacheIndex, wanted: CacheIndex, names: Iterable[str], remedy: str) -> None:
    for name in names:
        found, asked = getattr(index, name), getattr(wanted, name)
        if found != asked:
            raise InputError(
                f"the cache of the part {wanted.part} in {folder} was made for {SETTINGS.get(name, name)} {found}, "
                f"not {asked}: {remedy}"
            )


def _read_index(path: Path) -> CacheIndex:
    """Raises FileNotFoundError where there is none, and InputError where it is damaged."""
    try:
        index = CacheIndex(**json.loads(path.read_bytes()))
        strengths = [index.augmentation[name] for name in STRENGTHS]
        if not all(isinstance(value, int | float) for value in (index.bytes, *strengths)):
            raise ValueError("a size or a strength is no number")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"cache index {path} is damaged ({error}): delete it and make the cache anew") from error
    if index.version != VERSION:
        raise InputError(f"cache index {path} has version {index.version}, not {VERSION}: make the cache anew")
    return index


def _read_table(folder: Path, index: CacheIndex) -> tuple[Int64[ndarray, " N"], Int64[ndarray, "N 4 7"]]:
    """The persons' image ids and what is held of each. Raises InputError where a file is missing, short or damaged."""
    pixels, table = folder / f"{index.part}.bin", folder / f"{index.part}.npz"
    try:
        size, content = pixels.stat().st_size, table.read_bytes()
    except OSError as error:
        raise InputError(f"{error.filename} can't be read ({error.strerror}): make the cache anew") from error
    if size != index.bytes:
        raise InputError(f"{pixels} has {size} bytes, not {index.bytes}: delete it and make the cache anew")
    if hashlib.sha256(content).hexdigest() != index.table_sha256:
        raise InputError(f"{table} has other bytes than were written: delete it and make the cache anew")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["images"], arrays["kept"]


# --- making it ---


def _finished(folder: Path, wanted: CacheIndex) -> CacheIndex | None:
    """The index of this very cache, or None where no whole cache is there; another one is an InputError."""
    try:
        index = _read_index(folder / f"{wanted.part}.json")
        _read_table(folder, index)
    except (FileNotFoundError, InputError):
        return None
    remedy = "name another folder, or delete that one first"
    _check_settings(folder, index, wanted, (*SETTINGS, "augmentation"), remedy)
    return index


def _write(folder: Path, data: PersonData, wanted: CacheIndex, threads: int, progress: bool) -> CacheIndex:
    """Writes the three files of a part, the index last."""
    groups: dict[Path, list[int]] = defaultdict(list)
    for number, person in enumerate(data.persons):
        groups[person.image_path].append(number)
    kept = np.zeros((len(data.persons), len(COLUMNS), 7), np.int64)
    pixels, table, index = (folder / f"{data.part}.{ending}" for ending in ("bin", "npz", "json"))
    digest, size = hashlib.sha256(), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in (index, table, pixels):  # an index must never speak of other files than its own
            old.unlink(missing_ok=True)
        with _aside(pixels) as file, contextlib.closing(_decoded(data, wanted, groups, threads)) as pictures:
            title = f"caching {data.part}"
            for blocks in tqdm(pictures, title, len(groups), unit=" pictures", disable=not progress):
                for block in blocks:
                    kept[block.persons, COLUMNS.index(block.reduction)] = (*block.size, *block.region, size)
                    content = np.ascontiguousarray(block.pixels).data
                    file.write(content)
                    digest.update(content)
                    size += content.nbytes
    except OSError as error:
        raise InputError(
            f"the cache can't be written to {folder} ({error.strerror or error}): free space or name another folder"
        ) from error
    arrays = io.BytesIO()
    np.savez(arrays, images=_image_ids(data), kept=kept)
    write_whole(table, arrays.getvalue())
    whole = replace(
        wanted,
        bytes=size,
        sha256=digest.hexdigest(),
        table_sha256=hashlib.sha256(arrays.getvalue()).hexdigest(),
        jpeg_bytes=sum(path.stat().st_size for path in groups),
    )
    write_whole(index, json.dumps(asdict(whole), indent=1).encode())
    return whole


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place once it is whole, and is removed where that fails."""
    partial = path.parent / f".{path.name}.partial"
    partial.unlink(missing_ok=True)  # of a process that was killed
    file = partial.open("xb")
    ours = os.fstat(file.fileno())
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an index without its pixels
            if not (partial.exists() and os.path.samestat(ours, partial.stat())):
                raise InputError(f"another process has begun to write {path}: let it finish, and call again")
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            if os.path.samestat(ours, partial.stat()):
                partial.unlink()
        raise


def _decoded(
    data: PersonData, wanted: CacheIndex, groups: dict[Path, list[int]], threads: int
) -> Generator[list[Block], None, None]:
    """What to keep of each picture, in order, and a few pictures ahead."""
    rows, columns = wanted.input_size
    views = Augmentation(**wanted.augmentation)

    def decode(path: Path) -> list[Block]:
        persons = {number: data.persons[number] for number in groups[path]}
        return blocks_of(
            path, persons, (rows, columns), views, data.skeleton, convention=wanted.convention, reduced=wanted.reduced
        )

    paths, ahead = list(groups), 4 * threads
    with ThreadPoolExecutor(threads) as pool:  # OpenCV lets other threads run while it decodes
        for first in range(0, len(paths), ahead):
            yield from pool.map(decode, paths[first : first + ahead])
