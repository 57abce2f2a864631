"""minunet: segmentation networks in plain NumPy and CuPy."""
