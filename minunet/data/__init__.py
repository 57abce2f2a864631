"""Data: image files, data sets, a synthetic stand-in, training tiles, weight maps, prediction tiles."""

from minunet.data.augment import Augment, normalise, sample_tile
from minunet.data.images import list_images, read_image, write_png, write_tiff
from minunet.data.isbi import Dataset, load_isbi, split
from minunet.data.synthetic import synthetic_membranes
from minunet.data.tiles import Tile, mirror_pad, plan, symmetries
from minunet.data.weights import instances_from_labels, weight_map

__all__ = [
    "Augment",
    "Dataset",
    "Tile",
    "instances_from_labels",
    "list_images",
    "load_isbi",
    "mirror_pad",
    "normalise",
    "plan",
    "read_image",
    "sample_tile",
    "split",
    "symmetries",
    "synthetic_membranes",
    "weight_map",
    "write_png",
    "write_tiff",
]
