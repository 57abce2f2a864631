"""The work behind `minunet predict`: files of any size in, results written tile by tile, resumable."""
