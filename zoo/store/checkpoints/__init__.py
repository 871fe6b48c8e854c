"""Files of tensors: telling them apart, reading checkpoints without executing them, writing safetensors."""
