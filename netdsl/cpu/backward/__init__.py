"""The kernels that training adds: gradients of every op, and the optimisers' updates."""
