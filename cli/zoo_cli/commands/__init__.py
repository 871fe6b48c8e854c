"""One module per verb; each holds a click command called `command`."""
