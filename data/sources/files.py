"""Files by path or glob, here or in a bucket, and their bytes, unpacked and checked to be whole."""

import bz2
import re
import zlib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from configs.schema import InputError

_READ = 1 << 16  # what a member leaves unread is copied: more at once is slower
_UNPACK = 1 << 20  # bytes given at once, however well they were packed


class Broken(Exception):
    """A file cannot be read on from an offset. Holds the offset and the reason."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def locate(path: str) -> Any:
    """The path as an object: pathlib's, or etils' where it names a bucket."""
    if "://" not in path:
        return Path(path).expanduser()
    from etils import epath

    return epath.Path(path)


def match(pattern: str, kind: str) -> list[str]:
    """The files that a path or glob names, sorted.

    Raises InputError where it names none, or what is not a file.
    """
    if not pattern:
        raise InputError(f"a {kind} source needs a path or glob, as in {kind}:DIR/*")
    whole = locate(pattern)
    try:
        if whole.is_dir():
            raise InputError(f"{whole} is a folder: give a glob such as {whole}/*.txt")
        if whole.exists():
            found = [whole]
        else:
            root = _fixed(whole)
            found = root.glob(str(whole.relative_to(root)))
        paths = sorted(path for path in found if not path.is_dir())
    except (OSError, ImportError, NotImplementedError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot look for {whole}: {_reason(error)}") from error
    if not paths:
        raise InputError(f"no file matches {whole}: check the path")
    for path in paths:
        if isinstance(path, Path) and not path.is_file():
            raise InputError(f"{path} is not a regular file: copy what it holds into one")
    return [str(path) for path in paths]


def _fixed(whole: Any) -> Any:
    """The part of a glob before any wildcard."""
    parts = takewhile(lambda part: not set(part) & set("*?["), whole.parts[:-1])
    return type(whole)(*parts)


def relative(path: str, pattern: str) -> str:
    """What the pattern leaves open of the path: the same wherever the corpus lies."""
    whole = locate(pattern)
    here = locate(path)
    return here.name if here == whole else here.relative_to(_fixed(whole)).as_posix()


def size(path: str) -> int:
    """Bytes of a file."""
    return stamp(path)[1]


def stamp(path: str) -> list:
    """Name, size and time of change of a file."""
    stat = locate(path).stat()
    if "://" in path:
        return [path, stat.length, stat.mtime]
    return [path, stat.st_size, stat.st_mtime_ns]


def open_binary(path: str) -> BinaryIO:
    """The file as it is, for reading."""
    return locate(path).open("rb")


def chunks(path: str, start: int = 0, stop: int = 0) -> Iterator[tuple[int, bytes]]:
    """The content from byte `start` on, unpacked, with where in the file it comes from.

    That is the offset of the chunk, or, in a packed file, of the gzip member, bz2 stream or zstd
    frame that it is part of. `start` is where such a part begins. No chunk spans `stop`. Raises
    Broken where the file ends too early, or is damaged.
    """
    at = start
    try:
        with open_binary(path) as file:
            file.seek(start)
            if packed(path):
                for at, data in _unpack(file, _PACKED[Path(path).suffix], start):
                    yield at, data
                return
            while data := file.read(stop - at if at < stop < at + _READ else _READ):
                yield at, data
                at += len(data)
    except (OSError, zlib.error) as error:
        raise Broken(at, _reason(error)) from error


def packed(path: str) -> bool:
    """Whether the name says that the content is compressed."""
    return Path(path).suffix in _PACKED


def _unpack(file: BinaryIO, make: Any, start: int) -> Iterator[tuple[int, bytes]]:
    member, at, read = make(), start, start
    while piece := file.read(_READ):
        read += len(piece)
        while piece:
            if member.ended:
                piece = piece.lstrip(b"\0")  # padding, which gzip allows
                if not piece:
                    break
                member, at = make(), read - len(piece)
            try:
                for data in member.unpack(piece):
                    if data:
                        yield at, data
            except (OSError, zlib.error) as error:
                raise Broken(at, _reason(error)) from error
            piece = member.rest
    if not member.ended:
        raise Broken(read, "the compressed data ends before its end marker")


class _Gzip:
    """One member. `rest` is what of the packed bytes lies behind its end."""

    def __init__(self) -> None:
        self._state = zlib.decompressobj(wbits=31)
        self.ended, self.rest = False, b""

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        while True:
            data = self._state.decompress(packed, _UNPACK)
            yield data
            packed = self._state.unconsumed_tail
            if self._state.eof or (not packed and len(data) < _UNPACK):
                self.ended, self.rest = self._state.eof, self._state.unused_data
                return


class _Bzip2:
    """One stream, likewise."""

    def __init__(self) -> None:
        self._state = bz2.BZ2Decompressor()
        self.ended, self.rest = False, b""

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        while True:
            data = self._state.decompress(packed, _UNPACK)
            yield data
            if self._state.eof or self._state.needs_input:
                self.ended, self.rest = self._state.eof, self._state.unused_data
                return
            packed = b""


class _Zstandard:
    """One frame, likewise. zstandard's own reader takes a file that was cut short for whole.

    Its decompressor knows no bound on what it gives at once: at worst a block of 128 KiB for four
    bytes. So it gets few bytes at once.
    """

    _STEP = 1 << 10

    def __init__(self) -> None:
        import zstandard

        self._state = zstandard.ZstdDecompressor().decompressobj()
        self._error = zstandard.ZstdError
        self.ended, self.rest = False, b""

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        gathered: list[bytes] = []
        room = _UNPACK
        self.rest = b""
        for start in range(0, len(packed), self._STEP):
            try:
                data = self._state.decompress(packed[start : start + self._STEP])
            except self._error as error:
                yield b"".join(gathered)
                raise OSError(str(error)) from error
            gathered.append(data)
            room -= len(data)
            if self._state.eof:
                self.ended = True
                self.rest = self._state.unused_data + packed[start + self._STEP :]
                break
            if room <= 0:
                yield b"".join(gathered)
                gathered, room = [], _UNPACK
        yield b"".join(gathered)


_PACKED: dict[str, Any] = {".gz": _Gzip, ".bz2": _Bzip2, ".zst": _Zstandard}


def find(path: str, pattern: re.Pattern[bytes], start: int, limit: int | None = None) -> int | None:
    """The first place at or behind byte `start` of the file as it is where a pattern matches.

    Matches of more than 16 bytes may be missed. None where there is none within `limit` bytes.
    """
    with open_binary(path) as file:
        file.seek(start)
        at, held = start, b""
        while data := file.read(1 << 20):
            found = pattern.search(held := held + data)
            if found:
                return at + found.start()
            at, held = at + max(0, len(held) - 16), held[-16:]
            if limit is not None and at - start >= limit:
                return None
    return None


class Window:
    """The content of a file as a buffer that moves on and knows where its bytes come from."""

    def __init__(self, path: str, start: int = 0, stop: int = 0) -> None:
        self.data = bytearray()
        self.limit: int | None = None  # index in data of what begins at or behind `stop`
        self._chunks = chunks(path, start, stop)
        self._stop = stop
        self._packed = packed(path)
        self._base = 0  # of data[0], in unpacked bytes
        self._marks: list[tuple[int, int]] = []  # where each part begins, unpacked and in the file

    def more(self) -> bool:
        """Read on. False at the end of the file."""
        at, data = next(self._chunks, (0, b""))
        if not data:
            return False
        if self._stop and at >= self._stop and self.limit is None:
            self.limit = len(self.data)
        if not self._marks or (self._packed and at != self._marks[-1][1]):
            self._marks.append((self._base + len(self.data), at))
        self.data += data
        return True

    def drop(self, count: int) -> None:
        """Forget the first bytes."""
        del self.data[:count]
        self._base += count
        if self.limit is not None:
            self.limit -= count
        while len(self._marks) > 1 and self._marks[1][0] <= self._base:
            self._marks.pop(0)

    def place(self, index: int = 0) -> str:
        """The offset of a byte in the file.

        In a packed file, that of the part that holds it, and after a plus its offset in that part
        once unpacked.
        """
        position = self._base + index
        begin, at = next((mark for mark in reversed(self._marks) if mark[0] <= position), (0, 0))
        inner = position - begin
        if not self._packed:
            return str(at + inner)
        return f"{at}+{inner}" if inner else str(at)


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().partition("\n")[0]
