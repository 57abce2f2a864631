"""Reading and writing image files: PNG, JPEG, BMP, TIFF (many pages) and .npy.

The kind is told from a file's first bytes, not from its name. What a file declares is checked before any
memory is taken for it, and whatever is wrong with a file becomes one line that names it.
"""

from __future__ import annotations

import math
import os
import stat
import struct
import warnings

import numpy as np

from minunet.data.decoders import by_pillow, quiet_tifffile
from minunet.data.listing import list_images  # noqa: F401 for who imports it here
from minunet.data.tiffwalk import largest
from minunet.errors import UserError
from minunet.files import atomic_write

MAX_BYTES = 4 << 30  # an image that would fill more memory than this is refused unread
SMALL_BYTES = 32 << 20  # what every machine can spare for a damaged file
EXPANSION = 2000  # bytes of pixels that a byte of PNG (1032) or JPEG can become at most
FORMATS = "PNG, JPEG, BMP, TIFF or .npy"

_CMYK = "has colours for printing (CMYK); convert it to red, green and blue"
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",  # BigTIFF
    b"MM\0+": "tiff",
    b"\x93NUMPY": "npy",
}


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The pixels of an image file as they are stored: no scaling, no change of type.

    Returns an array (H, W), a stack of pages (S, H, W), a colour image (H, W, C) or a stack of these, of bool, integer
    or real type, in native byte order; in .npy too, one page and one channel have no axis of their own. A PNG with a
    palette gives the palette indices, which is what label images mean. The values of grey PNGs with 2 or 4 bits are
    spread over 0..255; those of TIFFs whose 0 is white are not inverted.

    Raises UserError (one line: file, what is wrong, remedy) for a file that is missing, a folder, empty, cut
    short, damaged, of another kind, in colours for printing (CMYK), or that declares more than MAX_BYTES of pixels.
    """
    kind = kind_of(path)
    try:
        if kind == "npy":
            pixels = _read_npy(path)
        elif kind == "tiff":
            pixels = _read_tiff(path)
        else:
            pixels = _read_pillow(path, kind)
    except (UserError, MemoryError, ImportError):
        raise
    except Exception as error:  # decoders raise a dozen kinds on damaged bytes, all of which mean this
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as {kind.upper()}, it is cut short or damaged ({reason}); copy or export it again"
        ) from error
    _check_shape(path, pixels.shape)
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))


def read_palette(path: str | os.PathLike[str]) -> list[tuple[int, int, int]] | None:
    """The colours of a PNG's or BMP's palette, by index; None for other files. Raises UserError as `read_image`."""
    from PIL import Image

    kind = kind_of(path)
    if kind not in ("png", "bmp"):
        return None
    try:
        with Image.open(path, formats=[kind.upper()]) as image:
            table = image.getpalette("RGB") if image.mode == "P" else None
    except Exception as error:  # as in read_image
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: cannot be read as {kind.upper()}, it is cut short or damaged ({reason})") from error
    return None if table is None else list(zip(table[0::3], table[1::3], table[2::3]))


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 (H, W) or (H, W, 3), or uint16 (H, W), as PNG. The file appears whole or not at all."""
    from PIL import Image

    image = np.asarray(image)
    grey = image.ndim == 2 and image.dtype in (np.uint8, np.uint16)
    colour = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    if not (grey or colour) or image.size == 0:
        raise UserError(
            f"{path}: PNG holds uint8 (H, W) or (H, W, 3), or uint16 (H, W), not {image.dtype} "
            f"{image.shape}; convert it, or write a TIFF"
        )
    with atomic_write(path) as tmp:
        Image.fromarray(np.ascontiguousarray(image)).save(tmp, format="PNG")


def write_tiff(path: str | os.PathLike[str], stack: np.ndarray) -> None:
    """Write uint8, uint16 or float32 (H, W) or (S, H, W) as TIFF, one page a section, uncompressed.

    The file appears whole or not at all. ImageJ/Fiji opens it as a stack.
    """
    import tifffile

    stack = np.asarray(stack)
    if stack.ndim not in (2, 3) or stack.dtype not in (np.uint8, np.uint16, np.float32) or stack.size == 0:
        raise UserError(
            f"{path}: the TIFF is to hold uint8, uint16 or float32 (H, W) or (S, H, W), not "
            f"{stack.dtype} {stack.shape}; convert it first"
        )
    with atomic_write(path) as tmp:
        tifffile.imwrite(tmp, np.ascontiguousarray(stack), photometric="minisblack", metadata=None)


def kind_of(path: str | os.PathLike[str]) -> str:
    """What the first bytes say the file is: "png", "jpeg", "bmp", "tiff" or "npy". Raises UserError as `read_image`."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
            raise UserError(f"{path}: is {what}; name one image file ({FORMATS})")
        with open(path, "rb") as file:
            head = file.read(8)
    except UserError:  # which is a ValueError
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the name and the folder") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UserError(f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if not head:
        raise UserError(f"{path}: is empty (0 bytes); copy or export it again")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    raise UserError(f"{path}: is not an image that can be read here; save it as {FORMATS}")


def without_single_axes(pixels: np.ndarray) -> np.ndarray:
    """A view without a last axis of one channel and without first axes of one page, as files other than .npy have it.
    (1, W, 3) is left alone: a line of colours.
    """
    while pixels.ndim > 2 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    while pixels.shape[0] == 1 and (pixels.ndim > 3 or (pixels.ndim == 3 and pixels.shape[2] > 4)):
        pixels = pixels[0]
    return pixels


def _check_shape(path: str | os.PathLike[str], shape: tuple[int, ...]) -> None:
    """Only (H, W), (S, H, W), (H, W, C) and (S, H, W, 3 or 4), and no empty ones."""
    if 0 in shape:
        raise UserError(f"{path}: holds no pixels (shape {shape}); export it again")
    if len(shape) not in (2, 3) and not (len(shape) == 4 and shape[3] in (3, 4)):
        raise UserError(
            f"{path}: has {len(shape)} axes {shape}; save it as a grey image (H, W), a stack (S, H, W), "
            "a colour image (H, W, C) or a stack of these (S, H, W, 3)"
        )


def _check_declared(path: str | os.PathLike[str], shape: tuple[int, ...], dtype: np.dtype, most: int) -> None:
    """Refuse what would fill too much memory, or is no picture, before memory is taken for it.

    most : bytes of pixels that the file can hold at best; a few more are let pass, since cut files are told better
        by their decoders
    """
    if dtype.kind not in "buif":
        raise UserError(f"{path}: its values are {dtype}, not numbers; save it as uint8, uint16 or float32")
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise UserError(
            f"{path}: declares {size / 2**30:.1f} GiB of pixels {shape}, above the limit of "
            f"{MAX_BYTES >> 30} GiB; cut it into smaller files"
        )
    if size > max(most, SMALL_BYTES):
        raise UserError(
            f"{path}: declares {size / 2**20:.0f} MiB of pixels {shape}, far more than its bytes can hold; it is cut "
            "short or damaged: copy or export it again"
        )


def _read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    # Mapping first compares the declared size with the file's, and reads nothing but the header.
    with np.errstate(over="raise"):  # of declared sizes
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    _check_declared(path, mapped.shape, mapped.dtype, os.stat(path).st_size)
    return np.array(without_single_axes(mapped), order="C")


def _read_pillow(path: str | os.PathLike[str], kind: str) -> np.ndarray:
    from PIL import Image

    header = b""
    if kind == "png":
        with open(path, "rb") as file:
            header = file.read(29)  # signature, IHDR: W, H, then depth, colour type, two zeros, interlacing
        if len(header) == 29 and header[24] == 16 and header[25] != 0:
            return _read_png16(path, header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large images, which are measured here
        try:
            image = Image.open(path, formats=[kind.upper()])
        except Image.DecompressionBombError as error:
            raise UserError(
                f"{path}: has more pixels than is safe to read from this format; save it as TIFF, or cut it"
            ) from error
        with image:
            W, H = image.size
            most = os.stat(path).st_size * (EXPANSION * 8 if image.mode == "1" else EXPANSION)
            _check_declared(path, (H, W, len(image.getbands())), np.dtype(np.uint8), most)
            if image.mode == "CMYK":
                raise UserError(f"{path}: {_CMYK}")
            pixels = np.array(image)
    if header[24:25] == b"\x10":  # 16 bits
        return pixels.astype(np.uint16)  # older Pillow gives int32
    return pixels


def _read_png16(path: str | os.PathLike[str], header: bytes) -> np.ndarray:
    from minunet.data.png16 import CHANNELS, read_colour16

    W, H, _, colour, packing, filtering, interlacing = struct.unpack(">IIBBBBB", header[16:])
    if header[12:16] != b"IHDR" or colour not in CHANNELS or packing or filtering or interlacing > 1:
        raise ValueError(f"colour type {colour}, interlacing {interlacing}")
    shape = (H, W, CHANNELS[colour])
    if 0 in shape:
        raise ValueError(f"{W} x {H} pixels")
    _check_declared(path, shape, np.dtype(np.uint16), os.stat(path).st_size * EXPANSION)
    return read_colour16(path, shape, bool(interlacing))


def _read_tiff(path: str | os.PathLike[str]) -> np.ndarray:
    import tifffile

    most = largest(path)
    # OME's XML may declare billions of planes, and name other files to read: its pages are taken as they are stored
    with quiet_tifffile() as complaints, tifffile.TiffFile(os.fspath(path), is_ome=False) as tif:
        series = tif.series
        if not series:
            raise UserError(f"{path}: this TIFF holds no image; export it again")
        shape, dtype = series[0].shape, np.dtype(series[0].dtype)
        _check_declared(path, shape, dtype, most)
        if len(series) > 1:
            shapes = ", ".join(str(s.shape) for s in series[:3])
            raise UserError(f"{path}: its pages differ in size or type ({shapes}, ...); save them as separate files")
        first, axes = series[0].keyframe, series[0].axes
        if first.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            raise UserError(f"{path}: {_CMYK}")
        try:
            pixels = series[0].asarray(maxworkers=1)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            pixels = by_pillow(path, len(series[0].pages), first.photometric == tifffile.PHOTOMETRIC.MINISWHITE)
    if complaints:
        raise ValueError(complaints[0])
    return colours_last(pixels, axes) if pixels.shape == shape else pixels


def colours_last(pixels: np.ndarray, axes: str) -> np.ndarray:
    """A view of TIFF's planes of red, green and blue one after the other, (C, H, W) or (S, C, H, W), as (..., H, W, C).

    axes : one letter an axis, S that of the samples
    """
    return np.moveaxis(pixels, axes.index("S"), -1) if "S" in axes else pixels
