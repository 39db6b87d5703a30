"""A cron line in a zone: plain local time laid over the zone's pieces."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from zoneinfo import ZoneInfo

from scheduler.cron import CronFields, read_cron
from scheduler.instants import DAY, FIRST_SECOND, LAST_SECOND, Instants, second_of
from scheduler.zone_pieces import CHUNK, MARGIN, Fold, Gap, Piece, offset_at, pieces


@dataclass(frozen=True, slots=True)
class CronSchedule(Instants):
    """A line as Debian's cron reads it, in the job's zone.

    A fixed time that does not exist, or exists twice, is settled by `gap` and `fold`. A line with `*` or
    steps follows elapsed time: it is due whenever the clock on the wall shows what the line names.
    """

    text: str
    line: str
    zone: ZoneInfo
    gap: Gap = Gap.RUN_AFTER
    fold: Fold = Fold.FIRST
    fields: CronFields = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the line; raises CronSimError."""
        object.__setattr__(self, "fields", read_cron(self.line))

    def anchored(self, first_seen: datetime) -> Self:
        """Cron lines need no origin."""
        return self

    def names(self, moment: datetime) -> bool:
        """Say whether the line itself names the local time of a moment."""
        local = second_of(moment) + offset_at(self.zone, second_of(moment))
        return self.fields.first_from(local) == local

    def first_from(self, second: int) -> int | None:
        """See `Instants.first_from`."""
        while second <= LAST_SECOND:
            following = (second // CHUNK + 1) * CHUNK
            for piece in self._pieces(second // CHUNK):
                if piece.end <= second:
                    continue
                begin = max(second, piece.begin)
                if begin == piece.begin and self._makes_up(piece):
                    return begin
                named = self.fields.first_from(begin + piece.offset)
                if named is None:
                    return None
                if named - piece.offset < piece.end:
                    return named - piece.offset
                if begin + MARGIN <= piece.end:  # nearer a change, an earlier local time could come again
                    following = max(following, named - MARGIN)
            second = following
        return None

    def last_to(self, second: int) -> int | None:
        """See `Instants.last_to`."""
        while second >= FIRST_SECOND:
            earlier = second // CHUNK * CHUNK - 1
            for piece in reversed(self._pieces(second // CHUNK)):
                if second < piece.begin:
                    continue
                end = min(second, piece.end - 1)
                named = self.fields.last_to(end + piece.offset)
                if named is None:
                    return None
                if named - piece.offset >= piece.begin:
                    return named - piece.offset
                if self._makes_up(piece):
                    return piece.begin
                if piece.begin + MARGIN <= end:  # as above
                    earlier = min(earlier, named + MARGIN)
            second = earlier
        return None

    def bits(self, day: int) -> int:
        """See `Instants.bits`."""
        begin, due = day * DAY, 0
        for piece in self._pieces(begin // CHUNK):
            since, until = max(piece.begin, begin), min(piece.end, begin + DAY)
            if since >= until:
                continue
            part = ((1 << until - since) - 1) << since - begin
            due |= self._plain_bits(day, piece.offset) & part
            if since == piece.begin and self._makes_up(piece):
                due |= 1 << since - begin
        return due

    def shape(self, day: int) -> Hashable:
        """See `Instants.shape`: a day without a change of the clock is told by the local days it touches."""
        begin = day * DAY
        for piece in self._pieces(begin // CHUNK):
            whole = piece.begin <= begin and begin + DAY <= piece.end
            if whole and not (piece.begin == begin and piece.made_up):
                local, shift = divmod(begin + piece.offset, DAY)
                return piece.offset, self.fields.names_day(local), shift and self.fields.names_day(local + 1)
        return day

    def _plain_bits(self, day: int, offset: int) -> int:
        """Return what would be due on a UTC day if its offset were always this."""
        local, shift = divmod(day * DAY + offset, DAY)
        due = self.fields.times() >> shift if self.fields.names_day(local) else 0
        if shift and self.fields.names_day(local + 1):
            due |= self.fields.times() << DAY - shift
        return due

    def _pieces(self, chunk: int) -> tuple[Piece, ...]:
        if self.fields.fixed:
            return pieces(self.zone, chunk, self.gap, self.fold)
        return pieces(self.zone, chunk, Gap.SKIP, Fold.BOTH)

    def _makes_up(self, piece: Piece) -> bool:
        if not piece.made_up:
            return False
        begin = piece.begin + piece.offset
        named = self.fields.first_from(begin - piece.made_up)
        return named is not None and named < begin
