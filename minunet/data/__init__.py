"""Data: image files, data sets, a synthetic stand-in, training tiles, weight maps, prediction tiles."""

from minunet.data.augment import Augment, normalise, sample_tile
from minunet.data.images import list_images, read_image, write_png, write_tiff
from minunet.data.tiles import Tile, mirror_pad, plan, symmetries
from minunet.data.weights import instances_from_labels, weight_map

__all__ = [
    "Augment",
    "Tile",
    "instances_from_labels",
    "list_images",
    "mirror_pad",
    "normalise",
    "plan",
    "read_image",
    "sample_tile",
    "symmetries",
    "weight_map",
    "write_png",
    "write_tiff",
]
