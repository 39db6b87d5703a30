"""The daemon's side of the control socket: native verbs, and commands that are carried out in its name."""

import asyncio
import logging
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.errors import PromptdError
from scheduler.control_children import AT_ONCE, Child, Children, Errand
from scheduler.control_protocol import (
    LONGEST,
    LONGEST_REPLY,
    SIGNALS,
    VERSION,
    Unspoken,
    Verbs,
    close_all,
    decoded,
    encoded,
    received,
)
from scheduler.control_socket import ListeningSocket, Taken

MOST_PEERS = 64
SILENT_FOR = 30.0
LAST_WORDS = 1.0
_CREDENTIALS = struct.Struct("3i")
logger = logging.getLogger(__name__)


class Control:
    """Listens from `start` to `stop`. What cannot be had costs a warning, never the daemon."""

    def __init__(
        self, state_dir: Path, *, verbs: Verbs, environ: Mapping[str, str], at_once: int = AT_ONCE
    ) -> None:
        self._socket = ListeningSocket(state_dir, environ)
        self._verbs = verbs
        self._children = Children(environ, at_once=at_once)
        self._talks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Task[None] | None = None
        self.path: Path | None = None

    async def start(self) -> None:
        """Listen, if the socket can be had."""
        try:
            listener = await asyncio.to_thread(self._socket.open)
        except Taken as exc:
            logger.warning("another daemon listens here already, so this one cannot be asked: %s", exc)
            return
        except OSError as exc:
            logger.warning("cannot listen on %s: %s; the daemon cannot be asked", self._socket.path, exc)
            return
        self.path = self._socket.path
        self._listening = asyncio.create_task(self._listen(listener), name="control socket")

    async def drain(self, seconds: float) -> None:
        """Let carried commands end by themselves, for so many seconds; new ones are refused from now on."""
        await self._children.drain(seconds)

    async def stop(self) -> None:
        """End carried commands, tell who asked for them, and give the socket back."""
        if self._listening is None:
            return
        self._listening.cancel()
        self._listening, self.path = None, None
        self._socket.close()
        await self._children.end_all()
        if self._talks:
            await asyncio.wait(self._talks, timeout=LAST_WORDS)
        for talk in self._talks:
            talk.cancel()

    async def _listen(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as exc:  # no descriptors left, say: others are asked for again in a while
                    logger.warning("cannot take a caller of the control socket: %s", exc)
                    await asyncio.sleep(1)
                    continue
                if len(self._talks) >= MOST_PEERS:
                    connection.close()
                    continue
                talk = asyncio.create_task(self._talk(connection), name="control")
                self._talks.add(talk)
                talk.add_done_callback(self._talked)

    def _talked(self, talk: "asyncio.Task[None]") -> None:
        self._talks.discard(talk)
        if not talk.cancelled() and talk.exception() is not None:
            logger.error("a request over the control socket failed: %r", talk.exception())

    async def _talk(self, connection: socket.socket) -> None:
        """Answer one caller until he has gone, or is silent for too long, or says what nobody understands."""
        with connection, suppress(ConnectionError):
            connection.setblocking(False)
            peer = _Peer(connection)
            try:
                while (message := await peer.request()) is not None:
                    await self._answer(peer, message)
            except Unspoken as exc:
                await peer.send({"error": {"kind": "Unspoken", "text": str(exc)}})
            finally:
                peer.forget()

    async def _answer(self, peer: "_Peer", message: Mapping[str, Any]) -> None:
        if message.get("v") != VERSION:
            raise Unspoken(f"this daemon speaks version {VERSION} of the control protocol; restart it")
        try:
            if message.get("verb") == "carry":
                await self._carry(peer, message)
                return
            answer = await self._done(peer, message)
        except PromptdError as exc:
            await peer.send({"error": {"kind": type(exc).__name__, "text": str(exc)}})
            return
        await peer.send({"answer": dict(answer)})

    async def _done(self, peer: "_Peer", message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do a native verb and return its answer; raises PromptdError."""
        match message:
            case {"verb": "hello"}:
                return self._verbs.hello()
            case {"verb": "reload"}:
                logger.info("%s asks for a reload", peer)
                return await self._verbs.reload()
            case {"verb": "stop", "now": bool(now)}:
                logger.info("%s asks this daemon to stop%s", peer, " now" if now else "")
                await self._verbs.stop(now=now)
                return {}
            case {"verb": "cancel", "run_id": int(run_id)}:
                logger.info("%s cancels run %d", peer, run_id)
                return {"cancelled": await self._verbs.cancel(run_id)}
            case {"verb": "wake", "names": list(names)} if all(isinstance(name, str) for name in names):
                await self._verbs.wake(names)
                return {}
            case {"verb": "run", "job": str(job), "values": dict(values), "force": bool(force), **rest}:
                logger.info("%s runs %s", peer, job)
                retry_of = rest.get("retry_of")
                if not isinstance(retry_of, int | None):
                    raise Unspoken("retry_of is the id of a run")
                run_id = await self._verbs.run(job, values, retry_of=retry_of, force=force)
                return {"run_id": run_id}
            case _:
                raise Unspoken(f"this daemon does not know {str(message.get('verb'))[:40]!r}, or not so")

    async def _carry(self, peer: "_Peer", message: Mapping[str, Any]) -> None:
        """Carry out a command; whoever goes away before its end ends it."""
        try:
            errand = Errand.of(peer.descriptors, message.get("terminal"))
        except ValueError as exc:
            raise Unspoken(str(exc)) from None
        level = logging.INFO if message.get("changes") else logging.DEBUG
        logger.log(level, "%s asks for `%s`", peer, str(message.get("command"))[:80])
        config = Path(self._verbs.hello()["config"])
        child = await self._children.start(
            errand, config, self._verbs.in_force(), waits=bool(message.get("waits"))
        )
        peer.forget()
        ended = asyncio.create_task(self._children.ended(child), name="carried command")
        heard = asyncio.create_task(self._pass_on(peer, child), name="carried command's caller")
        try:
            with suppress(ConnectionError):
                await peer.send({"answer": {"pid": child.process.pid}})
            await asyncio.wait((ended, heard), return_when=asyncio.FIRST_COMPLETED)
            if heard.done() and not ended.done():
                await self._children.end(child)
            await peer.send({"answer": {"exit": await ended}})
        finally:
            heard.cancel()
            if not ended.done():
                child.kill()
            await asyncio.gather(heard, return_exceptions=True)

    async def _pass_on(self, peer: "_Peer", child: Child) -> None:
        """Hear the caller of a command until he goes away; everything that he may say is a signal."""
        with suppress(ConnectionError, Unspoken):
            while (message := await peer.message()) is not None:
                match message:
                    case {"verb": "signal", "signal": str(name)} if name in SIGNALS:
                        child.signal(signal.Signals[name])
                    case _:
                        raise Unspoken("a command that is carried out hears signals only")


@dataclass(slots=True)
class _Peer:
    """One caller: who he is to the kernel, what he says line by line, the descriptors of his last message."""

    connection: socket.socket
    descriptors: Sequence[int] = ()
    _heard: bytes = b""

    def __str__(self) -> str:
        size = _CREDENTIALS.size
        found = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, _ = _CREDENTIALS.unpack(found)
        return f"uid {uid} (process {pid})"

    async def request(self) -> dict[str, Any] | None:
        """Return the next message of a caller that nothing is done for; None when he says nothing more."""
        try:
            async with asyncio.timeout(SILENT_FOR):
                return await self.message()
        except TimeoutError:
            return None

    async def message(self) -> dict[str, Any] | None:
        """Return the next message, None when the caller has gone; raises Unspoken, ConnectionError."""
        while b"\n" not in self._heard[:LONGEST]:
            if len(self._heard) >= LONGEST:
                raise Unspoken("the message is longer than 64 kB")
            await self._readable()
            try:
                data, descriptors = received(self.connection)
            except BlockingIOError:
                continue
            if descriptors:
                self.forget()
                self.descriptors = descriptors
            if not data:
                return None
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return decoded(line)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; raises ConnectionError, also for a caller that does not read it for a while."""
        line = encoded(message, longest=LONGEST_REPLY)
        try:
            async with asyncio.timeout(SILENT_FOR):
                await asyncio.get_running_loop().sock_sendall(self.connection, line)
        except TimeoutError as exc:
            raise ConnectionAbortedError("the caller does not read") from exc

    def forget(self) -> None:
        """Close the descriptors that came with the last message."""
        close_all(self.descriptors)
        self.descriptors = ()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self.connection, _set, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self.connection)


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
