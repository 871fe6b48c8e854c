"""Diffusion as pure functions: schedules, parameterisations, guidance, thresholds, paths, solvers, losses."""
