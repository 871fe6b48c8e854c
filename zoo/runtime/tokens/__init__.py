"""The engine of token models: reading prompts, guidance, choosing token after token, stopping."""
