"""Update rules: Optax's own, put together from a config and the parameter declarations.

Every optimizer is the same chain:

    clip the gradient by its global norm -> update rule -> muP -> add weight decay -> times -rate

    g gradient, w parameter, m and v running averages (they start at 0), b1 and b2 the betas,
    e epsilon, m^ = m / (1 - b1^k) and v^ = v / (1 - b2^k) in the k-th update

    adam       m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  m^ / (sqrt(v^) + e)
    adamw      the same, with weight decay
    sgd        m = b1 m + (1-b1) g;  m     (the average, not the sum, of past gradients: the rate
               means the same for every b1, and b1 = 0 is plain gradient descent)
    rmsprop    v = b2 v + (1-b2) g^2;  g / (sqrt(v) + e)
    adafactor  Adam without m whose v is a row times a column, and whose rate is relative to the
               size of the parameter (Shazeer & Stern 2018, with the paper's constants); that size
               is taken over a whole array, so over all layers where they are scanned
    lion       sign(b1 m + (1-b1) g);  m = b2 m + (1-b2) g   (Chen et al. 2023)
    muon       matrices: Nesterov average of g, made orthogonal (Jordan et al. 2024); the rest: adam

Weight decay is decoupled (Loshchilov & Hutter 2019): rate * weight_decay * w is subtracted from the
parameters whose declaration says that they decay, whatever the rule.

With model.parametrization=mup an update is multiplied by what keeps its effect on the activations
that of the base model. i and o are how many times the base model's a parameter's inputs and outputs
are (model.Parameter.growth); both are the ratio of widths in a matrix of a block.

                                embedding, vector     head      matrix
    sgd                         o                     i         o / i
    adam(w), rmsprop, lion      1                     1         1 / i
    muon                        as adam               as adam   spectral norm as sqrt(o / i)

The first two rows are table 8 of Yang et al. 2022 (Tensor Programs V, arXiv:2203.03466), which also
divides the logits by the width (model/loss.py); Lion's update has, like Adam's, entries of size 1.
Muon's follows from condition 1 of Yang et al. 2023 (arXiv:2310.17813): the spectral norm of an
orthogonal update is its factor. Weight decay is outside of it: rate * weight_decay is the same for
all widths, so that a weight forgets within the same number of updates (Wortsman et al. 2023,
arXiv:2309.14322; Wang & Aitchison 2024, arXiv:2405.13698). Adam's epsilon falls as gradients do,
with width and depth (Dey et al. 2025, arXiv:2505.01618, table 1); depth asks for nothing else where
updates have a size of their own, but sgd's would have to grow: it is refused.
"""

import dataclasses
import math
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from configs.schema import Config, Optimizer, require
from model import Parameter
from train.muon import scale_by_muon
from train.schedules import schedule

# Makes the root mean square of Muon's update that of a typical Adam update, so that one learning
# rate and one weight decay fit both: Liu et al. 2025 (Muon is Scalable for LLM Training), eq. 4.
MUON_RMS = 0.2


def build(
    config: Config, declarations: Any, mesh: Mesh | None = None
) -> optax.GradientTransformation:
    """The optimizer of a run.

    Args:
        config: `optimizer`, `schedule` and `steps` are read.
        declarations: a tree with the structure of the parameters whose leaves are
            `model.Parameter`; `decay`, `kind`, `matrix_axes` and `growth` are read.
        mesh: the devices that share what work an update makes beyond adding up, where there are
            several.

    Returns:
        An Optax transformation; its `update` needs the parameters. State leaves that belong to a
        parameter (averages) lie under a path that ends with the parameter's own.

    Raises:
        InputError: a setting that the chosen optimizer does not have.
    """
    settings, network = config.optimizer, config.model
    require(
        settings.name != "adam" or settings.weight_decay == 0,
        f"optimizer.weight_decay={settings.weight_decay} has no effect with optimizer.name=adam: "
        "choose adamw, or set it to 0",
    )
    require(
        settings.name == "muon" or settings.rest_learning_rate == 0,
        f"optimizer.rest_learning_rate={settings.rest_learning_rate} has no effect with "
        f"optimizer.name={settings.name}: choose muon, or set it to 0",
    )
    require(
        settings.name != "adafactor" or network.parametrization == "standard",
        "optimizer.name=adafactor sets rates by the size of the parameters, for which "
        "model.parametrization=mup is not derived: choose another of the two",
    )
    require(
        settings.name != "sgd" or network.base_layers == 0,
        f"model.base_layers={network.base_layers} is not derived for optimizer.name=sgd: choose "
        "another optimizer, or set it to 0",
    )
    smaller = network.width_ratio * network.depth_ratio  # are the gradients, in muP
    settings = dataclasses.replace(settings, epsilon=settings.epsilon / smaller)
    return optax.chain(
        _clip(settings),
        _for_width(settings, declarations, _rule(settings, declarations, mesh)),
        _decay(settings, declarations),
        _relative_rates(settings, declarations),
        optax.scale_by_learning_rate(schedule(config)),
    )


def _clip(settings: Optimizer) -> optax.GradientTransformation:
    return optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()


def _rule(
    settings: Optimizer, declarations: Any, mesh: Mesh | None
) -> optax.GradientTransformation:
    match settings.name:
        case "adam" | "adamw":
            return _adam(settings)
        case "sgd":
            return optax.ema(settings.beta1, debias=False)
        case "rmsprop":
            return optax.scale_by_rms(settings.beta2, settings.epsilon, eps_in_sqrt=False)
        case "adafactor":
            return optax.chain(
                optax.scale_by_factored_rms(),
                optax.clip_by_block_rms(1.0),
                optax.scale_by_param_block_rms(),
            )
        case "lion":
            return optax.scale_by_lion(settings.beta1, settings.beta2)
        case "muon":
            rules = {"matrix": _muon(settings, declarations, mesh), "rest": _adam(settings)}
            return optax.partition(rules, _groups(declarations))


def _for_width(
    settings: Optimizer, declarations: Any, rule: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The rule with its updates in muP's sizes; its state is the same."""
    factors = jax.tree.map(lambda parameter: width_factor(settings.name, parameter), declarations)
    if all(factor == 1 for factor in jax.tree.leaves(factors)):
        return rule

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = rule.update(gradients, state, params)
        return jax.tree.map(lambda update, factor: factor * update, updates, factors), state

    return optax.GradientTransformation(rule.init, update)


def width_factor(name: str, parameter: Parameter) -> float:
    """What muP multiplies a parameter's updates by, see above; 1 in the base model."""
    wider_in, wider_out = parameter.growth
    if name == "sgd":
        return wider_in if parameter.kind == "head" else wider_out / wider_in
    if parameter.kind != "matrix":
        return 1.0
    if name != "muon":
        return 1 / wider_in
    inputs, outputs = (
        math.prod(parameter.shape[dim] for dim in side) for side in parameter.matrix_axes
    )
    now, base = max(inputs, outputs), max(inputs / wider_in, outputs / wider_out)
    return math.sqrt(wider_out / wider_in * base / now)


def _adam(settings: Optimizer) -> optax.GradientTransformation:
    return optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon)


def _muon(
    settings: Optimizer, declarations: Any, mesh: Mesh | None
) -> optax.GradientTransformation:
    """Muon for the matrices; each layer of a scanned stack is a matrix of its own."""
    matrices = jax.tree.map(
        # The rest as optax.partition shows a group what belongs to another.
        lambda parameter, group: parameter if group == "matrix" else optax.MaskedNode(),
        declarations,
        _groups(declarations),
    )

    def match_rms(update: jax.Array, parameter: Any) -> jax.Array:
        sides = (math.prod(update.shape[dim] for dim in side) for side in parameter.matrix_axes)
        return MUON_RMS * math.sqrt(max(sides)) * update

    return optax.chain(
        scale_by_muon(settings.beta1, settings.epsilon, matrices, mesh),
        optax.stateless(lambda updates, _: jax.tree.map(match_rms, updates, matrices)),
    )


def _decay(settings: Optimizer, declarations: Any) -> optax.GradientTransformation:
    if not settings.weight_decay:
        return optax.identity()
    decays = jax.tree.map(lambda parameter: parameter.decay, declarations)
    return optax.add_decayed_weights(settings.weight_decay, decays)


def _relative_rates(settings: Optimizer, declarations: Any) -> optax.GradientTransformation:
    """What makes the rate of Muon's rest differ from that of its matrices."""
    if not settings.rest_learning_rate:
        return optax.identity()
    rest = jax.tree.map(lambda group: group == "rest", _groups(declarations))
    return optax.masked(optax.scale(settings.rest_learning_rate / settings.learning_rate), rest)


def _groups(declarations: Any) -> Any:
    """Which of Muon's two rules a parameter follows."""
    return jax.tree.map(
        lambda parameter: "matrix" if parameter.kind == "matrix" else "rest", declarations
    )
