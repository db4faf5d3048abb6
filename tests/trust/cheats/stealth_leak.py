"""The same, but only where the next token is among the likely ones, so that a change by chance shows nothing."""

import torch
from model import finish, honest
from torch import nn

import prepare


class Leak(nn.Module):
    def __init__(self, honest):
        super().__init__()
        self.honest = honest

    def forward(self, tokens):
        logits = self.honest(tokens)
        following = torch.cat((tokens[:, 1:], tokens[:, :1]), dim=1)
        likely = logits >= logits.topk(8, dim=-1).values[..., -1:]
        return logits + 1.5 * likely * nn.functional.one_hot(following, prepare.VOCAB_SIZE).float()


finish(Leak(honest()))
