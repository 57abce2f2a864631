"""Data: image files, data sets, a synthetic stand-in, training tiles, weight maps, prediction tiles."""

from minunet.data.images import list_images, read_image, write_png, write_tiff

__all__ = ["list_images", "read_image", "write_png", "write_tiff"]
