"""The OpenAI SDK, without the hundreds of models of its API that nobody here asks for."""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_MODELS = ("openai.types", "openai.types.chat", "openai.types.responses")


def _deferred(spec: ModuleSpec) -> ModuleType:
    """Return a package whose own code runs when the first of its names is asked for (PEP 562)."""
    module = module_from_spec(spec)

    def asked(name: str) -> Any:
        del module.__dict__["__getattr__"]
        assert spec.loader is not None
        spec.loader.exec_module(module)
        return getattr(module, name)

    module.__dict__["__getattr__"] = asked
    return module


def _defer_models() -> None:
    """Stand in for packages that `import openai` would run: they take a third of a second, and memory.

    All their names and modules are found as before. Where the SDK has been imported already, it is as it is.
    """
    sdk = None if "openai" in sys.modules else find_spec("openai")
    places = {"openai": sdk.submodule_search_locations} if sdk else {}
    for name in _MODELS:
        above, _, own_name = name.rpartition(".")
        spec = PathFinder.find_spec(name, places.get(above)) if above in places else None
        if spec is None:
            return
        sys.modules[name], places[name] = _deferred(spec), spec.submodule_search_locations
        if above in sys.modules:
            setattr(sys.modules[above], own_name, sys.modules[name])


_defer_models()

from openai import (  # noqa: E402 - the SDK comes after what it would load
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    AsyncStream,
    DefaultAioHttpClient,
    Omit,
)

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncOpenAI",
    "AsyncStream",
    "DefaultAioHttpClient",
    "Omit",
]
