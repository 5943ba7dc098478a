"""What PyTorch has no module for, written out in the files that need it."""

from __future__ import annotations

MEAN_POOL = '''class MeanPool{r}d(nn.Module):
    """The mean of each window. Cells of padding that are counted count as zeros, the rest do not
    count; both are given as F.pad takes them."""

    def __init__(
        self,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        counted: tuple[int, ...],
        uncounted: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation
        self.counted, self.uncounted = counted, uncounted

    def forward(self, x: Tensor) -> Tensor:
        cells = F.pad(torch.ones_like(x[:1, :1]), self.counted, value=1.0)
        cells = F.pad(cells, self.uncounted)
        each = x.flatten(0, 1).unsqueeze(1)
        each = F.pad(F.pad(each, self.counted), self.uncounted)
        ones = x.new_ones(1, 1, *self.kernel_size)
        sums = F.conv{r}d(each, ones, stride=self.stride, dilation=self.dilation)
        counts = F.conv{r}d(cells, ones, stride=self.stride, dilation=self.dilation)
        return (sums / counts).reshape(*x.shape[:2], *sums.shape[2:])
'''

LONE_NORM = '''class LoneNorm(nn.Module):
    """A normalisation of groups of a single number each, of which the shift alone is left."""

    def __init__(self, num_channels: int, affine: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * (x.dim() - 2))
'''

RESPONSE_NORM = '''class ResponseNorm(nn.Module):
    """x / (k + alpha / size * the sum of squares over `size` neighbouring channels) ** beta.

    A window of an even size reaches one further up than down (nn.LocalResponseNorm: down).
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        squares = x.square().flatten(2) if x.dim() > 2 else x.square().unsqueeze(2)
        ends = (0, 0, (self.size - 1) // 2, self.size // 2)
        sums = F.pad(squares, ends).unfold(1, self.size, 1).sum(-1).view_as(x)
        return x / (self.k + self.alpha / self.size * sums) ** self.beta
'''

SHUFFLE = '''class Shuffle(nn.Module):
    """Mixes the channels of groups, of vectors too (nn.ChannelShuffle takes none)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
'''

HARD_SIGMOID = '''class HardSigmoid(nn.Module):
    """min(max(slope * x + offset, 0), 1)"""

    def __init__(self, slope: float, offset: float) -> None:
        super().__init__()
        self.slope, self.offset = slope, offset

    def forward(self, x: Tensor) -> Tensor:
        return (self.slope * x + self.offset).clamp(0, 1)
'''

EXTRA = {
    **{f"MeanPool{r}d": MEAN_POOL.format(r=r) for r in (1, 2, 3)},
    "LoneNorm": LONE_NORM,
    "ResponseNorm": RESPONSE_NORM,
    "Shuffle": SHUFFLE,
    "HardSigmoid": HARD_SIGMOID,
}
"""The text of each class that a file may need."""
