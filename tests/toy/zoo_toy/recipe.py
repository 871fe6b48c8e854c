"""Learn to double the input: converges in a few steps."""

from __future__ import annotations

from zoo.training.recipe import Budget


class ToyRecipe:
    seed = 3
    budget = Budget(steps=12, batch_size=8, learning_rate=0.05, warmup_steps=2, ema_decay=0.5, autocast=None)

    def batch(self, noise, size):
        return {"x": noise.normal("x", (size, 4))}

    def loss(self, model, batch, noise):
        return (model(batch["x"]) - 2.0 * batch["x"]).square().mean()


class HeldOutRecipe(ToyRecipe):
    held_out = ("red circle", "blue ring")
