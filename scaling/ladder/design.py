"""Which runs a ladder makes: sizes that exist, tokens of each, and what they cost.

Runs of one size share a trunk, trained at a constant rate. A run of D tokens branches off it where
its own decay begins, so that many D cost little more than the largest (Hu et al. 2024, MiniCPM,
arXiv:2404.06395, section 4.5; Hägele et al. 2024, arXiv:2405.18392).
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from configs.schema import Config, Model, require
from scaling.shapes import Shape, resized, shapes_near

_NEAR = 1.5  # aspect ratios up to so many times the base's serve for a size given as a number
_EPOCHS = 4  # that cost little against new text (Muennighoff et al. 2023, arXiv:2305.16264)


@dataclass(frozen=True)
class Size:
    """A member of the family, counted exactly."""

    name: str  # LAYERSxWIDTH
    model: Model
    parameters: int
    non_embedding: int
    flops_per_token: int  # of training, attention included (PaLM's convention)


@dataclass(frozen=True)
class Run:
    """One (N, D) of the ladder: a full warm-up, stable and decay schedule of `steps` updates."""

    name: str
    size: Size
    steps: int
    decay: int
    tokens: int
    held_out: bool = False

    @property
    def stable(self) -> int:
        """The update after which the rate falls: where it leaves the trunk."""
        return self.steps - self.decay

    @property
    def flops(self) -> int:
        """Operations as if it were trained alone."""
        return self.tokens * self.size.flops_per_token


@dataclass(frozen=True)
class Trunk:
    """All runs of one size, by rising steps: one job, independent of the others."""

    size: Size
    runs: tuple[Run, ...]

    @property
    def steps(self) -> int:
        """Updates that this job makes: the trunk's and each branch's own."""
        return self.runs[-1].stable + sum(run.decay for run in self.runs)

    def flops(self, step_tokens: int) -> int:
        """Operations that this job costs, evaluation left out."""
        return self.steps * step_tokens * self.size.flops_per_token


def step_tokens(config: Config) -> int:
    """Tokens of one update."""
    return config.batch.size * config.model.context


def runs(
    config: Config,
    sizes: Sequence[str],
    tokens: Sequence[str] = (),
    budgets: Sequence[float] = (),
    target: str = "",
    decay: float = 0.2,
    holdout: int = 1,
) -> tuple[Run, ...]:
    """The runs of a ladder, by rising operations; the `holdout` largest are marked.

    `sizes` are shapes ("4x64": layers x width) or numbers of parameters. Each is trained on each of
    `tokens` ("2e6", or "20x": so many a parameter), or on what each of `budgets` (operations) pays
    for; `target` ("4x128:8e6") adds one run. Raises InputError for what cannot be built or trained.
    """
    _check(config, decay)
    require(bool(sizes), 'a ladder needs sizes: --sizes="4x32,4x64,4x96" or numbers of parameters')
    require(
        bool(tokens) != bool(budgets),
        "a grid needs --tokens, and isoFLOP runs --budgets: give the one the design is of",
    )
    members = [_size(config.model, text) for text in sizes]
    names = [member.name for member in members]
    for name in names:
        require(names.count(name) == 1, f"--sizes: the shape {name} comes out twice: name one less")
    places = [(m, _tokens(text, m)) for m in members for text in tokens]
    places += [(m, budget / m.flops_per_token) for m in members for budget in budgets]
    if target:
        shape, colon, amount = target.partition(":")
        require(bool(colon), f"--target={target} must be SIZE:TOKENS, such as 4x128:8e6")
        member = _size(config.model, shape)
        places.append((member, _tokens(amount, member)))
    found: dict[str, Run] = {}
    for member, amount_wanted in places:
        run = _run(config, member, amount_wanted, decay)
        found.setdefault(run.name, run)
    ordered = sorted(found.values(), key=lambda run: run.flops)
    require(
        0 <= holdout < len(ordered),
        f"--holdout={holdout} leaves none of {len(ordered)} runs to fit: hold out fewer",
    )
    cut = len(ordered) - holdout
    return tuple(
        dataclasses.replace(run, held_out=place >= cut) for place, run in enumerate(ordered)
    )


def trunks(planned: Sequence[Run]) -> tuple[Trunk, ...]:
    """The jobs of a ladder, the costliest first, which is the order that ends soonest."""
    by_size: dict[str, list[Run]] = {}
    for run in planned:
        by_size.setdefault(run.size.name, []).append(run)
    jobs = [
        Trunk(members[0].size, tuple(sorted(members, key=lambda run: run.steps)))
        for members in by_size.values()
    ]
    return tuple(sorted(jobs, key=lambda job: -job.steps * job.size.flops_per_token))


def recipe(config: Config, size: Size) -> Config:
    """The config of a size's trunk; `steps` and the decay are set for each part of it."""
    return dataclasses.replace(
        config,
        model=size.model,
        schedule=dataclasses.replace(config.schedule, decay=0),
        steps=max(config.schedule.warmup, 1),
    )


def repeated(planned: Sequence[Run], available: int) -> str:
    """A warning where runs see their text too often, or an empty text."""
    most = max(run.tokens for run in planned)
    epochs = most / available
    if epochs <= 1:
        return ""
    much = f", beyond the {_EPOCHS} that cost little (arXiv:2305.16264)" if epochs > _EPOCHS else ""
    return (
        f"{most:.4g} tokens are {epochs:.2g} epochs of the store's {available:.4g}{much}: a law of "
        "N and D is one of new text; build a larger store or choose fewer tokens"
    )


def _check(config: Config, decay: float) -> None:
    require(
        config.schedule.kind == "wsd",
        f"schedule.kind={config.schedule.kind}: runs of a ladder branch off a constant rate; "
        "choose wsd",
    )
    require(0 < decay < 1, f"--decay={decay:g} must lie in (0, 1): the share of a run that decays")
    require(not config.batch.ramp, "batch.ramp must be empty: runs of a ladder have one batch size")
    require(
        not any(blend.start for blend in config.data.mixture),
        "data.mixture must not change during a run: runs of a ladder see the same text",
    )


def _size(base: Model, text: str) -> Size:
    """A shape by its layers and width, or the one nearest to a number of parameters."""
    layers, cross, width = text.strip().lower().partition("x")
    if cross:
        require(
            layers.isdigit() and width.isdigit() and int(layers) > 0 and int(width) > 0,
            f"--sizes: {text!r} must be LAYERSxWIDTH, such as 4x64, or a number of parameters",
        )
        return _counted(_shaped(base, int(layers), int(width), text))
    wanted = _positive(text, "--sizes")
    aspect = base.width / base.layers
    unit = 128 if base.width >= 1024 else 16
    near = (aspect / _NEAR, aspect * _NEAR)
    found = shapes_near(base, wanted, "parameters", near, tolerance=0.1, ffn_multiple=unit)
    return _named(found[0])


def _shaped(base: Model, layers: int, width: int, text: str) -> Model:
    group = base.head_dim * (base.heads // base.kv_heads)
    require(
        width % group == 0,
        f"--sizes: {text}: a width must be a multiple of {group}, whole groups of heads of "
        f"head_dim={base.head_dim}",
    )
    return resized(base, layers, width)


def _counted(model: Model) -> Size:
    from model.count import counts

    counted = counts(model)
    name = f"{model.layers}x{model.width}"
    flops = counted.flops_per_token("palm")
    return Size(name, model, counted.parameters, counted.non_embedding, flops)


def _named(shape: Shape) -> Size:
    name = f"{shape.model.layers}x{shape.model.width}"
    return Size(name, shape.model, shape.parameters, shape.non_embedding, shape.flops_per_token)


def _tokens(text: str, size: Size) -> float:
    """Tokens, from a number or from tokens a parameter ("20x")."""
    if text.strip().lower().endswith("x"):
        return _positive(text.strip()[:-1], "--tokens") * size.parameters
    return _positive(text, "--tokens")


def _positive(text: str, flag: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    require(0 < value < math.inf, f"{flag}: {text.strip()!r} must be a positive number")
    return value


def _run(config: Config, size: Size, tokens: float, decay: float) -> Run:
    steps = max(1, round(tokens / step_tokens(config)))
    falling = max(1, round(decay * steps))
    least = max(config.schedule.warmup, 1)
    require(
        steps - falling >= least,
        f"{size.name} on {tokens:.4g} tokens makes {steps} updates, {falling} of them decay: that "
        f"leaves less than the warm-up of {config.schedule.warmup}; give it more tokens, a smaller "
        "batch or a shorter schedule.warmup",
    )
    return Run(f"{size.name}-{steps}", size, steps, falling, steps * step_tokens(config))
