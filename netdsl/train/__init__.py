"""Training: losses, optimisers, schedules, data, gradients on the CPU kernels, checkpoints."""
