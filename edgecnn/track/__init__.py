"""Objects keep their numbers from frame to frame, and move on between detections."""

from edgecnn.track.bytetrack import ByteTrack, Settings

__all__ = ["ByteTrack", "Settings"]
