"""Where files lie, and how they are made: whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.schema import InputError

LOCAL = type(Path())  # what is no instance of it lies at a URL


def place(text: str | Path) -> Path:
    """A path on this machine, or at a URL such as gs://bucket/folder."""
    if not isinstance(text, str):
        return text
    if "://" not in text:
        return Path(text)
    from etils import epath

    return epath.Path(text)


def size(path: Path) -> int:
    """Bytes of a file."""
    found = path.stat()
    return found.length if not isinstance(path, LOCAL) else found.st_size  # type: ignore[attr-defined]


def remove(folder: Path) -> None:
    """Delete a folder with all that is in it, where it is there."""
    if not isinstance(folder, LOCAL):
        if folder.exists():
            folder.rmtree()  # type: ignore[attr-defined]
    else:
        shutil.rmtree(folder, ignore_errors=True)


def write(path: Path, content: bytes | memoryview) -> None:
    """Make a file, here or at a URL; it has its name only when it is whole and on disk."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with draft.open("wb") as file:
                file.write(content)
                if hasattr(file, "fileno"):  # not at a URL
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a refusal of the disk into one sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write to {path}: {error.strerror}; free space, or choose another place"
        ) from error
