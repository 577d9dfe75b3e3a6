"""Text to token ids and back, and how a tokenizer is trained, saved and loaded.

The end-of-document id `eod` cannot be written in text: no text encodes to it, and it decodes to
nothing. Except for a .model file from elsewhere that normalises (see `Tokenizer.lossless`),
decode(encode(text)) == text for every text.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece

from configs.schema import InputError
from data.disk import place

_SPACE = "\u2581"  # how sentencepiece writes a space inside its pieces
_CHUNK = 4_000_000  # characters encoded at once, for sentencepiece takes 100 bytes for each; no
# piece crosses a newline, so that cutting after one changes nothing
_SENTENCE = 4_000  # characters: with more than max_sentence_length bytes a line is left out
_SENTENCE_BYTES = 4 * _SENTENCE


@dataclass(frozen=True)
class Tokenizer:
    """One way of writing text as ids in [0, vocab).

    encode(text) gives the ids of a text as int32, never `eod`; decode(ids) gives the text, with
    U+FFFD for bytes that are not UTF-8. `serialized` is the file that brings the tokenizer back.
    """

    kind: str
    vocab: int
    eod: int
    serialized: bytes
    encode: Callable[[str], np.ndarray]
    decode: Callable[[Iterable[int]], str]

    @property
    def file(self) -> str:
        """The name of its file in a token store."""
        return "tokenizer.model" if self.kind == "sentencepiece" else "tokenizer.json"

    @property
    def fingerprint(self) -> str:
        """What tells one tokenizer from another: the sha256 of its file, in hexadecimal."""
        return hashlib.sha256(self.serialized).hexdigest()

    @property
    def lossless(self) -> bool:
        """Whether tabs, runs of spaces, newlines, compatibility and rare characters survive."""
        probe = " a\tb  c\n\n d\r\n\ufb01 e\u0301 \uff21 \u4e2d \U0001f600 \u2581 \u200b \x00 "
        return self.kind == "chars" or self.decode(self.encode(probe)) == probe


def utf8() -> Tokenizer:
    """The bytes of the text in UTF-8."""
    eod = 256

    def encode(text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def decode(ids: Iterable[int]) -> str:
        return bytes(i for i in map(int, ids) if i != eod).decode(errors="replace")

    return Tokenizer("bytes", eod + 1, eod, _json(kind="bytes"), encode, decode)


def characters(known: str) -> Tokenizer:
    """One id for each of the `known` characters, in the order of their code points."""
    known = "".join(sorted(set(known)))
    codes = _code_points(known)
    eod = len(known)

    def encode(text: str) -> np.ndarray:
        wanted = _code_points(text)
        ids = np.searchsorted(codes, wanted).clip(max=eod - 1)
        unknown = np.flatnonzero(codes[ids] != wanted)
        if unknown.size:
            raise InputError(
                f"the character {text[unknown[0]]!r} at position {unknown[0]} is not among the "
                f"{eod} this tokenizer knows: leave it out, or build a store with "
                "--tokenizer=bytes or bpe:SIZE"
            )
        return ids.astype(np.int32)

    def decode(ids: Iterable[int]) -> str:
        return "".join(known[i] for i in map(int, ids) if i != eod)

    return Tokenizer("chars", eod + 1, eod, _json(kind="chars", known=known), encode, decode)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _json(**description: str) -> bytes:
    return (json.dumps(description, ensure_ascii=False) + "\n").encode()


def pieces(serialized: bytes) -> Tokenizer:
    """A sentencepiece model. Raises ValueError where the bytes are none that can serve here."""
    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=serialized)
    except RuntimeError as error:
        raise ValueError("it is not a sentencepiece model") from error
    eod = model.eos_id()
    if eod < 0 or not model.is_control(eod):
        raise ValueError("it has no control piece for the end of a sentence to close documents")
    space_ids = [model.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]
    space = np.array(space_ids, np.int32)
    has_bytes = all(map(model.is_byte, space_ids))

    def encode(text: str) -> np.ndarray:
        if len(text) <= _CHUNK and not (has_bytes and _SPACE in text):
            return model.encode_as_numpy(text)
        # Written as a piece, U+2581 would come back as a space; written as bytes it stays.
        parts = text.split(_SPACE) if has_bytes else [text]
        ids = [np.zeros(0, np.int32)]
        for number, part in enumerate(parts):
            ids += [space] if number else []
            ids += [model.encode_as_numpy(chunk) for chunk in chunks(part, _CHUNK)]
        return np.concatenate(ids)

    def decode(ids: Iterable[int]) -> str:
        return model.decode([i for i in map(int, ids) if i != eod])

    return Tokenizer("sentencepiece", model.vocab_size(), eod, serialized, encode, decode)


def chunks(text: str, size: int) -> Iterator[str]:
    """`text` in parts of at most `size` characters, cut after a newline where there is one."""
    start = 0
    while len(text) - start > size:
        end = text.rfind("\n", start, start + size) + 1 or start + size
        yield text[start:end]
        start = end
    yield text[start:]


def train(kind: str, vocab: int, sample: Iterable[str]) -> Tokenizer:
    """A lossless sentencepiece model ("bpe" or "unigram") of `vocab` ids learnt from texts.

    Every byte has a piece, so no character is unknown; nothing is normalised; runs of spaces are
    pieces of their own. Since lines are learnt from one by one, a newline always is a piece of its
    own. The result depends on nothing but the sample.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(sample),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            unk_id=0,
            eos_id=1,
            eos_piece="<eod>",
            bos_id=-1,
            pad_id=-1,
            max_sentence_length=_SENTENCE_BYTES,
            num_threads=16,  # fixed: the order of sums, and so the model, depends on it
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(
            f"no {kind}:{vocab} tokenizer can be trained on this text ({_reason(error)}): "
            "choose another size, or --tokenizer=bytes"
        ) from error
    return pieces(model.getvalue())


def _sentences(sample: Iterable[str]) -> Iterator[str]:
    for text in sample:
        for line in text.split("\n"):
            yield from (line[at : at + _SENTENCE] for at in range(0, len(line), _SENTENCE))


def _reason(error: RuntimeError) -> str:
    """The sentence in sentencepiece's message, which starts with a place in its source."""
    return str(error).strip().splitlines()[-1].rpartition("] ")[2].rstrip(". ")


def load(path: str | Path) -> Tokenizer:
    """The tokenizer in a file: tokenizer.json of a token store, or any sentencepiece .model."""
    path = place(path)
    try:
        serialized = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the tokenizer {path}: {error.strerror}") from error
    return _load_json(serialized, path) if path.suffix == ".json" else _load_model(serialized, path)


def _load_json(serialized: bytes, path: Path) -> Tokenizer:
    try:
        described = json.loads(serialized)
        if described["kind"] == "bytes":
            return utf8()
        if described["kind"] == "chars" and described["known"]:
            return characters(described["known"])
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} does not describe a tokenizer of kind bytes or chars: rebuild it")


def _load_model(serialized: bytes, path: Path) -> Tokenizer:
    try:
        return pieces(serialized)
    except ValueError as error:
        raise InputError(f"{path} cannot be the tokenizer: {error}") from error
