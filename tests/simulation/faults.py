"""What goes wrong, when, and for how long: drawn from the seed, undone when its time is over."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.replica import Machine
    from tests.simulation.world import World

Undo = Callable[[], None]

NOISE = ("lost answer", "late", "rolled back", "slow")
VENDOR_NOISE = ("unreadable", "stale", "refused", "lost", "late", "twice", "lying", "slow")
MOODS = ("bad", "shaky", "silent", "outage", "few", "nan", "stale", "doubled", "healthy", "healthy", "healthy")


class Faults:
    """`life` draws one after the other; several may be there at the same time."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = Random(f"{world.seed}/faults")
        self._open: list[Undo] = []
        self.active = True
        kinds: tuple[tuple[Callable[[], Undo | None], int], ...] = (
            (self.crash, 8),
            (self.freeze, 4),
            (self.stop_gracefully, 2),
            (self.cut_database, 6),
            (self.database_down, 4),
            (self.database_restart, 3),
            (self.replication_stops, 3),
            (self.fail_over, 3),
            (self.read_only, 2),
            (self.hanging, 2),
            (self.database_noise, 4),
            (self.cut_peers, 5),
            (self.cut_provider, 5),
            (self.provider_noise, 8),
            (self.disk_full, 2),
            (self.mood, 10),
            (self.source_fails, 3),
            (self.clock_jump, 3),
            (self.database_clock_jump, 1),
        )
        self._kinds = [kind for kind, _ in kinds]
        # Not every seed knows every fault: rare combinations need a world in which nothing else happens.
        share = self._chance.choice((0.2, 0.5, 1.0))
        self._weights = [weight if self._chance.random() < share else 0 for _, weight in kinds]
        self._weights[0] = max(self._weights[0], 1)

    async def life(self) -> None:
        while self.active:
            await asyncio.sleep(self._chance.expovariate(1 / self._world.calmness))
            if not self.active:
                return
            (kind,) = self._chance.choices(self._kinds, self._weights)
            undo = kind()
            if undo is not None:
                lasts = self._chance.choice((0.5, 3.0, 8.0, 25.0)) * self._chance.random()
                self._open.append(undo)
                asyncio.get_running_loop().call_later(lasts, self._undo, undo)

    def _undo(self, undo: Undo) -> None:
        if undo in self._open:
            self._open.remove(undo)
            undo()

    def stop(self) -> None:
        """Everything works again from here on."""
        self.active = False
        while self._open:
            self._open.pop()()
        database, backend = self._world.database, self._world.backend
        database.rates, backend.rates = {}, {}
        for machine in self._world.machines:
            if not machine.up:
                machine.start()

    def _count(self, fault: str) -> None:
        self._world.promises.count(fault)

    def _up(self) -> "Machine | None":
        up = [machine for machine in self._world.machines if machine.up and not machine.process.frozen]
        return self._chance.choice(up) if up else None

    # — replicas —

    def crash(self) -> Undo | None:
        machine = self._up()
        if machine is None:
            return None
        self._count("replica: killed")
        self._world.promises.tell(f"{machine.name} is killed")
        machine.crash()
        return lambda: self._back(machine)

    def _back(self, machine: "Machine") -> None:
        if not machine.up:
            self._world.promises.tell(f"{machine.name} is started")
            machine.start()

    def stop_gracefully(self) -> Undo | None:
        machine = self._up()
        if machine is None:
            return None
        self._count("replica: stopped")
        self._world.promises.tell(f"{machine.name} is stopped")
        stopping = asyncio.ensure_future(machine.stop())
        self._world.keep(stopping)
        return lambda: self._back(machine)

    def freeze(self) -> Undo | None:
        machine = self._up()
        if machine is None:
            return None
        self._count("replica: frozen")
        self._world.promises.tell(f"{machine.name} is frozen")
        machine.freeze()
        process = machine.process
        return process.thaw

    def disk_full(self) -> Undo:
        platter = self._chance.choice(self._world.machines).platter
        self._count("replica: disk full")
        platter.full = True
        return lambda: setattr(platter, "full", False)

    def clock_jump(self) -> None:
        clock = self._chance.choice(self._world.machines).clock
        self._count("clock: jumped")
        self._world.clock_jumped = True
        clock.offset = timedelta(seconds=self._chance.choice((-3600, -60, 0, 60, 3600)))

    # — the database —

    def cut_database(self) -> Undo:
        machine, database = self._chance.choice(self._world.machines), self._world.database
        self._count("network: database cut off")
        database.cut[machine.name] = self._chance.choice(("refused", "silent"))
        self._world.promises.tell(f"{machine.name} is cut off from the database")

        def mended() -> None:
            database.cut.pop(machine.name, None)

        return mended

    def database_down(self) -> Undo:
        database = self._world.database
        self._count("database: down")
        database.down = True

        def up() -> None:
            database.down = False
            database.restart()

        return up

    def database_restart(self) -> None:
        self._count("database: restarted")
        self._world.database.restart()

    def replication_stops(self) -> None:
        self._count("database: replication stopped")
        self._world.database.stop_replication()

    def fail_over(self) -> None:
        lost = self._world.database.fail_over()
        self._count("database: failed over" + (", commits forgotten" if lost else ""))
        self._world.promises.tell(f"{lost} audit rows are lost")

    def read_only(self) -> Undo:
        database = self._world.database
        self._count("database: read-only")
        database.read_only = True
        return lambda: setattr(database, "read_only", False)

    def hanging(self) -> Undo:
        database = self._world.database
        self._count("database: hanging")
        database.hanging = True
        return lambda: setattr(database, "hanging", False)

    def database_noise(self) -> Undo:
        database = self._world.database
        database.rates = {self._chance.choice(NOISE): self._chance.choice((0.02, 0.1, 0.4))}
        return lambda: setattr(database, "rates", {})

    def database_clock_jump(self) -> None:
        self._count("clock: database jumped")
        self._world.database.offset = float(self._chance.choice((-3600, -5, 0, 5, 3600)))

    # — the network, the provider, the source —

    def cut_peers(self) -> Undo:
        one, other = self._chance.sample([machine.name for machine in self._world.machines], 2)
        self._count("network: peers cut off")
        self._world.cut_peers.add((one, other))
        return lambda: self._world.cut_peers.discard((one, other))

    def cut_provider(self) -> Undo:
        names = [machine.name for machine in self._world.machines]
        cut = set(names) if self._chance.random() < 0.3 else {self._chance.choice(names)}
        backend = self._world.backend
        self._count("network: provider cut off")
        backend.cut |= cut
        return lambda: backend.cut.difference_update(cut)

    def provider_noise(self) -> Undo:
        backend = self._world.backend
        backend.rates = {self._chance.choice(VENDOR_NOISE): self._chance.choice((0.1, 0.4, 0.9))}
        return lambda: setattr(backend, "rates", {})

    def mood(self) -> None:
        flag = self._chance.choice(list(self._world.flags.values()))
        mood = self._chance.choice(MOODS)
        self._count(f"traffic: {mood}")
        self._world.traffic.moods[flag.key] = mood
        self._world.promises.mood(flag.key, mood)

    def source_fails(self) -> Undo:
        names = {machine.name for machine in self._world.machines}
        failing = names if self._chance.random() < 0.5 else {self._chance.choice(sorted(names))}
        traffic = self._world.traffic
        self._count("source: cannot be asked")
        traffic.failing |= failing
        return lambda: traffic.failing.difference_update(failing)
