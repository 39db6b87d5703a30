"""What is done about a request that is too long: its material is made shorter, once, or the run fails."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from jobs.auxiliary import SHORTEST_WORTH_IT, Helper
from jobs.definition import OnOverflow
from jobs.errors import CompressionFailed, ErrorClass
from jobs.material import Material
from jobs.providers.call import Shrink
from jobs.request import Request

_OTHERWISE = "gather less, or choose a target with a larger context"


@dataclass(frozen=True, slots=True)
class Shortened:
    """How many characters of material there were, and how many are left."""

    before: int
    after: int

    def __str__(self) -> str:
        return f"from {self.before:,} to {self.after:,} characters"


Render = Callable[[Material], Awaitable[Request]]
Keep = Callable[[Request, Shortened], Awaitable[None]]


@dataclass(slots=True)
class Overflow:
    """One try's way to a shorter request. Instructions are never touched: the same templates are filled anew.

    `helper` is there exactly where `on_overflow` is `compress`. `keep` writes down what was done.
    """

    on_overflow: OnOverflow
    material: Material
    helper: Helper | None
    render: Render
    keep: Keep
    shortened: Shortened | None = None

    @property
    def shrink(self) -> Shrink | None:
        """What the chain calls when a request is too long; None where nothing can or may be made shorter."""
        may = self.on_overflow is not OnOverflow.FAIL and self._is_worth_it
        return self._shrink if may else None

    @property
    def _is_worth_it(self) -> bool:
        return any(len(text) >= SHORTEST_WORTH_IT for text in self.material.texts)

    @property
    def advice(self) -> str:
        """What somebody can do about a run that has failed because its request was too long."""
        if self.shortened is not None:
            return f"its material was made shorter once, {self.shortened}; {_OTHERWISE}"
        if not self._is_worth_it:
            return (
                "hardly anything in this prompt was gathered or comes from another run, and instructions are "
                "never compressed; shorten the prompt, or choose a target with a larger context"
            )
        if self.on_overflow is OnOverflow.FAIL:
            return (
                "nothing makes it shorter; let the job compress what is gathered (`auxiliary: {compression: "
                "{}}` and `on_overflow: compress`) or cut it (`on_overflow: truncate`), or gather less"
            )
        return f"there was no time left to make it shorter; {_OTHERWISE}"

    async def _shrink(self, _request: Request, error_class: ErrorClass) -> Request:
        """Return the request with shorter material; raises CompressionFailed or TemplateError."""
        texts = self.material.texts
        if self.helper is None:
            shorter = tuple(without_front(text) for text in texts)
        else:
            try:
                shorter = await self.helper.compress(texts)
            except CompressionFailed as exc:
                raise CompressionFailed(f"{error_class}, and compressing did not help: {exc}") from exc
        material = self.material.replaced(shorter)
        self.shortened = Shortened(self.material.length, material.length)
        request = await self.render(material)
        await self.keep(request, self.shortened)
        return request


def without_front(text: str) -> str:
    """Return the second half of a text, from a line's beginning where there is one, and say what is gone.

    A short text stays as it is.
    """
    if len(text) < SHORTEST_WORTH_IT:
        return text
    half = len(text) - len(text) // 2
    start = text.find("\n", half - 1, half + half // 4) + 1 or half
    return f"[the first {start:,} of {len(text):,} characters are left out here]\n{text[start:]}"
