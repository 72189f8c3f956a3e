"""How long the rest of a training takes: a robust time a step from the recent ones, and the pauses still to come."""

from __future__ import annotations

import statistics
from collections import deque

__all__ = ["StepTimes"]

#: Intervals that the estimate looks at: after so many steps at another speed nothing of the old speed is left.
RECENT = 20
#: Intervals needed before anything is said; the first after a start (compiling, warming up) is not one of them.
ENOUGH = 5
#: An interval so many times the median is a hitch, where at most this share of the intervals are such.
HITCH, RARE = 3.0, 0.1


class StepTimes:
    """Estimates the seconds that remain, from the steps of a training and when they were reached.

    Steps may be any distance apart. The time a step is the mean over the last 20 intervals without those that hold an
    announced pause (`pause`: an evaluation, a checkpoint) and without rare hitches (over 3 times the median, at most
    one in ten); what is slow more often is the rhythm of the loop, as where every fourth batch makes the optimizer's
    step, which a median would overlook. Announced pauses come again as often as they came: their mean length is added
    for each that is still to be expected. Nothing is said before five intervals are known. A step that goes back (a
    rollback) begins anew, with the time of later records only.

    >>> times = StepTimes()
    >>> for step in range(8):
    ...     times.step(step, 100.0 + 2.0 * step)
    >>> times.remaining(1007)
    2000.0
    """

    def __init__(self) -> None:
        #: Seconds a step, and steps, of recent intervals.
        self._intervals: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._pauses: deque[float] = deque(maxlen=RECENT)
        self._count, self._begun, self._paused_at = 0, 0, 0
        self._last: tuple[int, float] | None = None
        self._paused, self._warm = False, False

    def pause(self) -> None:
        """What lies between the last step and the next is no training alone."""
        self._paused = True

    def step(self, step: int, time_s: float) -> None:
        """The training was at `step` at that time. Records that arrive late, or twice, are passed over."""
        if self._last is None:
            self._begun, self._last = step, (step, time_s)
            return
        steps, seconds = step - self._last[0], time_s - self._last[1]
        if steps == 0 or seconds < 0:
            return
        if steps < 0:
            self.__init__()  # type: ignore[misc]
            self.step(step, time_s)
            return
        self._last = (step, time_s)
        if self._paused:
            self._add_pause(step, steps, seconds)
        elif self._warm:
            self._intervals.append((seconds / steps, steps))
        self._paused, self._warm = False, True

    def _add_pause(self, step: int, steps: int, seconds: float) -> None:
        each = self.seconds_per_step
        if each is not None:
            self._pauses.append(max(0.0, seconds - each * steps))
        self._count += 1
        self._paused_at = step

    @property
    def seconds_per_step(self) -> float | None:
        """Time of a step without pauses; None before it is known."""
        if len(self._intervals) < ENOUGH:
            return None
        middle = statistics.median(each for each, _ in self._intervals)
        kept = [(each, steps) for each, steps in self._intervals if each <= HITCH * middle]
        if len(self._intervals) - len(kept) > RARE * len(self._intervals):
            kept = list(self._intervals)
        return sum(each * steps for each, steps in kept) / sum(steps for _, steps in kept)

    def remaining(self, total_steps: int) -> float | None:
        """Seconds from the last step to `total_steps`; None before they can be known, 0 when it is reached."""
        each = self.seconds_per_step
        if each is None or self._last is None:
            return None
        left = max(0, total_steps - self._last[0])
        if not self._pauses or self._paused_at <= self._begun:
            return left * each
        every = (self._paused_at - self._begun) / self._count
        return left * each + int((total_steps - self._paused_at) / every) * statistics.fmean(self._pauses)
