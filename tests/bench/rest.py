#!/usr/bin/env python3
"""REST API and command line of Matriarch and of Patroni, on like clusters and one machine, one after the other: requests
a second and their times, the worst answer while PostgreSQL is frozen, `list`, start-up, size, memory. Quote the ratios:
the figures are the machine's. Use `tests/bench/run rest`, which brings what this needs.
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--agent', nargs='+', choices=['matriarch', 'patroni'], default=['patroni', 'matriarch'])
    parser.add_argument('--sample', type=int, default=3000, help='requests of each measurement of Patroni (default: 3000)')
    parser.add_argument('--requests', type=int, default=1_000_000,
                        help="requests over which Matriarch's memory is watched (default: a million)")
    parser.add_argument('--frozen-seconds', type=float, default=12)
    parser.add_argument('--pgbin', default=None, help="directory of PostgreSQL's binaries (default: the newest)")
    parser.add_argument('--matriarch', default=f'{ROOT}/target/release/matriarch', help='its binary')
    parser.add_argument('--patroni', default=f'{os.path.dirname(sys.executable)}/patroni', help='its script')
    # What the cluster is made of.
    parser.set_defaults(nodes=3, store_members=1, ttl=30, loop_wait=10, retry_timeout=10, extra='{}')
    return parser.parse_args()


def main():
    options = parse()
    from cluster import Cluster, check_account, postgres_bin_dir
    check_account()
    options.pgbin = options.pgbin or postgres_bin_dir()
    directory = tempfile.mkdtemp(prefix='matriarch-bench-')
    os.chmod(directory, 0o755)
    load = f'{directory}/rest_load'
    subprocess.run(['rustc', '--edition', '2024', '-O', '-o', load, f'{HERE}/rest_load.rs'], check=True)
    results = {}
    for number, agent in enumerate(options.agent):
        program = options.patroni
        if agent == 'matriarch':
            # The account of the agents may not be able to look into the checkout.
            program = shutil.copy(options.matriarch, directory) + ' run'
        cluster = Cluster(options, program, f'{directory}/cluster-of-{agent}', number)
        try:
            cluster.up()
            results[agent] = measure(cluster, agent, load, options)
        finally:
            cluster.down()
        print(agent, json.dumps(results[agent], indent=1), flush=True)
    print(json.dumps(results))
    shutil.rmtree(directory)


def measure(cluster, agent, load, options):
    leader = cluster.ready()
    standby = next(name for name in cluster.nodes if name != leader)
    ours = agent == 'matriarch'
    result = {'leader_memory_kib': memory(cluster.agent_pid(leader))}
    # Patroni speaks HTTP/1.0: each request has a connection of its own.
    for mode in ['close', 'keep'] if ours else ['close']:
        for connections in (1, 16):
            count = options.sample * (10 if ours else 1)
            result[f'primary_{mode}_{connections}'] = asked(cluster, leader, load, connections, count, mode)
    if ours:
        before = memory(cluster.agent_pid(leader))
        asked(cluster, leader, load, 16, options.requests, 'keep')
        result['memory_kib_over_requests'] = [before, memory(cluster.agent_pid(leader))]
    result['list_s'] = listing(cluster, agent, options)
    result['start_ms'] = started(cluster, standby)
    cluster.ready()
    result['frozen_standby_worst_ms'] = frozen(cluster, standby, ['replica', 'health', 'liveness'], options)
    cluster.ready()
    result['frozen_leader_worst_ms'] = frozen(cluster, leader, ['primary', 'health', 'liveness'], options)
    if ours:
        result['binary_mib'] = round(os.path.getsize(options.matriarch) / 2**20, 2)
    return result


def asked(cluster, name, load, connections, count, mode):
    words = [load, f'{cluster.network.ip[name]}:8008', '/primary', str(connections), str(count), mode]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def memory(pid):
    with open(f'/proc/{pid}/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('VmRSS'))


def listing(cluster, agent, options, runs=10):
    """The median time of a `list`."""
    config = f'{cluster.dir}/ctl.yml'
    with open(config, 'w') as file:
        json.dump({'scope': 'bench', 'etcd3': {'hosts': [f'{cluster.network.ip[cluster.stores[0]]}:2379']}}, file)
    program = options.matriarch if agent == 'matriarch' else options.patroni + 'ctl'
    times = []
    for _ in range(runs):
        begin = time.monotonic()
        done = subprocess.run([program, '-c', config, 'list'], check=True, capture_output=True, text=True)
        times.append(time.monotonic() - begin)
        assert done.stdout.count('running') + done.stdout.count('streaming') == len(cluster.nodes), done.stdout
    return round(statistics.median(times), 4)


def started(cluster, name, runs=5):
    """The median time from the execution of an agent beside a running standby to its first answer, in milliseconds."""
    account = ['setpriv', '--reuid=postgres', '--regid=postgres', '--init-groups']
    times = []
    for _ in range(runs):
        old = cluster.agent_pid(name)
        os.kill(old, signal.SIGKILL)
        cluster.wait('the end of the agent', 10, lambda old=old: not os.path.exists(f'/proc/{old}'))
        words = cluster.network.command(name, [*account, *cluster.agent.split(), f'{cluster.dir}/{name}/agent.yml'])
        begin = time.monotonic()
        process = cluster.spawn(words, f'{cluster.dir}/{name}/agent.log')
        # Where it ends, its zombie would be waited for.
        threading.Thread(target=process.wait, daemon=True).start()
        while cluster.api(name, 'liveness')[0] == 0:
            time.sleep(0.001)
        times.append((time.monotonic() - begin) * 1000)
        with open(f'{cluster.dir}/{name}/agent.pid', 'w') as file:
            file.write(str(process.pid))
        cluster.ready()
    return round(statistics.median(times), 1)


def frozen(cluster, name, paths, options):
    """The worst time of an answer of each path while every process of the node's PostgreSQL stands still. One that is
    as long as that came only afterwards."""
    import psutil
    postmaster = psutil.Process(cluster.postmaster_pid(name))
    end = time.monotonic() + options.frozen_seconds
    worst = {}

    def ask(path):
        times, statuses = [], set()
        while time.monotonic() < end:
            begin = time.monotonic()
            statuses.add(cluster.api(name, path, timeout=60)[0])
            times.append(time.monotonic() - begin)
            time.sleep(0.01)
        worst[path] = {'worst_ms': round(max(times) * 1000, 1), 'statuses': sorted(statuses), 'answers': len(times)}

    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.suspend()
    threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
    try:
        for thread in threads:
            thread.start()
        time.sleep(max(0, end - time.monotonic()))
    finally:
        for process in processes:
            try:
                process.resume()
            except psutil.NoSuchProcess:
                pass
    # Whoever waits still is answered now, or was not at all.
    for thread in threads:
        thread.join()
    return worst


if __name__ == '__main__':
    main()
