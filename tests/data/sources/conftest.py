"""Reading a whole source at once."""

import pytest

from configs.corpus import Source
from data import sources

MAX = 1_000_000


@pytest.fixture
def gather():
    """A function from a kind and pattern to all documents, and all faults as sentences."""

    def gather(kind, pattern="", max_bytes=MAX, piece_bytes=10**9, **settings):
        source = Source(kind=kind, pattern=str(pattern), **settings)
        found = [
            item
            for piece in sources.pieces(source, piece_bytes)
            for item in sources.read(piece, max_bytes)
        ]
        documents = [item for item in found if isinstance(item, sources.Document)]
        return documents, [str(item) for item in found if isinstance(item, sources.Fault)]

    return gather


@pytest.fixture
def texts(gather):
    """A function that gives texts by id, where nothing is wrong."""

    def texts(*args, **settings):
        documents, faults = gather(*args, **settings)
        assert not faults
        found = {document.id: document.text for document in documents}
        assert len(found) == len(documents), "ids are not unique"
        return found

    return texts
