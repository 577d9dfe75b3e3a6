"""Shapes of transformers that exist near a wanted size, counted exactly.

A law names a number of parameters N. What can be built has whole heads, a feed-forward width that
the hardware multiplies well, and whole layers. Kaplan et al. 2020, figure 5: at a fixed N without
embeddings the aspect ratio width / layers matters little (6 layers of 4288 come within 3 % of 48 of
1600). So a shape is chosen for speed within the usual aspect ratios, and N is met as well as
possible.
"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from configs.schema import Model, require

Size = Literal["parameters", "non_embedding"]

# Width / layers: least in Hoffmann et al. 2022, table A9; most in Brown et al. 2020, table 2.1.
USUAL_ASPECTS = (40.0, 128.0)
_SLACK = 1.3  # for what the first guess at the depth may be off


@dataclass(frozen=True)
class Shape:
    """A model that exists: its counts, training FLOPs per token (attention included), and N.

    `N` is that one of the two counts which was asked for.
    """

    model: Model
    N: int
    parameters: int
    non_embedding: int
    flops_per_token: int

    @property
    def aspect(self) -> float:
        """Width over layers."""
        return self.model.width / self.model.layers


def estimate(layers: int, width: float) -> float:
    """12 L d^2: parameters of the blocks with an ungated feed-forward of 4 d (Kaplan et al. 2020).

    Equation 2.1 there. Far off for gated or grouped-query models: `shapes_near` counts.
    """
    return 12 * layers * width**2


def equal_width(layers: int, width: float, other_layers: int) -> float:
    """The width at which `other_layers` hold as many parameters, by 12 L d^2."""
    return width * math.sqrt(layers / other_layers)


def depth_threshold(width: float) -> float:
    """log_3(d): up to this depth another layer adds more expressiveness than width does.

    Levine et al. 2020, "Limits to depth efficiencies of self-attention". A bound from below on
    depth; no optimum.
    """
    require(width > 1, f"width={width} must be greater than 1")
    return math.log(width, 3)


def shapes_near(
    base: Model,
    wanted: float,
    size: Size = "non_embedding",
    aspects: tuple[float, float] = USUAL_ASPECTS,
    tolerance: float = 0.05,
    ffn_multiple: int = 128,
) -> tuple[Shape, ...]:
    """All shapes with N within `tolerance` of `wanted`, the nearest first: one depth per width.

    `base` gives all that is not shape: vocabulary, context, head_dim, the kind of feed-forward and
    its ratio to the width, heads per key-value head, biases, tied embeddings. Widths are multiples
    of head_dim with whole groups of heads, feed-forward widths multiples of `ffn_multiple`, and
    aspect ratios lie within `aspects`. Raises InputError where none exists.
    """
    low, high = aspects
    require(base.kind == "transformer", "shapes are those of transformers: model.kind is not one")
    require(
        wanted > 0 and tolerance > 0 and 0 < low < high and ffn_multiple > 0,
        "a size, a tolerance, rising aspect ratios and a multiple, all positive, are needed",
    )
    found = []
    start = _count(base, size)
    fixed = start.N - base.layers * _block(base, start.N, size)
    for width in _widths(base, wanted, aspects):
        # What lies outside the blocks is proportional to the width, and a block nearly to its
        # square; one count of this width then gives its block exactly.
        outside = fixed * width / base.width
        block = (start.N - fixed) / base.layers * (width / base.width) ** 2
        layers = max(1, round((wanted - outside) / block))
        if not low / _SLACK <= width / layers <= high * _SLACK:
            continue
        shape = _count(resized(base, layers, width, ffn_multiple), size)
        best = max(1, round((wanted - outside) * layers / (shape.N - outside)))
        if best != layers:
            shape = _count(resized(base, best, width, ffn_multiple), size)
        if low <= shape.aspect <= high and abs(shape.N / wanted - 1) <= tolerance:
            found.append(shape)
    require(
        bool(found),
        f"no shape with head_dim={base.head_dim} and an aspect ratio between {low:g} and {high:g} "
        f"has {wanted:.4g} parameters within {100 * tolerance:g} %: widen the tolerance or the "
        "aspect ratios, or choose a smaller model.head_dim",
    )
    return tuple(sorted(found, key=lambda shape: abs(math.log(shape.N / wanted))))


def by_depth(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """The trade-off of depth and width: of each depth the first shape, by rising depth."""
    first: dict[int, Shape] = {}
    for shape in shapes:
        first.setdefault(shape.model.layers, shape)
    return tuple(first[layers] for layers in sorted(first))


def _widths(base: Model, wanted: float, aspects: tuple[float, float]) -> list[int]:
    """Widths that whole groups of heads make up, and that may have an aspect ratio in range."""
    unit = base.head_dim * (base.heads // base.kv_heads)
    # N = f L d^2 with f from 6 (little besides attention) to 48 (a wide gated feed-forward).
    least = math.cbrt(wanted * aspects[0] / 48)
    most = math.cbrt(wanted * aspects[1] / 6)
    return list(range(max(1, int(least / unit)) * unit, int(most) + unit, unit))


def resized(base: Model, layers: int, width: int, ffn_multiple: int = 1) -> Model:
    """The base model at another depth and width, its heads as wide and its proportions kept.

    The feed-forward width is a multiple of `ffn_multiple`; `width` must hold whole groups of heads.
    """
    heads = width // base.head_dim
    ratio = base.ffn_width / base.width
    return dataclasses.replace(
        base,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads * base.kv_heads // base.heads,
        head_dim=int(base.head_dim),
        ffn_width=max(1, round(ratio * width / ffn_multiple)) * ffn_multiple,
    )


def _block(base: Model, counted: int, size: Size) -> int:
    """Parameters of one layer, from two counts."""
    return _count(dataclasses.replace(base, layers=base.layers + 1), size).N - counted


def _count(model: Model, size: Size) -> Shape:
    from model.count import counts

    # Stacked layers are declared once; windows that alternate need as many layers as there are.
    quick = dataclasses.replace(model, scan=True) if len(model.windows) == 1 else model
    counted = counts(quick)
    return Shape(
        model=model,
        N=getattr(counted, size),
        parameters=counted.parameters,
        non_embedding=counted.non_embedding,
        flops_per_token=counted.flops_per_token("palm"),
    )
