"""Strips under one another that share the time axis. A long run is thinned to what the page can show."""

from __future__ import annotations

from collections.abc import Sequence

from edgecnn.report.svg import WIDTH, line, rect, svg, text, ticks

COLUMNS = 590  # user units of the time axis: no more than that many marks or points in a strip
Span = tuple[float, float, str, str]  # from second, to second, class, tip


class Timeline:
    """Strips under one another that share the time axis: spans, marks, a curve. `svg` puts them together."""

    LEFT, RIGHT = 110.0, 20.0

    def __init__(self, seconds: float) -> None:
        self._marks = ticks(max(seconds, 1e-3), 8)
        self._scale = (WIDTH - self.LEFT - self.RIGHT) / max(seconds, 1e-3)
        self._seconds = seconds
        self._body: list[str] = []
        self._top = 4.0

    def marks(self, label: str, at: Sequence[tuple[float, str, str]], width_s: float) -> None:
        """(second, class, tip): a tick each, `width_s` wide; of those of one class in one column the first."""
        self._label(label)
        width = max(1.0, width_s * self._scale * 0.9)
        drawn: set[tuple[int, str]] = set()
        for second, kind, tip in at:
            place = (self._column(second), kind)
            if place not in drawn:
                drawn.add(place)
                self._body.append(rect(self._x(second), self._top, width, 16, kind, tip))
        self._top += 26

    def band(self, label: str, rows: Sequence[Span]) -> None:
        """Spans in one row, as they follow one another."""
        self._label(label)
        self._body += [
            rect(self._x(start), self._top, (end - start) * self._scale, 16, *words) for start, end, *words in rows
        ]
        self._top += 26

    def spans(self, label: str, rows: Sequence[tuple[Span, str, Sequence[Span]]]) -> None:
        """(span, the name on it, spans that are drawn over it), each in the first row that is free."""
        self._label(label)
        free: list[float] = []
        height = 11.0
        for (start, end, kind, tip), name, over in sorted(rows, key=lambda row: row[0][:2]):
            row = next((i for i, until in enumerate(free) if until <= start), len(free))
            free[row : row + 1] = [end]
            y = self._top + row * height
            self._body.append(rect(self._x(start), y, (end - start) * self._scale, height - 2, kind, tip))
            for from_s, to_s, *words in over:
                self._body.append(rect(self._x(from_s), y, (to_s - from_s) * self._scale, height - 2, *words))
            if (end - start) * self._scale > 8 * len(name):
                self._body.append(text(self._x(start) + 2, y + height - 3.5, name, "name"))
        self._top += max(16.0, len(free) * height) + 10

    def curve(
        self, label: str, points: Sequence[tuple[float, float | None]], top: float, level: tuple[float, str]
    ) -> None:
        """(second, value or None for a gap) against 0 to `top`, and a named level across. Larger values are cut off; of
        the values of one column the least is drawn."""
        height = 84.0
        low = self._top + height

        def y(value: float) -> float:
            return low - min(value, top) / top * height

        self._label(label)
        for mark in ticks(top, 3):
            if mark <= top:
                self._body.append(line(self.LEFT, y(mark), WIDTH - self.RIGHT, y(mark), "grid"))
                self._body.append(text(self.LEFT - 8, y(mark) + 4, f"{mark:g}", "axis", "end") if mark < top else "")
        self._body.append(line(self.LEFT, y(level[0]), WIDTH - self.RIGHT, y(level[0]), "level"))
        self._body.append(text(WIDTH - self.RIGHT, y(level[0]) - 4, level[1], "axis", "end"))
        least: dict[int, tuple[float, float | None]] = {}
        for second, value in points:
            known = least.get(self._column(second), (second, None))[1]
            if known is None or (value is not None and value < known):
                least[self._column(second)] = (second, value)
        path, pen = "", "M"
        for second, value in least.values():
            if value is None:
                pen = "M"
                continue
            path += f"{pen}{self._x(second):.1f} {y(value):.1f}"
            pen = "L"
        self._body.append(f'<path class="curve" d="{path}"/>' if path else "")
        self._top = low + 12

    def cuts(self, at: Sequence[float]) -> None:
        """Hard cuts: a line through every strip drawn so far."""
        columns = {self._column(second): second for second in at}
        self._body += [line(self._x(s), 0, self._x(s), self._top - 6, "cut") for s in columns.values()]

    def svg(self, title: str) -> str:
        for mark in self._marks:
            if mark <= self._seconds:
                self._body.append(text(self._x(mark), self._top + 12, f"{mark:g} s", "axis", "middle"))
        return svg(self._top + 20, self._body, title)

    def _label(self, label: str) -> None:
        self._body.append(text(self.LEFT - 8, self._top + 12, label, "", "end"))

    def _x(self, second: float) -> float:
        return self.LEFT + second * self._scale

    def _column(self, second: float) -> int:
        return int(second * self._scale)
