"""Data: image files, data sets, a synthetic stand-in, training tiles, weight maps, prediction tiles."""

from minunet.data.augment import Augment, normalise, sample_tile, standardise
from minunet.data.camvid import load_camvid
from minunet.data.dataset import IGNORE, Dataset, paint, resize_image, resize_labels, resize_map
from minunet.data.folder import load_folder
from minunet.data.hela import load_hela
from minunet.data.images import list_images, read_image, write_png, write_tiff
from minunet.data.isbi import load_isbi, split
from minunet.data.masks import undo
from minunet.data.streets import synthetic_streets
from minunet.data.synthetic import synthetic_membranes
from minunet.data.tiles import Tile, mirror_pad, plan, symmetries
from minunet.data.weights import (
    class_frequencies,
    enet_weights,
    instances_from_labels,
    median_frequency_weights,
    weight_map,
)

__all__ = [
    "IGNORE",
    "Augment",
    "Dataset",
    "Tile",
    "class_frequencies",
    "enet_weights",
    "instances_from_labels",
    "list_images",
    "load_camvid",
    "load_folder",
    "load_hela",
    "load_isbi",
    "median_frequency_weights",
    "mirror_pad",
    "normalise",
    "paint",
    "plan",
    "read_image",
    "resize_image",
    "resize_labels",
    "resize_map",
    "sample_tile",
    "split",
    "standardise",
    "symmetries",
    "synthetic_membranes",
    "synthetic_streets",
    "undo",
    "weight_map",
    "write_png",
    "write_tiff",
]
