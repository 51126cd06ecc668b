"""The simulated platform: tenants and their users live through one day, and every act of theirs is an event.

Pure and deterministic: the same seed, sizes and run id give the same events, byte for byte, and the run id shows in the
event ids only. The day goes in order of time, and causes come before effects: a user logs in after being created,
unless the day began with them; a session is revoked after its login; who is suspended does not log in. Memory grows
with the users, never with the events. All persons, companies and addresses are invented.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections import deque
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from eventbroker.events.v1.role_pb2 import PermissionChecked, RoleAssigned
from eventbroker.events.v1.session_pb2 import SessionRevoked
from eventbroker.events.v1.user_pb2 import UserCreated, UserLoggedIn, UserStatusChanged
from eventbroker.v1.event_pb2 import Event, Metadata
from google.protobuf.any_pb2 import Any
from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CREATED, STATUS_CHANGED, LOGIN = "user.created", "user.status_changed", "user.login"
REVOKED, ASSIGNED, CHECKED = "session.revoked", "role.assigned", "permission.checked"
EVENT_TYPES = (CREATED, STATUS_CHANGED, LOGIN, REVOKED, ASSIGNED, CHECKED)

DAY_START = 1_772_409_600  # 2026-03-02T00:00:00Z, a Monday
HOURS = (2, 1, 1, 1, 2, 4, 9, 18, 30, 34, 33, 28, 22, 29, 32, 31, 27, 20, 13, 9, 7, 6, 4, 3)  # how busy each one is
JSON_EVERY = 10  # every tenth event carries its data as JSON text, the others as a typed message

# What happens next, when nothing is under way: upper bounds of one draw in [0, 1). A registration brings three more
# events with it, a suspension the end of the user's sessions.
CHECK, LOG_IN, REVOKE, ASSIGN, CHANGE = 0.60, 0.825, 0.935, 0.968, 0.988

AGGREGATE_TYPES = {
    CREATED: "User",
    STATUS_CHANGED: "User",
    LOGIN: "Session",
    REVOKED: "Session",
    ASSIGNED: "UserRole",
    CHECKED: "Permission",
}
METADATA = {
    event_type: Metadata(source=source, caused_by=cause, tags=tags, attributes={"service.version": version})
    for event_type, source, cause, tags, version in (
        (CREATED, "user-management-service", "user_registration", ["lifecycle"], "2.7.1"),
        (STATUS_CHANGED, "user-management-service", "status_update", ["lifecycle"], "2.7.1"),
        (LOGIN, "auth-service", "user_login", ["security"], "5.0.3"),
        (REVOKED, "auth-service", "session_revocation", ["security", "audit"], "5.0.3"),
        (ASSIGNED, "rbac-service", "role_assignment", ["audit"], "1.12.0"),
        (CHECKED, "rbac-service", "permission_check", ["audit"], "1.12.0"),
    )
}

COLOURS = ("amber", "cobalt", "coral", "emerald", "indigo", "ivory", "olive", "ruby", "silver", "violet")
TRADES = ("bakery", "books", "clinic", "energy", "foods", "freight", "garden", "optics", "studio", "textiles")
GIVEN = ("Ada", "Bela", "Cleo", "Dana", "Emil", "Faye", "Gus", "Hana", "Ivo", "Jun", "Kira", "Leo", "Mei", "Nils")
FAMILY = ("Alder", "Brook", "Chen", "Dale", "Elm", "Field", "Grove", "Hill", "Lake", "Moss", "Reed", "Stone", "Wang")
NETWORKS = ("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8::")  # set aside for documentation
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:148.0) Gecko/20100101 Firefox/148.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 Safari/537.36",
    "PlatformApp/4.2 (Android 16)",
    "PlatformApp/4.2 (iOS 26)",
)
METHODS = ("password", "password", "password", "sso", "sso", "passkey")
OFFICES = ("Berlin", "São Paulo", "上海", "Zürich", "remote")
ROLES = ("viewer", "editor", "approver", "admin")  # each may what those before it may
NEEDS = (  # a resource, an action, and the least role that may
    ("documents", "read", 0),
    ("documents", "read", 0),
    ("reports", "read", 0),
    ("documents", "write", 1),
    ("reports", "export", 1),
    ("invoices", "read", 1),
    ("invoices", "approve", 2),
    ("users", "update", 3),
    ("roles", "assign", 3),
)
SUSPENSIONS = ("too many failed logins", "policy violation", "reported device")
REVOCATIONS = ("logout", "logout", "logout", "signed in elsewhere", "password changed", "idle")

Data = UserCreated | UserStatusChanged | UserLoggedIn | SessionRevoked | RoleAssigned | PermissionChecked


class Act(NamedTuple):
    """What happened, before it has a number and a time."""

    event_type: str
    tenant: int
    aggregate_id: str
    by: str  # the user who did it, or empty
    session: str  # the session in which it happened, or empty
    chain: str  # joins causes and effects
    data: Data


class Session:
    """A session that is open."""

    __slots__ = ("chain", "place", "session_id", "tenant", "user")

    def __init__(self, session_id: str, tenant: int, user: int, chain: str, place: int) -> None:
        self.session_id, self.tenant, self.user, self.chain, self.place = session_id, tenant, user, chain, place


class Platform:
    """The platform of one seed. `day` may be asked for once."""

    def __init__(self, *, seed: int, run_id: str, events: int, tenants: int = 100, users: int = 100_000) -> None:
        if users < tenants:
            raise ValueError("every tenant needs a user")
        self._seed, self._run_id, self._events, self._users = seed, run_id, events, users
        self._random = random.Random(seed)
        self._tenants = [tenant_name(number) for number in range(tenants)]
        # A few large tenants and many small ones: the k-th is as large as k ** -0.85, and no tenant is empty.
        sizes = [(k + 1) ** -0.85 for k in range(tenants)]
        whole, run = sum(sizes), 0.0
        self._upto = [run := run + size / whole for size in sizes]  # the share of tenants 0..k
        self._upto[-1] = 1.0
        self._ends = [k + 1 + round((users - tenants) * share) for k, share in enumerate(self._upto)]
        self._newcomers: list[list[int]] = [[] for _ in range(tenants)]
        self._barred: list[tuple[int, int]] = []  # tenant and user of who is suspended
        self._suspended = bytearray(users)
        self._roles: dict[int, int] = {}  # of users who got another than the one that they began with
        self._open: list[Session] = []
        self._sessions_of: dict[int, list[Session]] = {}
        self._due: deque[Callable[[int], Act]] = deque()  # effects of what happened, soon to come
        self._chains = self._logins = 0

    def day(self) -> Iterator[Event]:
        """All events of the day, in order of time; event number n of run r has the id "r-n"."""
        moments = self._moments()
        for number in range(self._events):
            second, microsecond = next(moments)
            act = self._next(second)
            data = act.data
            fields: dict[str, str | Any]
            if number % JSON_EVERY == JSON_EVERY - 1:
                fields = {"json": MessageToJson(data, indent=None, ensure_ascii=False)}
            else:
                url = "type.googleapis.com/" + data.DESCRIPTOR.full_name
                fields = {"message": Any(type_url=url, value=data.SerializeToString(deterministic=True))}
            yield Event(
                event_id=f"{self._run_id}-{number}",
                event_type=act.event_type,
                event_version="v1.0",
                aggregate_id=act.aggregate_id,
                aggregate_type=AGGREGATE_TYPES[act.event_type],
                timestamp=Timestamp(seconds=second, nanos=microsecond * 1000),
                tenant_id=self._tenants[act.tenant],
                user_id=act.by,
                session_id=act.session,
                request_id=f"req-{self._seed:x}-{number:06x}",
                correlation_id=act.chain,
                metadata=METADATA[act.event_type],
                **fields,  # type: ignore[arg-type]  # one of the two, each of its type
            )

    def _moments(self) -> Iterator[tuple[int, int]]:
        """Seconds and microseconds of the events, each at or after the one before, dense in the busy hours."""
        whole, hour, before = sum(HOURS), 0, 0
        for number in range(self._events):
            point = (number + self._random.random()) / self._events * whole
            while point >= before + HOURS[hour] and hour < len(HOURS) - 1:
                before += HOURS[hour]
                hour += 1
            micros = int((hour + min(point - before, HOURS[hour]) / HOURS[hour]) * 3_600_000_000)
            yield DAY_START + micros // 1_000_000, micros % 1_000_000

    def _next(self, now: int) -> Act:
        draw = self._random.random
        if self._due and draw() < 0.5:
            return self._due.popleft()(now)
        what = draw()
        if what < CHECK:
            return self._check() if self._open else self._log_in()
        if what < LOG_IN:
            return self._log_in()
        if what < REVOKE:
            return self._revoke_one() if self._open else self._log_in()
        if what < ASSIGN:
            return self._assign(now)
        if what < CHANGE:
            return self._change_status()
        return self._register()

    # Users.

    def _register(self) -> Act:
        """A user registers; then the address is verified, the first role is assigned, and the user logs in."""
        tenant, user, chain = self._some_tenant(), self._users, self._new_chain()
        self._users += 1
        self._suspended.append(0)
        given, family = GIVEN[user % len(GIVEN)], FAMILY[user // len(GIVEN) % len(FAMILY)]
        username = f"{given}.{family}.{user}".lower()
        email = f"{username}@{self._tenants[tenant]}.example.com"
        verified = UserStatusChanged(old_status="pending", new_status="active", reason="address verified")
        self._due.append(lambda _: Act(STATUS_CHANGED, tenant, user_name(user), user_name(user), "", chain, verified))
        self._due.append(partial(self._assign_role, tenant, user, 0, chain))
        self._due.append(lambda _: self._first_login(tenant, user, chain))
        data = UserCreated(email=email, username=username, first_name=given, last_name=family, status="pending")
        return Act(CREATED, tenant, user_name(user), "", "", chain, data)

    def _change_status(self) -> Act:
        """Somebody is suspended and loses all sessions, or comes back."""
        found = self._somebody()
        if self._barred and (found is None or self._random.random() < 0.4):
            return self._reinstate()
        if found is None:
            return self._register()
        if self._open and self._random.random() < 0.5:
            session = self._open[self._below(len(self._open))]
            found = session.tenant, session.user
        (tenant, user), chain = found, self._new_chain()
        self._suspended[user] = 1
        self._barred.append(found)
        if sessions := list(self._sessions_of.get(user, ())):
            for session in sessions:
                self._close(session)
            ids = [session.session_id for session in sessions]
            by = admin_name(tenant)
            self._due.append(lambda _: self._revocation(sessions[-1], by, "account suspended", ids, chain))
        reason = SUSPENSIONS[self._below(len(SUSPENSIONS))]
        data = UserStatusChanged(old_status="active", new_status="suspended", reason=reason)
        return Act(STATUS_CHANGED, tenant, user_name(user), admin_name(tenant), "", chain, data)

    def _reinstate(self) -> Act:
        place = self._below(len(self._barred))
        self._barred[place], self._barred[-1] = self._barred[-1], self._barred[place]
        tenant, user = self._barred.pop()
        self._suspended[user] = 0
        data = UserStatusChanged(old_status="suspended", new_status="active", reason="review passed")
        return Act(STATUS_CHANGED, tenant, user_name(user), admin_name(tenant), "", self._new_chain(), data)

    # Sessions.

    def _first_login(self, tenant: int, user: int, chain: str) -> Act:
        self._newcomers[tenant].append(user)  # from now on like everybody else
        return self._login(tenant, user, chain)

    def _log_in(self) -> Act:
        if found := self._somebody():
            return self._login(*found, self._new_chain())
        return self._reinstate() if self._barred else self._register()

    def _login(self, tenant: int, user: int, chain: str) -> Act:
        if len(self._open) > max(16, self._users // 4):  # some sessions end in silence
            self._close(self._open[self._below(len(self._open))])
        self._logins += 1
        session = Session(f"sess-{self._seed:x}-{self._logins:06x}", tenant, user, chain, len(self._open))
        self._open.append(session)
        self._sessions_of.setdefault(user, []).append(session)
        data = UserLoggedIn(
            session_id=session.session_id,
            source_ip=f"{NETWORKS[user % len(NETWORKS)]}{1 + self._below(254)}",
            user_agent=AGENTS[user % len(AGENTS)],
            login_method=METHODS[self._below(len(METHODS))],
        )
        return Act(LOGIN, tenant, user_name(user), user_name(user), session.session_id, chain, data)

    def _revoke_one(self) -> Act:
        session = self._open[self._below(len(self._open))]
        self._close(session)
        reason = REVOCATIONS[self._below(len(REVOCATIONS))]
        return self._revocation(session, user_name(session.user), reason, [session.session_id], session.chain)

    def _revocation(self, session: Session, by: str, reason: str, affected: list[str], chain: str) -> Act:
        user, session_id = user_name(session.user), session.session_id
        data = SessionRevoked(user_id=user, revoked_by=by, reason=reason, affected_sessions=affected)
        return Act(REVOKED, session.tenant, session_id, user, session_id, chain, data)

    def _close(self, session: Session) -> None:
        last = self._open.pop()
        if last is not session:
            self._open[session.place] = last
            last.place = session.place
        others = self._sessions_of[session.user]
        others.remove(session)
        if not others:
            del self._sessions_of[session.user]

    # Roles.

    def _assign(self, now: int) -> Act:
        found = self._somebody()
        if found is None:
            return self._log_in()
        return self._assign_role(*found, min(self._below(5), 3), self._new_chain(), now)

    def _assign_role(self, tenant: int, user: int, role: int, chain: str, now: int) -> Act:
        self._roles[user] = role
        data = RoleAssigned(
            role_id=f"role-{role}",
            role_name=ROLES[role],
            assigned_by=admin_name(tenant),
            effective_date=Timestamp(seconds=now),
            expiration_date=Timestamp(seconds=now + 90 * 86_400) if role == 2 else None,  # approvers for a quarter
        )
        return Act(ASSIGNED, tenant, user_name(user), admin_name(tenant), "", chain, data)

    def _check(self) -> Act:
        count = len(self._open)
        session = self._open[count - 1 - int(self._random.random() ** 2 * count)]  # rather those who just came
        user = session.user
        role = self._roles.get(user, 1 if user % 4 == 0 else 0)
        data = permission(role, self._below(len(NEEDS)), user % len(OFFICES))
        return Act(CHECKED, session.tenant, user_name(user), user_name(user), session.session_id, session.chain, data)

    # The draw.

    def _below(self, bound: int) -> int:
        return int(self._random.random() * bound)

    def _some_tenant(self) -> int:
        return bisect(self._upto, self._random.random())

    def _somebody(self) -> tuple[int, int] | None:
        """A tenant and a user of it who may act, some more often than others; none when luck finds only suspended."""
        for _ in range(8):
            tenant = self._some_tenant()
            start = self._ends[tenant - 1] if tenant else 0
            settled, newcomers = self._ends[tenant] - start, self._newcomers[tenant]
            place = int(self._random.random() ** 1.5 * (settled + len(newcomers)))
            user = start + place if place < settled else newcomers[place - settled]
            if not self._suspended[user]:
                return tenant, user
        return None

    def _new_chain(self) -> str:
        self._chains += 1
        return f"chain-{self._seed:x}-{self._chains:06x}"


def tenant_name(number: int) -> str:
    """The name of tenant number 0, 1, ...: an invented company's."""
    name = f"{COLOURS[number % 10]}-{TRADES[number // 10 % 10]}"
    return name if number < 100 else f"{name}-{number // 100 + 1}"


def user_name(number: int) -> str:
    """The id of user number 0, 1, ...; the day begins with those below the number of users."""
    return f"user-{number:06d}"


def admin_name(tenant: int) -> str:
    """The id of the account that administers a tenant."""
    return f"admin-{tenant_name(tenant)}"


@cache
def permission(role: int, need: int, office: int) -> PermissionChecked:
    """The answer to one question about permissions: there are few, so each is made once. Not to be changed."""
    resource, action, least = NEEDS[need]
    data = PermissionChecked(resource=resource, action=action, allowed=role >= least, applied_roles=ROLES[: role + 1])
    data.context.update({"office": OFFICES[office], "vpn": OFFICES[office] == "remote", "risk": least * 10})
    return data
