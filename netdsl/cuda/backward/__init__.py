"""Training on the card: how each op goes back, losses, optimisers, and the plan of a whole step."""
