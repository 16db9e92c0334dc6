"""One file over HTTP: resumed where it stopped, tried again where the connection fails, hashed while it arrives.

What has arrived lies in NAME.part beside the target. It is complete only when the server's length is reached; the
caller looks at the hash and moves it into place.
"""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from time import sleep

from tqdm import tqdm

from hdm.data.manifest import CHUNK, hash_file
from hdm.errors import InputError

ATTEMPTS = 5  # in a row without a new byte
PAGE = re.compile(rb"\s*<(!doctype\s+html|html)", re.IGNORECASE)  # how a web page begins
AGAIN = (408, 425, 429)  # besides 500 and above: statuses that may pass


def part_of(target: Path) -> Path:
    """Where an unfinished download of `target` lies."""
    return target.with_name(f"{target.name}.part")


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    page: str | None = None,
    progress: bool = True,
    timeout_s: float = 30.0,
    wait_s: float = 1.0,
) -> str:
    """Downloads `url` to `part_of(target)`, going on after what is there, and returns the SHA-256 of all of it.

    A dropped or silent connection (`timeout_s` without a byte), an early end and a status of 500 or above are tried
    again after `wait_s`, twice that and so on, until five attempts in a row bring nothing. size: bytes expected, where
    known; a server that tells no length either is believed at its end. page: what to open in a browser where the server
    sends a web page in the file's place.

    Raises InputError where the server refuses, sends a web page or another size, or where the file can't be written.
    """
    part = _Part(target, progress)
    failures, farthest = 0, part.size
    with (
        part,
        tqdm(total=size, initial=part.size, desc=target.name, unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        while True:
            try:
                if _receive(url, part, bar, size, page or url, timeout_s):
                    return part.finish(url, size)
                reason = f"the connection ended after {part.size} bytes"
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in AGAIN:
                    raise InputError(
                        f"{url} answers {error.code} ({error.reason}): open {page or 'it'} in a browser, save the file "
                        f"as {target}, and mend the address in the manifest"
                    ) from error
                reason = f"{error.code} {error.reason}"
            except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            failures = 1 if part.size > farthest else failures + 1
            farthest = max(farthest, part.size)
            if failures >= ATTEMPTS:
                raise InputError(
                    f"{url} can't be downloaded ({reason}): check the connection and fetch again, which goes on from "
                    f"{part.path}"
                )
            sleep(wait_s * 2 ** (failures - 1))


class _Part:
    """What has arrived of a file: on disk, in the hash, and what the server called that version of it."""

    def __init__(self, target: Path, progress: bool) -> None:
        self.target, self.path = target, part_of(target)
        self.version_path = target.with_name(f"{target.name}.part.version")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that a kill loses nothing that has arrived; closed on leaving.
            self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115
            self.digest, self.size = hash_file(self.path, progress=progress and self.file.tell() > 0)
            self.version = self.version_path.read_text(encoding="latin-1") if self.version_path.exists() else None
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.file.close()
        if kind is not None and not self.size:
            self.path.unlink(missing_ok=True)  # nothing has arrived, so nothing is left

    def append(self, chunk: bytes) -> None:
        try:
            left = memoryview(chunk)
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            raise self._unwritable(error) from error
        self.digest.update(chunk)
        self.size += len(chunk)

    def restart(self, version: str | None) -> None:
        """Forgets what has arrived: another version of the file begins."""
        try:
            self.file.truncate(0)
            self.version = version
            self.version_path.unlink(missing_ok=True)
            if version is not None:
                self.version_path.write_text(version, encoding="latin-1")
        except OSError as error:
            raise self._unwritable(error) from error
        self.digest, self.size = hashlib.sha256(), 0

    def finish(self, url: str, size: int | None) -> str:
        if self.path.stat().st_size != self.size:
            raise InputError(f"{self.path} was changed by another program meanwhile: delete it and run one fetch alone")
        if size not in (None, self.size):
            raise InputError(
                f"{url} has {self.size} bytes, not {size}: it is another file than the manifest's; delete {self.path} "
                "and mend the manifest"
            )
        self.version_path.unlink(missing_ok=True)
        return self.digest.hexdigest()

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path} can't be written ({error.strerror}): free space or choose another directory, then fetch again"
        )


def _receive(url: str, part: _Part, bar: tqdm, size: int | None, page: str, timeout_s: float) -> bool:
    """Asks for what is missing and appends what comes; whether the file is complete then."""
    headers = {"User-Agent": "hdm", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.version is not None:  # else the rest of a new version would be put behind the beginning of the old one
            headers["If-Range"] = part.version
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if _range(error.headers)[1] == part.size:
            return True  # there was nothing left to send
        part.restart(None)
        return False
    with answer:
        chunk = answer.read1(CHUNK)
        # Before anything else: such a page must not cost what has arrived already.
        if answer.headers.get_content_type() == "text/html" or (answer.status == 200 and PAGE.match(chunk)):
            raise InputError(
                f"{url} answers with a web page in place of {part.target.name} (a quota or a question to the reader): "
                f"open {page} in a browser and save the file as {part.target}"
            )
        if answer.status == 206:
            start, total = _range(answer.headers)
            if start != part.size:
                part.restart(None)
                return False
        else:
            part.restart(_version(answer.headers))
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else size
        bar.total, bar.n = total, part.size
        bar.refresh()
        while chunk:
            part.append(chunk)
            bar.update(len(chunk))
            chunk = answer.read1(CHUNK)
    return total is None or part.size == total


def _range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and length of the whole file from `Content-Range: bytes 5-9/10` or `bytes */10`."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())
    if found is None:
        return None, None
    start, total = found.groups()
    return (None if start is None else int(start)), (None if total == "*" else int(total))


def _version(headers: Message) -> str | None:
    """What If-Range can compare: a strong entity tag, else the date of the last change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
