"""Training: the loop, what a recipe is, and from a reference to weights."""
