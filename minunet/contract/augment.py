"""Training tiles: windows of a section, deformed and turned; their grey values; U-Net's weights between cells.

Tile n is a window of one section of a stack, `places[n]` = (section, top, left, turns, flip), all int32: the rows from
`top` and the columns from `left` on, of the section mirrored beyond its border (2 1 0 1 2: the edge once), flipped
left-right where flip is 1, then turned by 90 degrees counterclockwise `turns` (0 .. 3) times. That is
rot90(window[:, ::-1], turns). The window has the tile's size, height and width exchanged where turns is odd.

`nodes[n]` (2, 3, 3) displaces the section before the window is cut: (0: down, 1: across) in pixels at 3 x 3 places,
the section's corners, edges' middles and centre (Ronneberger 2015, section 3.1). Between them lies the natural cubic
spline, down and across. Through a, b, c at 0, (n-1)/2 and n-1, with t = 2 i / (n-1) and M = 3/2 (a - 2 b + c):

    t <= 1:  a (1 - t) + b t + M (t^3 - t) / 6        t > 1: the mirror image, t -> 2 - t and a <-> c

A section of one row (or column) has a alone. Pixel (i, j) of the deformed section shows what was at (i, j) plus the
displacement there.
"""

from __future__ import annotations

from math import prod

from minunet.contract.row import F32, F64, I32, SUM, Spec, Work, require, row, same

ONCE_ROUNDED = {F32: 1e-6, F64: 1e-6}  # of a row whose output is float32, whatever comes in


def _windows(what: str, sections: Spec, places: Spec, nodes: Spec | None) -> int:
    """The number of tiles, after checking the shapes of what describes them."""
    n = places.shape[0]
    require(places.shape == (n, 5), f"{what}: places has shape {places.shape}; it must be (tiles, 5)")
    require(prod(sections.shape) > 0, f"{what}: sections of shape {sections.shape} have no pixels to show")
    require(
        nodes is None or nodes.shape == (n, 2, 3, 3),
        f"{what}: nodes has shape {nodes and nodes.shape}; for {n} tiles it must be ({n}, 2, 3, 3)",
    )
    return n


@row("augment", linear=("x",), tolerance=SUM, shape_only=("size",), integers=("places",), doubles=("nodes",))
def deform(x, places, nodes=None, *, size, cubic):
    """y[n,i,j,c] = x[section, r, q, c] at the place (r, q) that tile n shows at (i, j); x (S,H,W,C), size = (h, w).

    With nodes, (r, q) lies between pixels: Keys' cubic kernel with a = -1/2 (Catmull-Rom; IEEE Trans. ASSP 29, 1981),
    or linear, of the section mirrored at its border. Without, y is an exact copy.
    """
    require(len(x.shape) == 4, f"deform: needs x[S,H,W,C]; got shape {x.shape}")
    y = (_windows("deform", x, places, nodes), *size, x.shape[3])
    taps = 0 if nodes is None else 4 if cubic else 2
    return Work((Spec(y, x.dtype),), prod(y) * 2 * taps * (taps + 1))


@row("augment", shape_only=("size",), integers=("labels", "places"), doubles=("nodes",))
def deform_nearest(labels, places, nodes=None, *, size, outside):
    """y[n,i,j] = labels[section, floor(r + 1/2), floor(q + 1/2)], (r, q) as in deform; labels int32 (S,H,W).

    `outside` where the window reaches beyond the section, or the displacement does: what a mirror shows is no label.
    """
    require(len(labels.shape) == 3, f"deform_nearest: needs labels[S,H,W]; got shape {labels.shape}")
    require(-(2**31) <= outside < 2**31, f"deform_nearest: outside = {outside} is no int32")
    y = (_windows("deform_nearest", labels, places, nodes), *size)
    return Work((Spec(y, I32),), 0)


@row("augment", tolerance=SUM)
def gamma_curve(x, powers):
    """y = low + (high - low) ((x - low) / (high - low))^powers[n], low and high the extremes of x[n]; x (N,H,W,C).

    A tile of one value stays as it is.
    """
    _of_tiles("gamma_curve", x, powers, ())
    return Work((x,), 5 * prod(x.shape))


@row("augment")
def stretch(x, factor, shift):
    """y[n,i,j,c] = factor[n,c] x[n,i,j,c] + shift[n,c]: contrast and brightness, of a tile or of each channel."""
    _of_tiles("stretch", x, factor, x.shape[3:])
    same(factor, shift, "stretch")
    return Work((x,), 2 * prod(x.shape))


@row("augment", tolerance=SUM)
def add_noise(x, sd, *, seed):
    """y = x + sd[n] z, z = sqrt(-2 ln u) cos(2 pi v) (Box and Muller 1958); x (N,H,W,C), k counts it in C order.

    u = (r(2 k) + 1) / 2^24 and v = r(2 k + 1) / 2^24, r(m) = splitmix64(seed, m) >> 40 as in dropout. |z| < 5.8.
    """
    _of_tiles("add_noise", x, sd, ())
    require(0 <= seed < 2**64, f"add_noise: seed {seed} must be a 64-bit unsigned integer")
    return Work((x,), 6 * prod(x.shape))


def _of_tiles(what: str, x: Spec, numbers: Spec, each: tuple[int, ...]) -> None:
    """Raise unless there are numbers of shape `each` for every tile of x (N, H, W, C)."""
    require(len(x.shape) == 4, f"{what}: needs x[N,H,W,C]; got shape {x.shape}")
    expected = (x.shape[0], *each)
    require(numbers.shape == expected, f"{what}: {numbers.shape} numbers for x of {x.shape}; they must be {expected}")


@row("augment", tolerance=ONCE_ROUNDED, shape_only=("rim",), integers=("cells",))
def border_weights(cells, *, w0, sigma, reach, rim, everywhere):
    """y[n,i,j] = w0 exp(-(d1 + d2)^2 / (2 sigma^2)), float32: Ronneberger 2015, equation 2, without its class weights.

    d1, d2 : distance in pixels, centre to centre, from cells[n, i + rim, j + rim] to the nearest and the second
    nearest cell; cells int32 (N,H,W), 0 between cells, k > 0 on cell k. y is 0 with fewer than two cells within
    `reach` pixels, and on cells unless `everywhere`. A kernel may count cells farther away than `reach`.
    y is (N, H - 2 rim, W - 2 rim).
    """
    require(len(cells.shape) == 3, f"border_weights: needs cells[N,H,W]; got shape {cells.shape}")
    require(sigma > 0, f"border_weights: sigma = {sigma} must be above 0")
    require(0 <= reach < 2**15, f"border_weights: reach = {reach} px is not in 0 .. 32767")
    n, h, w = cells.shape
    y = (n, h - 2 * rim, w - 2 * rim)
    require(rim >= 0 and min(y[1:]) > 0, f"border_weights: a rim of {rim} px leaves nothing of {h} x {w}")
    return Work((Spec(y, F32),), prod(y) * (2 * reach + 1) ** 2)
