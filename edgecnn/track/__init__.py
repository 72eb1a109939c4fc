"""Objects keep their numbers from frame to frame, and move on between detections."""

from edgecnn.track.tracker import ByteTrack, Settings

__all__ = ["ByteTrack", "Settings"]
