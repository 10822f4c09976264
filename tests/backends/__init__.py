"""Each store in depth, on one Python."""
