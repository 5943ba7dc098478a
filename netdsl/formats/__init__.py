"""In and out: weights, pictures, and the formats of other tools."""
