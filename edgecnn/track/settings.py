"""What a tracker may be told, and three well-known ways to associate as settings of one tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgecnn.track.motion import Noise


@dataclass(frozen=True)
class Settings:
    """Scores and overlaps in [0, 1]. The defaults are ByteTrack's idea."""

    high: float = 0.5  # a detection at or above is strong
    low: float = 0.1  # below, it is not looked at
    birth: float = 0.6  # a strong detection at or above, and not matched, starts a track
    fuse: bool = True  # strong detections are matched by IoU × score, else by IoU
    match_high: float = 0.2  # least such figure of a strong detection with a track
    match_low: float = 0.5  # least IoU of a weak detection with a track that was seen in the last detector frame
    match_new: float = 0.3  # the same of a strong detection with a track not yet confirmed
    duplicate: float = 0.85  # of two tracks of one class that overlap more, the younger is dropped
    other_label: float = 0.5  # IoU is multiplied by this where the labels differ: a van may be called truck for once
    lost_s: float = 1.0  # a track not seen for this long is dropped
    coast_s: float = 0.07  # a confirmed track that the detector missed is still returned for this long
    coast_looks: int = 0  # ... and through so many looks at its place, one after the other, that did not see it
    min_hits: int = 2  # detections before a track is confirmed (in the first frame 1)
    direction: float = 0.0  # OC-SORT: most that is taken off the similarity where a match would turn a track around
    look_back: int = 3  # detections, over which a track's direction is taken
    recover: float | None = None  # OC-SORT: least IoU of a track's last detection with one that is left over
    revise: bool = False  # OC-SORT: a track found again is filtered anew along a straight line over the gap
    remember_s: float = 4.0  # with appearance: a lost track may be known again by it for this long
    alike: float = 0.7  # least cosine of two vectors for that
    appearance: float = 2.0  # weight of the cosine beside the overlap where more than one match is possible
    noise: Noise = field(default_factory=Noise)


METHODS: Mapping[str, Settings] = {
    # Zhang et al. 2022, arXiv:2110.06864: weak detections continue tracks
    "bytetrack": Settings(min_hits=3),
    # Bewley et al. 2016, arXiv:1602.00763: one matching by IoU; a track that is not seen ends
    "sort": Settings(
        low=0.5, fuse=False, birth=0.5, match_high=0.3, match_new=0.3, lost_s=0.0, coast_s=0.0, min_hits=3
    ),
    # Cao et al. 2023, arXiv:2203.14360: what was observed counts more than what was predicted
    "ocsort": Settings(
        low=0.5, fuse=False, birth=0.5, match_high=0.3, match_new=0.3, coast_s=0.0, min_hits=3,
        direction=0.2, recover=0.3, revise=True,
    ),
}  # fmt: skip
