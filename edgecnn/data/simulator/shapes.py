"""Solid shapes: meshes of convex parts for vehicles, hulls of spheres for people and riders.

Local axes: x forward, y right, z up, metres, origin on the ground below the middle of the object.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Colour = tuple[float, float, float]  # BGR

HEAD, TAIL, BRAKE = 1, 2, 3  # lamps; 0 = no lamp


def colour_of(values: NDArray[np.floating]) -> Colour:
    """Three numbers as a colour."""
    b, g, r = values.tolist()
    return b, g, r


@dataclass(frozen=True)
class Mesh:
    """Faces of convex parts. Within a part later faces are painted over earlier ones (decals)."""

    verts: F32  # (V, 3)
    start: NDArray[np.int64]  # (F + 1,) face f has the vertices start[f]:start[f + 1]
    normal: F32  # (F, 3) outward
    offset: F32  # (F,) normal · any point of the face
    albedo: F32  # (F, 3)
    gloss: F32  # (F,)
    lit: tuple[tuple[int, int], ...]  # (face, lamp kind) of the lamps
    part: NDArray[np.int64]  # (F,)
    detail: NDArray[np.bool_]  # (F,) left out when the object is small
    part_centre: F32  # (P, 3)
    part_layer: NDArray[np.int64]  # (P,) a higher layer is painted over a lower one, whatever their distances
    lamps: dict[int, F32]  # lamp kind → (n, 3) positions, for glow


@dataclass(frozen=True)
class Figure:
    """Convex hulls of spheres (limbs, torso, head, tubes) and thin closed lines (wheels)."""

    centre: F32  # (S, 3)
    radius: F32  # (S,)
    start: NDArray[np.int64]  # (hulls + 1,) hull i spans the spheres start[i]:start[i + 1]
    albedo: F32  # (hulls, 3)
    rings: tuple[tuple[F32, float, Colour], ...] = ()  # (n, 3) points, width m, colour
    lamps: dict[int, F32] = field(default_factory=dict)


class Sculptor:
    """Collects convex parts and turns them into a Mesh."""

    def __init__(self) -> None:
        self._verts: list[F32] = []
        self._looks: list[tuple[Colour, float, int, int, bool]] = []
        self._centres: list[tuple[float, float, float]] = []
        self._layers: list[int] = []

    def part(self, centre: tuple[float, float, float], layer: int = 1) -> None:
        """Begin a convex part; faces point away from `centre`."""
        self._centres.append(centre)
        self._layers.append(layer)

    def face(self, points: object, colour: Colour, *, gloss: float = 0.0, lamp: int = 0, detail: bool = False) -> None:
        """A convex planar polygon (n, 3) of the current part."""
        p = np.asarray(points, np.float32)
        self._verts.append(p)
        self._looks.append((colour, gloss, lamp, len(self._centres) - 1, detail))

    def loft(self, rings: object, colour: Colour, *, gloss: float = 0.0, top: Colour | None = None) -> None:
        """A symmetric solid through `rings`: (R, K, 3) x, half-width y, z of the right side from bottom to top.

        Ends are closed; the bottom is left open, nobody sees it.
        """
        r = np.asarray(rings, np.float32)
        mirror = r * np.array((1, -1, 1), np.float32)
        for side in (r, mirror):
            for i in range(len(r) - 1):
                for k in range(r.shape[1] - 1):
                    self.face((side[i, k], side[i + 1, k], side[i + 1, k + 1], side[i, k + 1]), colour, gloss=gloss)
        for i in range(len(r) - 1):
            self.face((r[i, -1], r[i + 1, -1], mirror[i + 1, -1], mirror[i, -1]), top or colour, gloss=gloss * 1.3)
        for end in (0, -1):
            for k in range(r.shape[1] - 1):
                self.face((r[end, k], r[end, k + 1], mirror[end, k + 1], mirror[end, k]), colour, gloss=gloss)

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        colour: Colour,
        *,
        gloss: float = 0.0,
        layer: int = 1,
    ) -> None:
        """A new part: an upright block."""
        self.part(((x[0] + x[1]) / 2, (y[0] + y[1]) / 2, (z[0] + z[1]) / 2), layer)
        c = np.array([(a, b, h) for a in x for b in y for h in z])
        sides = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (1, 3, 7, 5))
        for corners in sides:
            self.face(c[list(corners)], colour, gloss=gloss)

    def quad(
        self,
        plane: str,
        at: float,
        a: tuple[float, float],
        b: tuple[float, float],
        colour: Colour,
        *,
        gloss: float = 0.0,
        lamp: int = 0,
        detail: bool = True,
    ) -> None:
        """A decal rectangle: plane "x" spans y = a, z = b; plane "y" spans x = a, z = b."""
        corners = ((a[0], b[0]), (a[1], b[0]), (a[1], b[1]), (a[0], b[1]))
        points = [(at, p, q) for p, q in corners] if plane == "x" else [(p, at, q) for p, q in corners]
        self.face(points, colour, gloss=gloss, lamp=lamp, detail=detail)

    def disc(self, x: float, y: float, z: float, radius: float, colour: Colour, *, detail: bool = False) -> None:
        """A decal circle in the plane y = const: wheels."""
        a = np.linspace(0, 2 * np.pi, 15)[:-1]
        self.face(
            np.stack((x + radius * np.cos(a), np.full(14, y), np.maximum(z + radius * np.sin(a), 0)), 1),
            colour,
            detail=detail,
        )

    def done(self) -> Mesh:
        verts = np.concatenate(self._verts)
        start = np.cumsum([0] + [len(p) for p in self._verts])
        colour, gloss, lamp, part, detail = (np.array(c) for c in zip(*self._looks, strict=True))
        centres = np.array(self._centres, np.float32)
        normal, middle = np.zeros((len(part), 3), np.float32), np.zeros((len(part), 3), np.float32)
        counts = np.diff(start)
        for n in np.unique(counts):
            rows = np.flatnonzero(counts == n)
            p = verts[start[rows, None] + np.arange(n)]  # (rows, n, 3)
            normal[rows], middle[rows] = _cross(p, np.roll(p, -1, 1)).sum(1), p.mean(1)  # Newell's normal
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        inward = ((middle - centres[part]) * normal).sum(1) < 0
        normal[inward] *= -1
        lamps = {k: middle[lamp == k] for k in (HEAD, TAIL, BRAKE)}
        return Mesh(
            verts,
            start,
            normal,
            (normal * middle).sum(1),
            colour.astype(np.float32),
            gloss.astype(np.float32),
            tuple((int(f), int(lamp[f])) for f in np.flatnonzero(lamp)),
            part,
            detail,
            centres,
            np.array(self._layers),
            lamps,
        )


def _cross(a: F32, b: F32) -> F32:
    x, y, z = a[..., 0], a[..., 1], a[..., 2]
    u, v, w = b[..., 0], b[..., 1], b[..., 2]
    return np.stack((y * w - z * v, z * u - x * w, x * v - y * u), -1)


class Modeller:
    """Collects spheres into hulls and turns them into a Figure."""

    def __init__(self) -> None:
        self._spheres: list[tuple[float, float, float, float]] = []
        self._start = [0]
        self._colours: list[Colour] = []
        self._rings: list[tuple[F32, float, Colour]] = []

    def hull(self, colour: Colour, *spheres: tuple[float, float, float, float]) -> None:
        """The convex hull of spheres (x, y, z, radius)."""
        self._spheres += spheres
        self._start.append(len(self._spheres))
        self._colours.append(colour)

    def wheel(self, x: float, radius: float, width: float, colour: Colour) -> None:
        a = np.linspace(0, 2 * np.pi, 17)[:-1]
        points = np.stack((x + radius * np.cos(a), 0 * a, radius + radius * np.sin(a)), 1)
        self._rings.append((points.astype(np.float32), width, colour))

    def done(self, lamps: dict[int, F32] | None = None) -> Figure:
        spheres = np.array(self._spheres, np.float32)
        return Figure(
            spheres[:, :3],
            spheres[:, 3],
            np.array(self._start),
            np.array(self._colours, np.float32),
            tuple(self._rings),
            lamps or {},
        )
