"""The `zoo` command: one module per verb under `commands`, found by a lazy click group."""
