"""Faults, and what clients see of them: by the acknowledgements of one writer a node, timed by one clock."""
import os
import signal
import threading
import time

import psycopg

from cluster import alive, kill


class Writer(threading.Thread):
    """Commits a row every `interval` seconds whenever its node accepts writes, and notes what was acknowledged."""

    def __init__(self, cluster, node, first_id, interval):
        super().__init__(daemon=True)
        self.cluster, self.node, self.interval = cluster, node, interval
        self.next_id = first_id
        self.rows = []  # (acknowledged at, id, reign)
        self.stopping = False

    def run(self):
        while not self.stopping:
            try:
                with self.cluster.connect(self.node) as client:
                    self.write_on(client)
            except (psycopg.Error, OSError):
                time.sleep(0.01)

    def write_on(self, client):
        query = ("select case when pg_is_in_recovery() then null else "
                 "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end, pg_postmaster_start_time()::text")
        reign = None
        while not self.stopping:
            if reign is None:
                timeline, started = client.execute(query).fetchone()
                if timeline:
                    reign = self.node, timeline, started
            else:
                self.next_id += 1
                client.execute('insert into ledger values (%s)', (self.next_id,), prepare=True)
                self.rows.append((time.monotonic(), self.next_id, reign))
            time.sleep(self.interval)


def inject(cluster, fault, leader):
    """Makes the fault happen; what undoes it."""
    network = cluster.network
    if fault == 'kill_postgres':
        kill(cluster.postmaster_pid(leader), signal.SIGKILL)
    elif fault == 'switchover':
        order = threading.Thread(target=cluster.api, args=(leader, 'switchover', {'leader': leader}, 60), daemon=True)
        order.start()
        return order.join
    elif fault == 'stop_agent':
        kill(cluster.agent_pid(leader), signal.SIGTERM)
        return lambda: cluster.start_again(leader)
    elif fault == 'freeze_agent':
        kill(cluster.agent_pid(leader), signal.SIGSTOP)
        return lambda: kill(cluster.agent_pid(leader), signal.SIGCONT)
    elif fault == 'kill_agent':
        kill(cluster.agent_pid(leader), signal.SIGKILL)
        return lambda: cluster.start_again(leader)
    elif fault == 'kill_node':
        kill(cluster.agent_pid(leader), signal.SIGSTOP)
        while pids := network.pids(leader):
            for pid in pids:
                kill(pid, signal.SIGKILL)
        return lambda: cluster.start_again(leader)
    elif fault == 'partition':
        network.isolate(leader)
        return lambda: network.isolate(leader, 'del')
    return lambda: None


FAULTS = ['kill_postgres', 'switchover', 'stop_agent', 'kill_node', 'freeze_agent', 'kill_agent', 'partition']


def measure(cluster, fault, number, options):
    """One run: what it did to the service."""
    leader = cluster.ready()
    with cluster.connect(leader) as client:
        client.execute('create table if not exists ledger (id bigint primary key)')
    writers = [Writer(cluster, name, (number * 100 + index) * 1_000_000, options.interval)
               for index, name in enumerate(cluster.nodes)]
    for writer in writers:
        writer.start()
    # Faults fall into different phases of the agents' loops.
    time.sleep(3 + number * 1.7 % options.loop_wait)
    start = time.monotonic()
    undo = inject(cluster, fault, leader)
    wait_for_service(writers, leader, start, options)
    # Long enough for a second primary to show.
    time.sleep(options.after)
    end = time.monotonic()
    undo()
    for writer in writers:
        writer.stopping = True
    new_leader = cluster.ready(300)
    healed = time.monotonic() - start
    with cluster.connect(new_leader) as client:
        there = {row[0] for row in client.execute('select id from ledger')}
    rows = sorted(row for writer in writers for row in writer.rows)
    lost = sum(1 for _, identity, _ in rows if identity not in there)
    isolated = max((at for at, _, reign in rows if reign[0] == leader), default=start) - start
    return {'fault': fault, 'outage_s': outage(rows, start, end), 'overlap_s': overlap(rows), 'acknowledged': len(rows),
            'lost': lost, 'old_wrote_for_s': max(isolated, 0.0), 'healed_s': healed}


def wait_for_service(writers, leader, start, options):
    """Until somebody has taken over, or the old primary goes on after an interruption."""
    while time.monotonic() < start + options.limit:
        time.sleep(0.02)
        rows = [row for writer in writers for row in writer.rows[-3:]]
        before = {row[2] for writer in writers for row in writer.rows if row[0] < start}
        if any(row[2] not in before for row in rows):
            return
    # Nobody has: the outage is as long as the run, and that is the figure.


def outage(rows, start, end):
    """The longest time without an acknowledgement that ends after the fault."""
    times = [at for at, _, _ in rows if at < end] + [end]
    return max((b - a for a, b in zip(times, times[1:]) if b >= start), default=end - start)


def overlap(rows):
    """The longest time between the first acknowledgement of a newer reign and the last one of an older."""
    first, last = {}, {}
    for at, _, reign in rows:
        first.setdefault(reign, at)
        last[reign] = at
    worst, until = 0.0, None
    for reign in sorted(first, key=first.get):
        if until is not None:
            worst = max(worst, until - first[reign])
        until = max(until or 0.0, last[reign])
    return worst


def idle(clusters, seconds):
    """What agents that have nothing to do cost, their helpers included and PostgreSQL not: of each cluster, in the same
    time."""
    leaders = {agent: cluster.ready() for agent, cluster in clusters.items()}
    time.sleep(5)
    pids = {(agent, name): helpers(cluster, name) for agent, cluster in clusters.items() for name in cluster.nodes}
    before = {node: sum(cpu_seconds(pid) for pid in pids[node]) for node in pids}
    time.sleep(seconds)
    share = {node: 100 * (sum(cpu_seconds(pid) for pid in pids[node]) - before[node]) / seconds for node in pids}
    results = {}
    for agent, leader in leaders.items():
        others = [node for node in pids if node[0] == agent and node[1] != leader]
        of_leader = pids[agent, leader]
        results[agent] = {'fault': 'idle', 'leader_pss_mib': sum(pss_mib(pid) for pid in of_leader),
                          'leader_cpu_percent': share[agent, leader],
                          'replica_cpu_percent': max((share[node] for node in others), default=0.0),
                          'threads': sum(threads(pid) for pid in of_leader)}
    return results


def helpers(cluster, name):
    """The agent and every process of its program on the node: a guard has the agent's executable."""
    agent = cluster.agent_pid(name)
    program = executable(agent)
    return [pid for pid in cluster.network.pids(name) if pid == agent or executable(pid) == program and not reaper(pid)]


def executable(pid):
    try:
        return os.readlink(f'/proc/{pid}/exe')
    except OSError:
        return None


def reaper(pid):
    with open(f'/proc/{pid}/cmdline') as file:
        return 'reaper.py' in file.read()


def cpu_seconds(pid):
    """All threads, ended ones too, to the nanosecond: the ticks of /proc are as long as an idle agent's second."""
    # The clock of another process, as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED of this pid.
    return time.clock_gettime((~pid << 3) | 2) if alive(pid) else 0.0


def pss_mib(pid):
    with open(f'/proc/{pid}/smaps_rollup') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('Pss:')) / 1024


def threads(pid):
    with open(f'/proc/{pid}/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('Threads:'))
