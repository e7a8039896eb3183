"""Int8 networks of float ones: `sepconv.quantize`."""
