"""LiteLLM's proxy: an OpenAI-compatible server that nobody here wrote, in an environment of its own."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.wire import free_port
from support.workplace import PATIENCE, eventually

REQUIREMENTS = Path(__file__).with_name("foreign-server.txt")
ENVIRONMENT = Path(sys.prefix) / "foreign"
INSTALL_TIMEOUT = 600
KEY = "sk-the-key-of-this-house"
ANSWER = "Said by a server that nobody here wrote."
CONFIG = """
model_list:
  - {{model_name: good, litellm_params: {{model: openai/mock, api_key: none, mock_response: "{answer}"}}}}
  - model_name: limited
    litellm_params: {{model: openai/mock, api_key: none, mock_response: litellm.RateLimitError}}
  - {{model_name: revoked, litellm_params: {{model: openai/any, api_key: sk-revoked, api_base: {upstream}}}}}
general_settings: {{master_key: {key}}}
router_settings: {{num_retries: 0}}
"""


class NotInstalled(Exception):
    """The server could not be had; the text is what pip said."""


def install() -> Path:
    """Return the environment with the server in it, made once and kept; raises NotInstalled."""
    wanted, installed = REQUIREMENTS.read_text(), ENVIRONMENT / REQUIREMENTS.name
    if installed.exists() and installed.read_text() == wanted:
        return ENVIRONMENT
    python = ENVIRONMENT / "bin" / "python"
    venv = [sys.executable, "-m", "venv", "--clear", "--without-pip", ENVIRONMENT]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--quiet"]
    exactly = ["--no-deps", "--no-compile", "--requirement", REQUIREMENTS]
    for command in (venv, [*pip, *exactly]):
        try:
            made = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired as exc:
            raise NotInstalled(f"pip has not ended within {INSTALL_TIMEOUT} s") from exc
        if made.returncode != 0:
            raise NotInstalled((made.stderr.strip().splitlines() or ["pip says nothing"])[-1])
    installed.write_text(wanted)
    return ENVIRONMENT


@contextmanager
def serving(directory: Path, *, upstream: str) -> Iterator[str]:
    """Run the server and give its base URL; its model `revoked` is asked of `upstream`."""
    environment, port = install(), free_port()
    config = directory / "litellm.yaml"
    config.write_text(CONFIG.format(answer=ANSWER, upstream=upstream, key=KEY))
    litellm = environment / "bin" / "litellm"
    command = [litellm, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    variables = {"PATH": os.environ["PATH"], "HOME": str(directory), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with (directory / "litellm.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, env=variables, stdout=log, stderr=log)
    try:
        eventually(lambda: _is_up(process, port), within=4 * PATIENCE)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)


def _is_up(process: "subprocess.Popen[bytes]", port: int) -> bool:
    assert process.poll() is None, f"the server ended with {process.returncode}"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
