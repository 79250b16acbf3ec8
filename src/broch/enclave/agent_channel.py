"""A machine's end of the channel to its agent: loads and kills come in, answers go out."""

import socket
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from broch.enclave import packets
from broch.enclave.machine_messages import Answer, Kill, Load, Question, Refusal
from broch.errors import BrochError, DecodeError, UsageError
from broch.tee.contract import Packed

_question: Final = msgspec.msgpack.Decoder(Question)


class AgentChannel:
    """Reads what the agent asks, whom nobody trusts: nonsense is ignored and leaves nothing open.

    Args:
        sock: the machine's end.
        load: called for each load with what came; an error of ours that it raises is answered.
        kill: called for each kill.
        most: bytes that a packed image, or its signature, may have.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        load: Callable[[Load, Packed], None],
        kill: Callable[[Kill], None],
        most: int,
    ) -> None:
        self._sock = sock
        self._load = load
        self._kill = kill
        self._most = most

    def fileno(self) -> int:
        """For pollers."""
        return self._sock.fileno()

    def serve(self) -> bool:
        """Take one question; false when the agent has hung up."""
        try:
            packet = packets.receive(self._sock)
        except DecodeError:
            return True
        if packet is None:
            return False
        message, descriptors = packet
        try:
            question = _question.decode(message)
        except msgspec.MsgspecError:
            packets.close_all(descriptors)
            return True
        if isinstance(question, Kill):
            packets.close_all(descriptors)
            self._kill(question)
            return True
        try:
            self._load(question, self._packed(question, descriptors))
        except BrochError as exc:
            self.say(Refusal(question.name, exc.code, str(exc), exc.hint))
        return True

    def say(self, answer: Answer, descriptors: Iterable[int] = ()) -> None:
        """Tell the agent."""
        packets.send(self._sock, msgspec.msgpack.encode(answer), tuple(descriptors))

    def _packed(self, question: Load, descriptors: list[int]) -> Packed:
        """What came with a load, each memory read once."""
        contents = []
        while descriptors:
            try:
                contents.append(packets.read_memory(descriptors.pop(0), self._most))
            except BrochError:
                packets.close_all(descriptors)
                raise
        if len(contents) != 1 + question.has_signature:
            raise UsageError("a load comes with an image and, if it has one, its signature")
        signature = contents[1] if question.has_signature else None
        return Packed(tee=question.tee, data=contents[0], signature=signature)
