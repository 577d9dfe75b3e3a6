"""The peer of benchmarks/train_step.py: GPT-2 as one writes it in PyTorch, trained with AdamW.

Pre-norm blocks, learned positions, GELU, no biases, a tied head, scaled_dot_product_attention,
clipping at 1 and the foreach AdamW: the model of nanoGPT (github.com/karpathy/nanoGPT) in its
structure. --nanogpt takes that repository's own model instead.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Attention and feed-forward, each added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.read = nn.Linear(width, 3 * width, bias=False)
        self.write = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_btd: torch.Tensor) -> torch.Tensor:
        """The stream after this block."""
        b, t, d = x_btd.shape
        parts = self.read(self.norms[0](x_btd)).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_btd = x_btd + self.write(read.transpose(1, 2).reshape(b, t, d))
        return x_btd + self.down(functional.gelu(self.up(self.norms[1](x_btd))))


class GPT(nn.Module):
    """Token ids and targets to logits and a loss, as nanoGPT's model does."""

    def __init__(self, vocab: int, context: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(
        self, tokens_bt: torch.Tensor, targets_bt: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and mean loss."""
        x_btd = self.tokens(tokens_bt) + self.positions.weight[: tokens_bt.shape[1]]
        for block in self.blocks:
            x_btd = block(x_btd)
        logits_btv = functional.linear(self.norm(x_btd), self.tokens.weight)
        loss = functional.cross_entropy(logits_btv.flatten(0, 1), targets_bt.flatten())
        return logits_btv, loss


def build(size: dict[str, int], clone: str) -> nn.Module:
    """Our GPT, or the one of a clone of nanoGPT."""
    if not clone:
        return GPT(*(size[key] for key in ("vocab", "context", "layers", "width", "heads")))
    spec = importlib.util.spec_from_file_location("nanogpt_model", Path(clone) / "model.py")
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = module.GPTConfig(
        block_size=size["context"],
        vocab_size=size["vocab"],
        n_layer=size["layers"],
        n_head=size["heads"],
        n_embd=size["width"],
        dropout=0.0,
        bias=False,
    )
    return module.GPT(settings)
