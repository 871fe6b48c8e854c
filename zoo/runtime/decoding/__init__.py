"""The sampling engine of autoregressive flows: exact and parallel inversion, block by block."""
