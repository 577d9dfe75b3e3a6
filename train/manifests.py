"""A directory that can tell whether it is still as it was written.

Its manifest.json, written when all else has reached the disk, lists every file with its size and
SHA-256, next to whatever the writer noted, and holds its own SHA-256.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


class DamagedError(Exception):
    """A directory is not as it was written. The message names the file."""


def seal(directory: Path, notes: dict[str, Any]) -> None:
    """Bring a directory's files to disk, and then the manifest that lists them.

    Args:
        directory: not written by anyone meanwhile.
        notes: JSON to keep in the manifest, under keys other than "files" and "sha256".
    """
    paths = [path for path in directory.rglob("*") if path.is_file()]
    with ThreadPoolExecutor() as hashing, ThreadPoolExecutor() as syncing:
        synced = syncing.map(_sync, paths)  # waits for the disk, while the other waits for cores
        names = [str(path.relative_to(directory)) for path in paths]
        files = dict(zip(names, hashing.map(_measure, paths), strict=True))
        list(synced)  # raises what went wrong
    with (directory / MANIFEST).open("wb") as file:
        file.write(_encode({**notes, "files": files}))
        file.flush()
        os.fsync(file.fileno())
    for folder in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        _sync(folder)


def read(directory: Path) -> dict[str, Any]:
    """The notes, and "files", of a sealed directory whose files are not looked at.

    Raises:
        DamagedError: the manifest is missing or not as it was written.
    """
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
        manifest = json.loads(raw)
        del manifest["sha256"]
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError):
        raise DamagedError(f"{path} is damaged") from None
    if raw != _encode(manifest):
        raise DamagedError(f"{path} is damaged")
    return manifest


def verify(directory: Path) -> dict[str, Any]:
    """As `read`, after every file has been found as it was written.

    Raises:
        DamagedError: a file is missing, cut short or changed.
    """
    manifest = read(directory)

    def fault(name: str) -> str:
        path, expected = directory / name, manifest["files"][name]
        try:
            found = _measure(path)
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        if found["bytes"] != expected["bytes"]:
            return f"{path} has {found['bytes']} bytes instead of {expected['bytes']}"
        return "" if found == expected else f"{path} does not match its checksum"

    with ThreadPoolExecutor() as pool:
        for sentence in pool.map(fault, manifest["files"]):
            if sentence:
                raise DamagedError(sentence)
    return manifest


def rename(old: Path, new: Path) -> None:
    """Rename for good: when this returns, a power cut does not undo it."""
    old.rename(new)
    _sync(new.parent)


def _measure(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _encode(manifest: dict[str, Any]) -> bytes:
    """A manifest as JSON that holds its own SHA-256."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, sort_keys=True, indent=1).encode()


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
