"""Tokens a second, python -m train.generate's function beside transformers' generate, alternated.

    python -m benchmarks.generation --sizes=12M --batches=1,16 --peer_python=PYTHON --json=g.json

Both sides hold the same random weights of a GPT-2 (float32, learned positions, LayerNorm with bias,
tanh GELU, tied head) and continue the same prompts of 32 tokens by 128, greedily, with a KV cache.
The peer is transformers' GPT2LMHeadModel: eager, in torch.inference_mode; without it ours is
measured alone. Before any clock runs the peer compares its logits after the prompt with ours (1e-4)
and ends where they differ; the share of equal greedy tokens is told, since sums of another order
break near ties differently. A round writes once one token and once all: the first is the time to
first token, the difference over the other tokens the time of a token, of all rows at once.
Compilation is apart. What a token needs at least: each weight and the half-full cache read once at
the bandwidth that benchmarks/roofline.py measures, or two operations a weight and row at its peak.

12M takes two minutes for both batches, 124M about two for batch 1 and six for batch 16.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness

SIZES = {
    "12M": {"vocab": 4096, "context": 256, "layers": 6, "width": 384, "heads": 6},
    "124M": {"vocab": 50257, "context": 1024, "layers": 12, "width": 768, "heads": 12},
}
PROMPT, NEW = 32, 128  # tokens


def isoflop(name: str, batch: int, file: Path) -> None:
    """Serve as the contender that is ours, after leaving weights, prompts and answers in `file`."""
    import jax
    import jax.numpy as jnp

    import model
    from configs.schema import Model
    from data.tokenizer import Tokenizer
    from train.generation import generate
    from train.sampling import Sampling

    config = Model(**SIZES[name])  # type: ignore[arg-type]
    random = np.random.default_rng(0)

    def noisy(x: jax.Array) -> jax.Array:  # so that biases and scales matter
        return x + 0.02 * random.standard_normal(x.shape, np.float32)

    params = jax.tree.map(noisy, jax.jit(model.init, static_argnums=0)(config, jax.random.key(0)))
    tokenizer = Tokenizer(
        "numbers",
        config.vocab,
        config.vocab - 1,
        b"",
        lambda text: np.array(text.split(), np.int32),
        lambda ids: " ".join(map(str, ids)),
    )
    text_bt = random.integers(
        0, config.vocab - 1, (batch, PROMPT - 1)
    )  # after the end-of-document token
    prompts = [tokenizer.decode(text_t) for text_t in text_bt]
    opening_bt = np.pad(text_bt, ((0, 0), (1, 0)), constant_values=tokenizer.eod).astype(np.int32)

    def write(count: int) -> list[list[int]]:
        texts = generate(
            config, params, tokenizer, prompts, max_tokens=count, sampling=Sampling(temperature=0)
        )
        return [list(map(int, text.text.split())) for text in texts]

    compiled = time.perf_counter()
    write(1)
    answers = write(NEW)
    compiled = time.perf_counter() - compiled
    if any(len(answer) < NEW for answer in answers):
        raise SystemExit("a text ended by itself: its speed would not count")
    cache = model.start_cache(config, batch, PROMPT)
    lengths_b = jnp.full(batch, PROMPT)
    logits_bv = jax.jit(model.decode, static_argnums=0)(
        config, params, cache, opening_bt, lengths_b
    )[0]
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    np.savez(file, **flat, opening=opening_bt, answers=answers, logits=logits_bv)  # type: ignore[arg-type]
    serve({"compile": compiled, "parameters": model.counts(config).parameters}, write)


def transformers(name: str, file: Path) -> None:
    """Serve as the peer, with the weights in `file`, once it is seen to agree."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    size, given = SIZES[name], np.load(file)
    width = size["width"]
    network = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=size["vocab"],
            n_positions=size["context"],
            n_embd=width,
            n_layer=size["layers"],
            n_head=size["heads"],
            activation_function="gelu_new",
            bos_token_id=None,
            eos_token_id=None,  # a text goes on
        )
    ).eval()
    network.set_attn_implementation("eager")
    network.generation_config.eos_token_id = None
    network.generation_config.pad_token_id = 0
    weights = {
        "wte.weight": given["embedding/tokens"][: size["vocab"]],
        "wpe.weight": given["embedding/positions"],
        "ln_f.weight": given["final_norm/scale"],
        "ln_f.bias": given["final_norm/bias"],
    }
    for i in range(size["layers"]):
        ours, theirs = f"layer_{i}/", f"h.{i}."
        for kind, shape in (("kernel", (width, width)), ("bias", (width,))):
            parts = ("query", "key", "value")
            joined = [given[f"{ours}attention/{part}/{kind}"].reshape(shape) for part in parts]
            leaf = "weight" if kind == "kernel" else "bias"
            weights[f"{theirs}attn.c_attn.{leaf}"] = np.concatenate(joined, axis=-1)
            output = given[f"{ours}attention/output/{kind}"].reshape(shape)
            weights[f"{theirs}attn.c_proj.{leaf}"] = output
            weights[f"{theirs}mlp.c_fc.{leaf}"] = given[f"{ours}ffn/up/{kind}"]
            weights[f"{theirs}mlp.c_proj.{leaf}"] = given[f"{ours}ffn/down/{kind}"]
        for norm, number in (("attention_norm", 1), ("ffn_norm", 2)):
            weights[f"{theirs}ln_{number}.weight"] = given[f"{ours}{norm}/scale"]
            weights[f"{theirs}ln_{number}.bias"] = given[f"{ours}{norm}/bias"]
    network.transformer.load_state_dict({k: torch.tensor(w) for k, w in weights.items()})
    opening = torch.tensor(given["opening"], dtype=torch.long)

    @torch.inference_mode()
    def write(count: int) -> np.ndarray:
        written = network.generate(
            opening,
            attention_mask=torch.ones_like(opening),
            max_new_tokens=count,
            do_sample=False,
            use_cache=True,
        )
        return written[:, PROMPT:].numpy()

    with torch.inference_mode():
        logits_bv = network(opening).logits[:, -1].numpy()
    error = float(np.max(np.abs(logits_bv - given["logits"][:, : size["vocab"]])))
    if error > 1e-4:
        raise SystemExit(f"logits differ by {error}: this is another network")
    equal = float(np.mean(write(NEW) == given["answers"]))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    serve({"logits differ by": error, "equal tokens": equal, "parameters": parameters}, write)


def serve(facts: dict[str, Any], write: Any) -> None:
    """Bursts: seconds to the first token, of a later one, and of all."""

    def seconds(count: int) -> float:
        began = time.perf_counter()
        write(count)
        return time.perf_counter() - began

    def burst() -> dict[str, float]:
        first, whole = seconds(1), seconds(NEW)
        return {"first": first, "token": (whole - first) / (NEW - 1), "seconds": whole}

    harness.serve(facts, burst)


def least(name: str, batch: int, peak: Any) -> Any:
    """The roofline of one token of all rows; the cache as it is on average."""
    from benchmarks import roofline
    from configs.schema import Model
    from model import counts

    size = SIZES[name]
    read = counts(Model(**size)).parameters - size["context"] * size["width"]  # type: ignore[arg-type]
    cached = 2 * batch * (PROMPT + NEW / 2) * size["layers"] * size["width"]
    return roofline.bound(2 * batch * (read + cached / batch), 4 * (read + cached), peak)


def compare(name: str, batch: int, options: argparse.Namespace, peak: Any) -> Any:
    """Rows of the table, and all that was found, for one size and batch."""
    with tempfile.TemporaryDirectory() as folder:
        here = ["-m", "benchmarks.generation", f"--size={name}", f"--batch={batch}"]
        here += [f"--file={folder}/weights.npz"]
        commands: dict[str, Any] = {  # ours first: it leaves the weights
            "isoflop": ([sys.executable, *here, "--worker=isoflop"], {}),
            "transformers": ([options.peer_python, *here, "--worker=transformers"], {}),
        }
        found = harness.alternate(commands, options.rounds)
    bound = least(name, batch, peak)
    found["bound"] = bound._asdict()
    for missing, reason in found["missing"].items():
        print(f"{name}, batch {batch}: no {missing}: {reason}")
    rows, peer = [], "transformers" if "transformers" in found["facts"] else "isoflop"
    for contender in found["facts"]:
        first, token = (
            harness.summary([each[contender][key] for each in found["rounds"]])
            for key in ("first", "token")
        )
        ratios = [
            str(harness.ratio(found["rounds"], contender, peer, key)) for key in ("token", "first")
        ]
        speeds = [f"{1000 * first.median:.4g}", f"{batch / token.median:.4g}", *ratios]
        share = f"{bound.seconds / token.median:.0%} ({bound.by})"
        rows.append([name, str(batch), contender, *speeds, share])
    facts, state = found["facts"], found["state"]
    print(
        f"{name}, batch {batch}: compiled and run once in {facts['isoflop']['compile']:.1f} s; "
        f"equal tokens {facts.get('transformers', {}).get('equal tokens', 'not compared')}; "
        f"load {state['load']:.1f}, steal {state['steal']:.1%}"
    )
    return rows, found


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--sizes", default="12M,124M")
    parser.add_argument("--batches", default="1,16", help="prompts continued together")
    parser.add_argument("--peer_python", default=sys.executable, help="one that has transformers")
    for hidden, kind in (("worker", str), ("size", str), ("batch", int), ("file", Path)):
        parser.add_argument(f"--{hidden}", type=kind, help="for the processes it starts")
    options = parser.parse_args()
    if options.worker == "isoflop":
        return isoflop(options.size, options.batch, options.file)
    if options.worker == "transformers":
        return transformers(options.size, options.file)
    from benchmarks import roofline  # not in the processes of the contenders

    peak = roofline.measure("float32")
    rows, results = [], {"peak": peak._asdict()}
    for name in options.sizes.split(","):
        for batch in map(int, options.batches.split(",")):
            more, results[f"{name}, batch {batch}"] = compare(name, batch, options, peak)
            rows += more
    head = ["size", "batch", "contender", "ms to first token", "tokens/s"]
    head += ["speed after it", "speed to it", "of the bound"]
    print(harness.table(head, rows))
    harness.write(options.json, results)
    return None


if __name__ == "__main__":
    main()
