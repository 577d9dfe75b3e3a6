"""The token store: documents as ids on disk, each closed by an end-of-document id.

    DIR/index.json               the manifest, written last: without it a store is not complete
    DIR/tokenizer.model | .json  what brings text to these ids and back
    DIR/train/00000.tok          ids, little-endian uint16 (vocab <= 65536) or uint32, no header
    DIR/train/00000.idx          positions in the .tok at which documents end, little-endian uint64
    DIR/validation/...           the same for what is held out

A shard holds whole documents of one source. A split is the concatenation of its shards in order.
"""

import hashlib
import json
from bisect import bisect_right
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import InputError, require
from data import tokenizer as tokenizers
from data.disk import LOCAL, place, size, write

FORMAT = 1
MANIFEST = "index.json"
SPLITS = ("train", "validation")
_END = np.dtype("<u8")


@dataclass(frozen=True)
class Shard:
    """One pair of files and what it must hold."""

    split: str
    file: str  # relative to the store, without .tok or .idx
    source: str
    tokens: int  # end-of-document ids included
    documents: int
    text_bytes: int  # of the text these ids stand for, in UTF-8
    tok_sha256: str
    idx_sha256: str


@dataclass(frozen=True)
class Store:
    """An opened store. All counts are of one split, and of one source where it is given."""

    path: Path
    dtype: np.dtype
    vocab: int
    eod: int
    fingerprint: str  # sha256 of the manifest without the part that says how it was built
    shards: tuple[Shard, ...]
    tokenizer_file: str

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources, in order."""
        return tuple(dict.fromkeys(shard.source for shard in self.shards))

    def select(self, split: str, source: str | None = None) -> tuple[Shard, ...]:
        """The shards of a split, in order."""
        chosen = (shard for shard in self.shards if shard.split == split)
        return tuple(shard for shard in chosen if source in (None, shard.source))

    def tokens(self, split: str, source: str | None = None) -> int:
        """Stored ids, which is the number of prediction targets."""
        return sum(shard.tokens for shard in self.select(split, source))

    def documents(self, split: str, source: str | None = None) -> int:
        """Documents, or parts of documents where the split cuts them."""
        return sum(shard.documents for shard in self.select(split, source))

    def bytes(self, split: str, source: str | None = None) -> int:
        """UTF-8 bytes of the text the ids stand for."""
        return sum(shard.text_bytes for shard in self.select(split, source))

    def stream(self, split: str, source: str | None = None) -> "Stream":
        """The ids themselves, memory-mapped."""
        shards = self.select(split, source)
        return Stream(
            [_map(self.path / f"{shard.file}.tok", self.dtype) for shard in shards],
            [_map(self.path / f"{shard.file}.idx", _END) for shard in shards],
            self.eod,
        )

    def tokenizer(self) -> tokenizers.Tokenizer:
        """What brings text to these ids and back."""
        return tokenizers.load(self.path / self.tokenizer_file)

    def verify(self) -> None:
        """Read every byte and compare with the manifest. Raises InputError at the first fault."""
        for shard in self.shards:
            for suffix, expected in ((".tok", shard.tok_sha256), (".idx", shard.idx_sha256)):
                path = self.path / (shard.file + suffix)
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                require(
                    found == expected,
                    f"{path} was altered or damaged: delete the store and build it again",
                )


class Stream:
    """One split as a sequence of ids over all its shards."""

    def __init__(self, shards: list[np.ndarray], ends: list[np.ndarray], eod: int) -> None:
        self._shards = shards
        self._ends = ends
        self._eod = eod
        self._starts = list(accumulate(map(len, shards), initial=0))
        self.tokens = self._starts[-1]

    @cached_property
    def ends(self) -> np.ndarray:
        """Positions at which documents end, int64, rising to `tokens`."""
        parts = [
            ends.astype(np.int64) + start
            for ends, start in zip(self._ends, self._starts[:-1], strict=True)
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def read(self, start: int, out: np.ndarray) -> None:
        """Fill `out` with the ids from `start` on; id -1 is the end-of-document id before all."""
        if start < 0:
            out[0], out, start = self._eod, out[1:], 0
        shard = bisect_right(self._starts, start) - 1
        while len(out):
            part = self._shards[shard][start - self._starts[shard] :][: len(out)]
            out[: len(part)] = part
            out, start, shard = out[len(part) :], start + len(part), shard + 1


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    """A read-only view of a file; a plain array, whose slices cost less than a memmap's."""
    require(
        isinstance(path, LOCAL),
        f"{path} cannot be read in place: copy the store to a disk, or mount where it lies",
    )
    return np.asarray(np.memmap(path, dtype, mode="r"))


def open_store(path: str | Path) -> Store:
    """Open the store in a folder.

    Sizes of all files and the tokenizer are checked. Raises InputError where there is no complete
    store, a file is missing or has another size, or the tokenizer is not the one it was built with.
    """
    path = place(path)
    manifest = read_manifest(path)
    try:
        store = _parse(path, manifest)
        expected = manifest["tokenizer"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path / MANIFEST} is damaged ({error!r}): delete the store and build it again"
        ) from error
    for shard in store.shards:
        _check_size(path / f"{shard.file}.tok", shard.tokens * store.dtype.itemsize)
        _check_size(path / f"{shard.file}.idx", shard.documents * _END.itemsize)
    require(
        store.tokenizer().fingerprint == expected,
        f"{path / store.tokenizer_file} is not the tokenizer this store was built with: "
        "put that one back, or delete the store and build it again",
    )
    return store


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a complete store."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            f"no token store at {path}: build one with python -m data.build --out={path}"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path / MANIFEST}: {error}") from error
    found = manifest.get("format") if isinstance(manifest, dict) else None
    require(
        found == FORMAT,
        f"{path / MANIFEST} has format {found!r}, and this version reads format {FORMAT}: "
        "delete the store and build it again",
    )
    return manifest


def _parse(path: Path, manifest: dict[str, Any]) -> Store:
    content = {key: value for key, value in manifest.items() if key != "build"}
    return Store(
        path=path,
        dtype=np.dtype(manifest["dtype"]),
        vocab=int(manifest["vocab"]),
        eod=int(manifest["eod"]),
        fingerprint=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        shards=tuple(Shard(**shard) for shard in manifest["shards"]),
        tokenizer_file=str(manifest["tokenizer"]["file"]),
    )


def _check_size(path: Path, expected: int) -> None:
    require(path.is_file(), f"{path} is missing: delete the store and build it again")
    found = size(path)
    require(
        found == expected,
        f"{path} has {found:,} bytes and should have {expected:,}: the store was cut "
        "short, so delete it and build it again",
    )


def write_shard(
    path: Path,
    file: str,
    split: str,
    source: str,
    ids: np.ndarray,
    ends: np.ndarray,
    text_bytes: int,
) -> Shard:
    """Write one shard of a store: documents of one source, each closed by its last id.

    Args:
        path: the store.
        file: the name of the shard there, without .tok or .idx.
        split, source: what the documents are.
        ids: of all documents, in the type that the store's vocabulary asks for.
        ends: where documents end in it, rising to its length.
        text_bytes: of the text that the ids stand for.

    Raises:
        InputError: the disk refuses.
    """
    hashes = []
    for suffix, content in ((".tok", ids), (".idx", ends.astype(_END))):
        raw = np.ascontiguousarray(content).data
        write(path / f"{file}{suffix}", raw)
        hashes.append(hashlib.sha256(raw).hexdigest())
    return Shard(split, file, source, len(ids), len(ends), text_bytes, *hashes)


def write_manifest(
    path: Path, tokenizer: tokenizers.Tokenizer, shards: list[Shard], build: dict[str, Any]
) -> None:
    """Complete a store: from here on it can be opened. `build` says how it came to be."""
    manifest = {
        "format": FORMAT,
        "dtype": dtype_for(tokenizer.vocab).str,
        "vocab": tokenizer.vocab,
        "eod": tokenizer.eod,
        "tokenizer": {"file": tokenizer.file, "sha256": tokenizer.fingerprint},
        "shards": [asdict(shard) for shard in shards],
        "build": build,
    }
    write(path / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def dtype_for(vocab: int) -> np.dtype:
    """The narrowest type that holds every id."""
    return np.dtype("<u2" if vocab <= 2**16 else "<u4")
