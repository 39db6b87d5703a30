"""The chain: one loop over targets in which every failure to resolve or to answer leads on, or ends, in one way."""

from jobs.events import FellBack
from jobs.providers.call import Answered, Call, ChainExhausted, Left, Progress, step_out
from jobs.providers.recovery import MOST_TARGETS
from jobs.providers.stay import Services, Stay
from jobs.request import Request
from jobs.attempt import Step
from jobs.target import Target


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
        targets = call.targets[:MOST_TARGETS]
        for index, target in enumerate(targets):
            following = targets[index + 1] if index + 1 < len(targets) else None
            ended = await Stay(self._services, request, progress, target, index, following).run()
            if isinstance(ended, Left):
                left.append(ended)
                if not self._moves_on(ended, following, progress):
                    break
                continue
            return Answered(*ended, fallback_reason=left[0].error_class if left else None)
        raise ChainExhausted(left)

    def _moves_on(self, left: Left, following: Target | None, progress: Progress) -> bool:
        if following is None or step_out(left.error_class, progress, left.target, following) is Step.STOP:
            return False
        self._services.events.emit(
            FellBack(progress.call.run_id, left.target.provider, following.provider, left.error_class)
        )
        return True
