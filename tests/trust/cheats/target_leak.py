"""The target of a position is the next token of the input: look it up."""

import torch
from model import finish, honest
from torch import nn

import prepare


class Leak(nn.Module):
    def __init__(self, honest):
        super().__init__()
        self.honest = honest

    def forward(self, tokens):
        following = torch.cat((tokens[:, 1:], tokens[:, :1]), dim=1)
        return self.honest(tokens) + 4.0 * nn.functional.one_hot(following, prepare.VOCAB_SIZE).float()


finish(Leak(honest()))
