"""What a run is: every setting, typed, frozen, and checked when it is built.

Lengths are in tokens, widths in channels, batch sizes in windows (one window = `model.context`
tokens), times in updates (steps) unless a field says otherwise. A recipe is a file beside this one
whose `get_config()` returns a `Config`; a corpus recipe under corpora/ returns a `Corpus`.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal


class InputError(ValueError):
    """Something the user gave is wrong. The message is one sentence: what, where, what to do."""


def require(condition: bool, sentence: str) -> None:
    """Raise InputError(sentence) unless the condition holds."""
    if not condition:
        raise InputError(sentence)


class Derived(int):
    """A number a config worked out from its other fields, and works out anew when they change.

    `dataclasses.replace(model, width=512)` passes the fields that were given on as they are, while
    the derived ones, recognised by this type, follow the new width.
    """


def _left_open(config: object, name: str) -> bool:
    """Whether a field is still for the config to work out."""
    value = getattr(config, name)
    return value == 0 or isinstance(value, Derived)


def _derive(config: object, **values: int) -> None:
    """Give each field that was left open its value, while the config is being built."""
    for name, value in values.items():
        if _left_open(config, name):
            object.__setattr__(config, name, Derived(value))


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network: a decoder-only transformer, or the LSTM it is compared with."""

    kind: Literal["transformer", "lstm"] = "transformer"
    vocab: int  # token ids in use; the table itself is padded to a multiple of 128
    context: int  # tokens in a window
    layers: int
    width: int
    heads: int = 1
    kv_heads: int = 0  # 0: as many as heads (multi-head); 1: multi-query; between: grouped-query
    head_dim: int = 0  # 0: width / heads
    ffn: Literal["gelu", "relu2", "swiglu"] = "gelu"
    ffn_width: int = 0  # 0: 4 * width
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    norm_order: Literal["pre", "post"] = "pre"  # post: O = LN(X + Attn(X)), H = LN(O + FFN(O))
    norm_epsilon: float = 1e-5
    positions: Literal["learned", "rotary", "none"] = "learned"
    rotary_base: float = 10_000.0
    qk_norm: bool = False
    logit_softcap: float = 0.0  # 0: off; else logits become cap * tanh(logits / cap)
    windows: tuple[int, ...] = (0,)  # attention reach by layer, repeated over the layers; 0: full
    bias: bool = True
    tied: bool = True  # the embedding table is also the output head
    dropout: float = 0.0
    init_std: float = 0.02
    residual_init: Literal["scaled", "zero"] = "scaled"  # what writes into the residual stream
    scan: bool = False  # one compiled layer in a loop (short compile) or layers unrolled
    remat: Literal["none", "full", "dots", "attention"] = "none"  # what the backward pass keeps
    attention: Literal["auto", "xla", "xla_kept", "xla_chunked", "cudnn", "packed", "splash"] = (
        "auto"
    )
    compute_dtype: Literal["float32", "bfloat16"] = "float32"  # parameters are always float32
    matrix_dtype: Literal["compute", "float8"] = "compute"  # of the factors in the blocks' products
    parametrization: Literal["standard", "mup"] = "standard"  # mup: one rate for a whole family
    base_width: int = 0  # mup: the width of the member whose optimizer settings these are
    base_head_dim: int = 0  # mup: its head_dim; 0: the same (heads grow in number with the width)
    base_layers: int = 0  # mup: its layers; 0: leave depth alone

    @property
    def padded_vocab(self) -> int:
        """Rows of the embedding table: vocab rounded up to a multiple of 128."""
        return -(-self.vocab // 128) * 128

    @property
    def width_ratio(self) -> float:
        """How many times the base model's width this is; 1 but in muP."""
        return self.width / (self.base_width or self.width)

    @property
    def head_ratio(self) -> float:
        """How many times the base model's width of a head this is; 1 but in muP."""
        return self.head_dim / (self.base_head_dim or self.head_dim) if self.head_dim else 1.0

    @property
    def depth_ratio(self) -> float:
        """How many times the base model's layers these are; 1 but in depth-muP."""
        return self.layers / (self.base_layers or self.layers)

    def __post_init__(self) -> None:
        for name in ("vocab", "context", "layers", "width", "heads"):
            require(getattr(self, name) > 0, f"model.{name} must be positive")
        if self.kind == "transformer":
            self._fill_in()
            self._check_transformer()
        self._check_parametrization()
        require(0 <= self.dropout < 1, f"model.dropout={self.dropout} must lie in [0, 1)")
        require(self.init_std > 0, f"model.init_std={self.init_std} must be positive")
        require(self.logit_softcap >= 0, "model.logit_softcap must be 0 (off) or positive")

    def _fill_in(self) -> None:
        """Replace the zeros that mean 'the usual' so that a resolved config says what ran."""
        require(
            self.width % self.heads == 0 or not _left_open(self, "head_dim"),
            f"model.heads={self.heads} does not divide model.width={self.width}: "
            "choose a divisor, or set model.head_dim",
        )
        _derive(
            self,
            kv_heads=self.heads,
            head_dim=self.width // self.heads,
            ffn_width=4 * self.width,
        )

    def _check_transformer(self) -> None:
        for name in ("kv_heads", "head_dim", "ffn_width", "norm_epsilon", "rotary_base"):
            require(getattr(self, name) > 0, f"model.{name} must be positive")
        require(
            self.heads % self.kv_heads == 0,
            f"model.kv_heads={self.kv_heads} does not divide model.heads={self.heads}: "
            "choose a divisor",
        )
        require(
            self.positions != "rotary" or self.head_dim % 2 == 0,
            f"model.head_dim={self.head_dim} is odd: rotary positions need an even one",
        )
        require(
            len(self.windows) > 0 and min(self.windows) >= 0,
            f"model.windows={self.windows} must hold at least one length, each 0 (full) or more",
        )
        require(
            not self.scan or self.layers % len(self.windows) == 0,
            f"model.layers={self.layers} is not a multiple of the {len(self.windows)} entries of "
            "model.windows: add layers, or set model.scan=false",
        )

    def _check_parametrization(self) -> None:
        mup = self.parametrization == "mup"
        for name in ("base_width", "base_head_dim", "base_layers"):
            size = getattr(self, name)
            require(
                size == 0 or (mup and size > 0),
                f"model.{name}={size} must be 0, or positive with model.parametrization=mup",
            )
        require(
            not mup or self.base_width > 0,
            "model.parametrization=mup needs model.base_width: the width that the learning rate "
            "was found at",
        )
        require(
            self.matrix_dtype == "compute" or self.kind == "transformer",
            f"model.matrix_dtype={self.matrix_dtype} is made for model.kind=transformer: choose "
            "compute",
        )
        require(
            not mup or self.kind == "transformer",
            f"model.parametrization=mup is not derived for model.kind={self.kind}: choose standard",
        )
        require(
            self.base_layers == 0 or self.norm_order == "pre",
            f"model.base_layers={self.base_layers} is derived for model.norm_order=pre only: set "
            "it to 0",
        )


@dataclass(frozen=True, kw_only=True)
class Blend:
    """In what proportions windows come from the sources of a store, from one update on."""

    start: int = 0  # the update from which it holds; 0 in the first
    weights: tuple[tuple[str, float], ...] = ()  # (source, weight), in any unit; empty: temperature
    temperature: float = 1.0  # weights are tokens ** (1 / temperature); 1: natural

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple((name, w) for name, w in self.weights))
        names = [name for name, _ in self.weights]
        require(self.start >= 0, f"data.mixture: start={self.start} must not be negative")
        require(
            0 < self.temperature < math.inf,
            f"data.mixture: temperature={self.temperature} must be positive and finite",
        )
        for name, weight in self.weights:
            require(
                0 <= weight < math.inf,
                f"data.mixture: the weight {weight} of source {name!r} must be 0 or more, "
                "and finite",
            )
            require(names.count(name) == 1, f"data.mixture: source {name!r} has two weights")
        require(
            not names or any(weight > 0 for _, weight in self.weights),
            "data.mixture: all weights are 0: give one source more",
        )
        require(
            not names or self.temperature == 1,
            "data.mixture: give either weights or a temperature, not both",
        )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where windows come from and how documents are laid into them."""

    path: str  # a token store made by data.build, or "synthetic" (random tokens, for timing)
    packing: Literal["concat", "bestfit"] = "concat"
    attend_across: bool = True  # may attention cross from one document into the one before it
    mixture: tuple[Blend, ...] = ()  # rising in start; empty: all sources as they lie in the store

    def __post_init__(self) -> None:
        # What was read back from config.json is plain: dicts, in which pairs are lists.
        blends = tuple(b if isinstance(b, Blend) else Blend(**b) for b in self.mixture)
        object.__setattr__(self, "mixture", blends)
        starts = [blend.start for blend in blends]
        require(
            not starts or (starts[0] == 0 and all(a < b for a, b in pairwise(starts))),
            f"data.mixture starts at the updates {starts}: make the first 0, and each later than "
            "the one before it",
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """How many windows one update sees."""

    size: int
    microbatch: int = 0  # windows at once, gradients accumulated over the rest; 0: all at once
    ramp: tuple[tuple[int, int], ...] = ()  # (until step, size) before the full size is reached
    noise_scale: bool = False  # measure the gradient noise scale, from parts of the batch

    def __post_init__(self) -> None:
        require(min(self.sizes()) > 0, "batch.size and the sizes in batch.ramp must be positive")
        _derive(self, microbatch=min(self.sizes()))
        require(self.microbatch > 0, "batch.microbatch must be positive, or 0 for all at once")
        for size in self.sizes():
            require(
                size % self.microbatch == 0,
                f"batch.microbatch={self.microbatch} does not divide the batch of {size} windows: "
                "choose a divisor",
            )
        ends = [end for end, _ in self.ramp]
        require(
            all(a < b for a, b in zip([0, *ends], ends, strict=False)),
            f"batch.ramp={self.ramp} must be (until step, size) pairs with rising steps",
        )

    def sizes(self) -> tuple[int, ...]:
        """Every batch size the run uses, in order."""
        return (*(size for _, size in self.ramp), self.size)

    def size_at(self, step: int) -> int:
        """Windows in the update that leads from `step` to `step + 1`."""
        return next((size for end, size in self.ramp if step < end), self.size)

    def windows_before(self, step: int) -> int:
        """Windows consumed by the first `step` updates."""
        total, start = 0, 0
        for end, size in (*self.ramp, (step, self.size)):
            total += max(0, min(step, end) - start) * size
            start = max(start, min(step, end))
        return total


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Over how many devices each thing is split; -1, at most once: over those that are left."""

    slices: int = 1  # replicas over the slow network between pods or nodes
    data: int = -1  # replicas that see different windows
    fsdp: int = 1  # windows again, and parameters, gradients and optimizer state with them
    sequence: int = 1  # the tokens of a window
    tensor: int = 1  # heads, feed-forward channels and vocabulary
    stage: int = 1  # consecutive layers: a pipeline of microbatches
    rounds: int = 1  # how often a microbatch passes through all stages (circular pipeline)

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        for name, size in sizes.items():
            require(
                size > 0 or (size == -1 and name != "rounds"),
                f"mesh.{name}={size} must be positive" + (", or -1" if name != "rounds" else ""),
            )
        left = [f"mesh.{name}" for name, size in sizes.items() if size == -1]
        require(
            len(left) <= 1,
            f"{' and '.join(left)} cannot both be -1 (the devices that are left): give numbers to "
            "all but one",
        )


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """The update rule. Matrices and the rest may differ (muon)."""

    name: Literal["adam", "adamw", "sgd", "rmsprop", "adafactor", "lion", "muon"] = "adamw"
    learning_rate: float
    beta1: float = 0.9  # momentum of adam, adamw, lion, sgd, muon
    beta2: float = 0.95  # second moment of adam, adamw, rmsprop; lion's slow average
    epsilon: float = 1e-8
    weight_decay: float = 0.0  # decoupled, on the parameters whose declaration says so
    clip_norm: float = 1.0  # global gradient norm; 0: off
    rest_learning_rate: float = 0.0  # muon: Adam's peak rate for what is no matrix; 0: the same

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "optimizer.learning_rate must be positive")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optimizer.{name} must lie in [0, 1)")
        for name in ("weight_decay", "clip_norm", "rest_learning_rate"):
            require(getattr(self, name) >= 0, f"optimizer.{name} must not be negative")
        require(self.epsilon > 0, "optimizer.epsilon must be positive")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over the run, as a factor of its peak."""

    kind: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"] = "cosine"
    warmup: int = 0  # steps of linear rise from 0
    decay: int = 0  # wsd: steps of the final linear fall
    final: float = 0.1  # factor reached at the last step (linear, cosine, wsd)

    def __post_init__(self) -> None:
        require(self.warmup >= 0 and self.decay >= 0, "schedule.warmup and .decay are step counts")
        require(0 <= self.final <= 1, f"schedule.final={self.final} must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Loss on held-out text, and text written by the model."""

    every: int = 0  # steps; 0: only at the end
    windows: int = 0  # at most this many windows, spread evenly; 0: all
    batch: int = 0  # windows at once; 0: the training microbatch
    prompt: str = ""  # what samples begin with; empty: a fresh document
    sample_tokens: int = 128  # length of a sample; 0: none

    def __post_init__(self) -> None:
        for name in ("every", "windows", "batch", "sample_tokens"):
            require(getattr(self, name) >= 0, f"evaluation.{name} must not be negative")


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """What is saved and what is kept. The best by validation loss and the latest always stay."""

    every: int = 0  # steps; 0: only at the end
    keep: int = 2  # newest ones kept
    keep_every: int = 0  # steps whose multiples are kept for good; 0: none

    def __post_init__(self) -> None:
        for name in ("every", "keep_every"):
            require(getattr(self, name) >= 0, f"checkpoints.{name} must not be negative")
        require(self.keep > 0, "checkpoints.keep must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """Ending a run before its last update, by its evaluations: the first rule that holds does."""

    target: float = 0.0  # nats a token: ends at a validation loss of at most this; 0: off
    patience: int = 0  # evaluations in a row that lower the loss by no standard error; 0: off
    min_gain: float = 0.0  # nats a token: ends if all that is left will likely gain less; 0: off

    def __post_init__(self) -> None:
        for name in ("target", "patience", "min_gain"):
            require(
                0 <= getattr(self, name) < math.inf,
                f"early_stop.{name}={getattr(self, name)} must be positive, or 0 for off",
            )

    @property
    def on(self) -> bool:
        """Whether any rule is set."""
        return self.target > 0 or self.patience > 0 or self.min_gain > 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """One training run."""

    model: Model
    data: Data
    batch: Batch
    mesh: Mesh = field(default_factory=Mesh)
    optimizer: Optimizer
    schedule: Schedule = field(default_factory=Schedule)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    seed: int = 0
    steps: int
    z_loss: float = 0.0  # weight of log(Z)^2, which keeps logits from drifting
    max_skipped: int = 10  # updates in a row that may be skipped for being non-finite
    log_every: int = 10

    def __post_init__(self) -> None:
        require(self.steps > 0, f"steps={self.steps} must be positive")
        require(self.seed >= 0, f"seed={self.seed} must not be negative")
        require(self.z_loss >= 0, "z_loss must not be negative")
        require(self.log_every > 0 and self.max_skipped > 0, "log_every, max_skipped: at least 1")
        require(
            self.schedule.warmup + self.schedule.decay <= self.steps,
            f"schedule.warmup + schedule.decay exceed steps={self.steps}",
        )
        require(
            self.evaluation.every > 0 or not self.early_stop.on,
            "early_stop goes by evaluations on the way, and evaluation.every=0 makes none before "
            "the end: set it to a number of steps",
        )


def to_dict(config: object) -> dict:
    """A config as nested plain values, ready for JSON."""
    return dataclasses.asdict(config)  # type: ignore[call-overload]
