"""A latency histogram with a bounded relative error, small enough to be kept per phase and merged.

Values are microseconds. Below 256 every value has its own bucket; above, each power of two is divided into 128
buckets, so that a reported value is off by at most 1/256 of itself (the layout of HdrHistogram, in sparse form).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

BITS = 8
HALF = 1 << (BITS - 1)
LONGEST = 24 * 3600 * 10**6
"""Microseconds; longer values are counted as this one."""


def bucket_of(value: int) -> int:
    """Return the bucket of a value in microseconds."""
    shift = max(0, value.bit_length() - BITS)
    return shift * HALF + (value >> shift)


def middle_of(bucket: int) -> float:
    """Return the middle of a bucket in microseconds."""
    shift = max(0, bucket // HALF - 1)
    low = (bucket - shift * HALF) << shift
    return low + ((1 << shift) - 1) / 2


class Histogram:
    """Counts of values by bucket; maximum and sum are exact."""

    __slots__ = ("count", "counts", "maximum", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.maximum = 0

    def add(self, seconds: float) -> None:
        """Count one value; negative ones count as zero."""
        value = min(max(0, int(seconds * 1e6)), LONGEST)
        bucket = bucket_of(value)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.count += 1
        self.total += value
        self.maximum = max(self.maximum, value)

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram to this one."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.count += other.count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)

    def percentile_ms(self, share: float) -> float:
        """Return the value in milliseconds that ``share`` (0 to 1) of all values do not exceed; 0 where empty."""
        if not self.count:
            return 0.0
        wanted = max(1, -(-self.count * share // 1))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(middle_of(bucket), float(self.maximum)) / 1e3
        return self.maximum / 1e3

    def mean_ms(self) -> float:
        """Return the mean in milliseconds; 0 where empty."""
        return self.total / self.count / 1e3 if self.count else 0.0

    def max_ms(self) -> float:
        """Return the exact maximum in milliseconds."""
        return self.maximum / 1e3

    def to_json(self) -> dict[str, int | dict[str, int]]:
        """Return a form that :meth:`from_json` and other processes read: microseconds by bucket number."""
        counts = {str(bucket): self.counts[bucket] for bucket in sorted(self.counts)}
        return {"counts": counts, "total_us": self.total, "max_us": self.maximum}

    @classmethod
    def from_json(cls, document: Mapping[str, int | Mapping[str, int]]) -> Self:
        """Rebuild a histogram from :meth:`to_json`; TypeError or ValueError where it is none."""
        counts, total, maximum = document["counts"], document["total_us"], document["max_us"]
        if not isinstance(counts, Mapping) or not isinstance(total, int) or not isinstance(maximum, int):
            raise TypeError("not a histogram: counts, total_us and max_us are needed")
        histogram = cls()
        histogram.counts = {int(bucket): count for bucket, count in counts.items()}
        histogram.count = sum(histogram.counts.values())
        histogram.total, histogram.maximum = total, maximum
        return histogram


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Return the sum of histograms."""
    result = Histogram()
    for histogram in histograms:
        result.merge(histogram)
    return result
