"""A road simulator with exact truth."""
from edgecnn.data.simulator.still import still
__all__ = ["still"]
