"""What is there more than once, found in stages that send one another what has the same key.

exact     whole documents with the same text
near      documents with most of their word n-grams in common
repeats   stretches of ids inside documents
"""

from functools import partial
from pathlib import Path
from typing import Any

from configs.corpus import Dedup
from data.engine.flow import Flow, Stage, out
from data.stages import near as near_stages
from data.stages import repeats as repeat_stages
from data.stages import shards, unique
from data.stages.select import EXCERPT, SAMPLES
from data.stages.unique import Selected

GROUP_BYTES = 48_000_000  # what one partition of a group is to receive


def exact(flow: Flow, last: Stage, selected: list[Selected], documents: int) -> Stage:
    """The stage whose files name the documents that go. `last` decided which are there."""
    partitions = _partitions(32 * documents)
    return flow.group(
        "exact",
        partial(unique.send_keys, partitions=partitions),
        unique.equal_keys,
        selected,
        partitions,
        after=(last,),
    )


def near(flow: Flow, last: Stage, selected: list[Selected], documents: int, dedup: Dedup) -> Stage:
    """As `exact`: documents are signed, meet in bands, are compared; then it is told who goes."""
    signing = flow.map(
        "sign",
        partial(near_stages.sign_shard, dedup=dedup),
        selected,
        depends=(dedup.ngram, dedup.bands, dedup.rows, dedup.max_shingles),
        after=(last,),
    )
    partitions = _partitions(16 * dedup.bands * documents)
    meeting = flow.group(
        "meet",
        partial(near_stages.send_bands, dedup=dedup, partitions=partitions),
        near_stages.meet,
        signing.outs(),
        partitions,
        after=(signing,),
    )
    compared = _compare(
        flow,
        "by signature",
        list(map(unique.array_of, meeting.outs())),
        len(selected),
        partial(near_stages.signatures_of, signed=signing.folder),
        partial(near_stages.by_signature, dedup=dedup),
        dedup,
        meeting,
    )
    settled = _compare(
        flow,
        "by n-grams",
        list(map(near_stages.doubtful_of, compared.outs())),
        len(selected),
        partial(near_stages.shingles_of, cleaned=selected[0].cleaned.parent, dedup=dedup),
        partial(near_stages.by_shingles, dedup=dedup),
        dedup,
        compared,
    )
    return flow.map(
        "join",
        partial(near_stages.join, signed=signing.outs()),
        [(*compared.outs(), *settled.outs())],
        after=(settled,),
    )


def _compare(
    flow: Flow,
    how: str,
    pairs: list[Path],
    count: int,
    look_up: near_stages.LookUp,
    judge: near_stages.Judge,
    dedup: Dedup,
    after: Stage,
) -> Stage:
    """Bring what is known of each pair's documents together, and judge it."""
    attaching = flow.group(
        f"attach {how}",
        near_stages.send_pairs,
        partial(near_stages.attach, look_up=look_up),
        pairs,
        count,
        after=(after,),
    )
    return flow.group(
        f"compare {how}",
        near_stages.send_attached,
        partial(near_stages.compare, look_up=look_up, judge=judge),
        attaching.outs(),
        count,
        depends=(dedup.similarity,),
        after=(attaching,),
    )


def repeats(flow: Flow, encoding: Stage, tokens: int, length: int, known: Path) -> Stage:
    """The stage of encoded shards without repeated stretches of at least `length` ids.

    Args:
        flow: runs it.
        encoding: the stage of encoded shards.
        tokens: in it.
        length: of the shortest stretch to cut.
        known: the tokenizer's file.
    """
    encoded = list(enumerate(encoding.outs()))
    partitions = _partitions(16 * tokens // repeat_stages.SPARSITY)
    meeting = flow.group(
        "anchors",
        partial(repeat_stages.send_anchors, length=length, partitions=partitions),
        repeat_stages.find_shared,
        encoded,
        partitions,
        depends=(length,),
        after=(encoding,),
    )
    finding = flow.group(
        "repeats",
        partial(
            repeat_stages.send_windows,
            shared=meeting.outs(),
            length=length,
            partitions=partitions,
        ),
        partial(repeat_stages.find, length=length),
        encoded,
        partitions,
        after=(meeting,),
    )
    return flow.map(
        "cut",
        partial(repeat_stages.cut_shard, found=finding.outs(), length=length, known=known),
        encoded,
        after=(finding,),
    )


def samples(stage: Stage, cleaned: Path) -> list[list[Any]]:
    """[key, id, source, text] of some of the documents that `exact` or `near` lets go."""
    chosen = sorted(entry for found in stage.results for entry in found["some"])[:SAMPLES]
    shown = []
    for key, doomed, stays in chosen:
        gone, other = (_document(place, cleaned) for place in (doomed, stays))
        text = f"{gone['text'][:EXCERPT]}\n\nstays: {other['id']}\n{other['text'][:EXCERPT]}"
        shown.append([key, gone["id"], gone["source"], text])
    return shown


def _document(place: int, cleaned: Path) -> dict[str, str]:
    shard, row = place >> shards.ROW_BITS, place % (1 << shards.ROW_BITS)
    columns = shards.load(shards.path(out(cleaned, shard)), ("id", "source", "text"))
    return {name: values[row] for name, values in columns.items()}


def dropped(stage: Stage) -> list[int]:
    """[documents, bytes] that a stage named by `exact` or `near` lets go."""
    counts = [found["dropped"] for found in stage.results]
    return [sum(column) for column in zip(*counts, strict=True)]


def _partitions(size: int) -> int:
    return max(1, -(-size // GROUP_BYTES))
