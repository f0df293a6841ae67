"""The quote sessions on a page's sockets: which of them would tell a new price of the page's symbol.

This file owns the state of sessions and sockets (opened, hibernated, removed, closed), and decides by it what a
socket's message proves. It never reads prices (frames.py). It is pure and runs on the thread of its feed. Times are ms
by the page's clock. "Session" means a quote session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tradingview.messages import is_time, items, printable, texts
from tradingview.names import Names
from tradingview.proof import GAPS, heartbeat_interval, socket_proof_limit

SNAPSHOT_SESSIONS = "qs_snapshoter"  # the names of sessions that quote only once begin so
MAX_SOCKETS, MAX_SESSIONS, MAX_NAMES = 8, 32, 16  # per page, per socket, per session

K = TypeVar("K")
V = TypeVar("V")


@dataclass(eq=False, slots=True)
class Line:
    """All fields that a session has told under one name of the symbol. A frame has only those that changed."""

    session: Session
    name: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.session.is_over or self.session.lines.get(self.name) is not self


@dataclass(eq=False, slots=True)
class Session:
    """A quote session, as far as it concerns the symbol."""

    id: str
    lines: dict[str, Line] = field(default_factory=dict)  # by the symbol's names in it
    removed: set[str] = field(default_factory=set)  # names that the page has removed
    fast: set[str] = field(default_factory=set)  # names that the page ordered as fast; with any, the session is awake
    is_hibernated: bool = False
    is_unreadable: bool = False  # its last frame couldn't be read: the price may have changed
    is_over: bool = False

    @property
    def is_snapshot(self) -> bool:
        return self.id.startswith(SNAPSHOT_SESSIONS)

    def line(self, name: str) -> Line:
        """The line of this name; a new one if there is none. Raises ValueError when there are too many names."""
        if name not in self.lines:
            if len(self.lines) >= MAX_NAMES:
                raise ValueError("too many names for a symbol")
            self.lines[name] = Line(self, name)
        return self.lines[name]

    def remove(self, names: set[str]) -> None:
        for name in names:
            self.lines.pop(name, None)
        self.removed = set(sorted(self.removed | names)[:MAX_NAMES])

    def hibernate(self) -> None:
        self.is_hibernated, self.fast = True, set()


@dataclass(eq=False, slots=True)
class Socket:
    """One socket of the page. `heard_at` is the time of its last message, `beats` those of its last heartbeats."""

    id: int
    heard_at: float = 0.0
    beats: list[float] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    is_open: bool = True

    @property
    def proof_limit(self) -> float:
        return socket_proof_limit(self.beats)

    def session(self, told: object) -> Session:
        if not (name := printable(told)):
            raise ValueError("a session without a name")
        if (session := self.sessions.get(name)) is None:
            _make_room(self.sessions, MAX_SESSIONS, lambda session: session.is_over or not session.lines)
            session = self.sessions[name] = Session(name)
        return session

    def end(self) -> None:
        """The socket is closed and its sessions are over. It proves nothing more; earlier proofs stay."""
        self.is_open = False
        for session in self.sessions.values():
            session.is_over = True

    def hear(self, state: dict[str, Any], at: float) -> None:
        beats = sorted(beat for beat in items(state.get("beats")) if is_time(beat) and beat <= at)
        self.beats = beats[-GAPS - 1 :]
        if is_time(heard := state.get("heard")) and heard <= at:
            self.heard_at = max(self.heard_at, heard)


class Sessions:
    """All sockets of one document that concern the page's symbol, and their sessions."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.heard_at = 0.0  # when a socket with the symbol last received a message
        self._sockets: dict[int, Socket] = {}

    def socket(self, number: object) -> Socket:
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError("a socket without a number")
        if (socket := self._sockets.get(number)) is None:
            _make_room(self._sockets, MAX_SOCKETS, lambda socket: not socket.is_open)
            socket = self._sockets[number] = Socket(number)
        return socket

    def hear(self, message: dict[str, Any]) -> None:
        """Takes a change of a session: the page ordered it, or the server ended the session."""
        socket, event = self.socket(message.get("socket")), message.get("event")
        if event == "protocol_error":
            socket.end()
            return
        session, names = socket.session(message.get("session")), set(texts(message.get("names")))
        match event:
            case "quote_create_session":
                session.is_over = True
                socket.sessions[session.id] = Session(session.id)
            case "quote_add_symbols":
                session.removed -= names
            case "quote_remove_symbols":
                session.remove(names)
            case "quote_fast_symbols":
                session.fast = names
            case "quote_hibernate_all":
                session.hibernate()
            case "quote_delete_session" | "critical_error":
                session.is_over = True
            case _:
                raise ValueError(f"an event of unknown kind {printable(event)!r}")

    def hear_sockets(self, told: object, at: float) -> Iterator[tuple[float, float]]:
        """Takes the state of the page's sockets. Yields the time and limit of each proof that their messages give."""
        if not isinstance(told, list):
            return
        seen = set()
        for state in told[:MAX_SOCKETS]:
            socket = self.socket(state["id"])
            seen.add(socket.id)
            socket.hear(state, at)
            self.note_life(socket)
            if socket.heard_at and any(map(self._proves, socket.sessions.values())):
                yield socket.heard_at, socket.proof_limit
            if state.get("open") is not True:
                socket.end()
        for socket in self._sockets.values():
            if socket.id not in seen:
                socket.end()

    def note_life(self, socket: Socket) -> None:
        if any(map(self.has, socket.sessions.values())):
            self.heard_at = max(self.heard_at, socket.heard_at)

    def has(self, session: Session) -> bool:
        """Whether the session has quoted the symbol, and still does."""
        if session.is_over or session.is_snapshot:
            return False
        return any(map(self._is_own, session.lines))

    def _proves(self, session: Session) -> bool:
        """Whether the session would tell a new price while its socket lives. It must have told a price before."""
        is_awake = bool(session.fast) or not session.is_hibernated
        is_able = any("lp" in line.fields for name, line in session.lines.items() if self._is_own(name))
        return self.has(session) and is_able and is_awake and not session.is_unreadable

    def _is_own(self, name: str) -> bool:
        return self._names.extra_key(name) is None

    @property
    def have_symbol(self) -> bool:
        """Whether any session quotes the symbol."""
        return any(self.has(session) for socket in self._sockets.values() for session in socket.sessions.values())

    def why(self, at: float, giver: Line | None) -> list[dict[str, Any]]:
        """For a person: each socket with its sessions. `at` is now, `giver` is the line whose price counts."""
        return [
            {
                "isOpen": socket.is_open,
                "silentMs": round(at - socket.heard_at) if socket.heard_at else None,
                "heartbeatMs": heartbeat_interval(socket.beats),
                "proofMs": socket.proof_limit,
                "sessions": [self._why_session(session, giver) for session in socket.sessions.values()],
            }
            for socket in self._sockets.values()
        ]

    def _why_session(self, session: Session, giver: Line | None) -> dict[str, Any]:
        return {
            "id": session.id,
            "names": sorted(session.lines),
            "hasSymbol": self.has(session),
            "isOver": session.is_over,
            "isHibernated": session.is_hibernated,
            "isFast": bool(session.fast),
            "isUnreadable": session.is_unreadable,
            "givesPrice": giver is not None and session is giver.session,
        }


def _make_room(kept: dict[K, V], most: int, is_dispensable: Callable[[V], bool]) -> None:
    """When full, forgets the first dispensable entry, or else the oldest."""
    while len(kept) >= most:
        del kept[next((key for key, value in kept.items() if is_dispensable(value)), next(iter(kept)))]
