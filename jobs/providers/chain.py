"""The chain: one loop over targets. A failure to resolve and a failure to answer lead on in one way."""

from jobs.attempt import Step
from jobs.events import FellBack
from jobs.providers.call import Answered, Call, ChainExhausted, Left, Progress
from jobs.providers.stay import Services, Stay
from jobs.request import Request


class Chain:
    """Asks targets in order until one answers. Holds no state between calls."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def complete(self, request: Request, call: Call) -> Answered:
        """Return the first proved answer of the chain; raises ChainExhausted.

        At most 5 targets and 12 requests, refreshes counted; the caller's deadline bounds all of it.
        """
        progress = Progress(call)
        left: list[Left] = []
        while True:
            ended = await Stay(self._services, request, progress).run()
            if not isinstance(ended, Left):
                return Answered(*ended, fallback_reason=left[0].error_class if left else None)
            left.append(ended)
            following = progress.following
            if following is None or progress.step_out(ended.error_class) is Step.STOP:
                raise ChainExhausted(left)
            self._services.events.emit(
                FellBack(call.run_id, ended.target.provider, following.provider, ended.error_class)
            )
            progress.index += 1
