"""edgecnn: from a CNN recipe to an INT8 TensorRT engine, and a detect-plus-track loop that runs it on the board."""

__version__ = "0.1.0"
