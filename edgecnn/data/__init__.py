"""Pictures with truth: readers of real data sets, the road simulator, and calibration lists.

Importing this package costs nothing but numpy; every reader is imported when it is asked for.
"""

from __future__ import annotations

from edgecnn.data.classes import CLASSES

__all__ = ["CLASSES"]
