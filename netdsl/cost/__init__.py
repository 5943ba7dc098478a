"""What a network costs, in every convention, explained, compared and drawn."""

from netdsl.cost.count import DTYPES, Cost, Head, Layer, count

__all__ = ["DTYPES", "Cost", "Head", "Layer", "count"]
