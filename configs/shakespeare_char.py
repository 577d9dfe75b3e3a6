r"""Shakespeare by characters, at the size nanoGPT gives for a CPU, in seconds instead of minutes.

    python -m data.build --sources=text:tinyshakespeare.txt --tokenizer=chars \
        --validation=0.1 --split=tail --out=runs/shakespeare_char/data
    python -m train --config=configs/shakespeare_char.py --workdir=runs/shakespeare_char

Made for a CPU, of which mesh.data=2 makes two devices, a thread each; one GPU needs
--config.mesh.data=1. The task, the size (4 layers, 4 heads, width 128) and the context of 64 are
those of nanoGPT (github.com/karpathy/nanoGPT, README, "I only have a macbook"), which ends near
1.88 nats a character after 2000 steps of 12 windows. What differs: Muon with a short memory,
RMSNorm, QK-norm, squared ReLU, zero-initialised outputs, rotary positions that turn within the
context (base 30, not 10,000), attention that reaches 8, 16, 32 and all 64 characters back in the
four layers, a linear fall of the rate to 0, and an end-of-document character beside the 65 of the
text. All of it was chosen on the last ninth of the training text; docs/log.md has the steps on the
way. benchmarks/time_to_loss.py measures it.
"""

from configs.schema import Batch, Config, Data, Evaluation, Mesh, Model, Optimizer, Schedule


def get_config() -> Config:
    """The recipe, see above."""
    return Config(
        model=Model(
            vocab=66,
            context=64,
            layers=4,
            width=128,
            heads=4,
            ffn="relu2",
            norm="rmsnorm",
            positions="rotary",
            rotary_base=30.0,
            windows=(8, 16, 32, 0),
            qk_norm=True,
            bias=False,
            residual_init="zero",
        ),
        data=Data(path="runs/shakespeare_char/data"),
        batch=Batch(size=24),
        optimizer=Optimizer(
            name="muon",
            learning_rate=0.015,
            rest_learning_rate=0.01,
            beta1=0.75,
            beta2=0.99,
            weight_decay=0.1,
        ),
        schedule=Schedule(kind="linear", warmup=2, final=0.0),
        evaluation=Evaluation(batch=128, prompt="\n"),
        mesh=Mesh(data=2),
        steps=140,
    )
