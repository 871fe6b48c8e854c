"""Running a model: devices, memory, loading, noise, conditioning, and requests from start to artifact."""
