#!/usr/bin/env python3
"""The failover benchmark: the same faults, on the same YAML and machine, for Matriarch and for Patroni in turn, or, where
both are idle, side by side (--beside).

A writer on each node commits a row every few milliseconds whenever its node lets it. Outage is the longest time without an
acknowledgement from the fault on; overlap the time from a new primary's first acknowledgement to the old one's last; lost
the acknowledged rows that are not there when the cluster is whole again. Use tests/bench/run, which brings what this needs.
"""
import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--agent', nargs='+', choices=['matriarch', 'patroni'], default=['matriarch', 'patroni'])
    parser.add_argument('--scenario', nargs='+', metavar='FAULT', default=None,
                        help='kill_postgres switchover stop_agent kill_node freeze_agent kill_agent partition idle '
                             '(default: all)')
    parser.add_argument('--runs', type=int, default=5, help='of each fault, and of idle (default: 5)')
    parser.add_argument('--beside', action='store_true',
                        help='both clusters at the same time, so that the machine is the same for both: for idle alone')
    parser.add_argument('--nodes', type=int, default=3)
    parser.add_argument('--store-members', type=int, default=1, help='etcd members (default: 1)')
    parser.add_argument('--ttl', type=int, default=30)
    parser.add_argument('--loop-wait', type=int, default=10)
    parser.add_argument('--retry-timeout', type=int, default=10)
    parser.add_argument('--interval', type=float, default=0.01, help='seconds between two rows of a writer')
    parser.add_argument('--limit', type=float, default=120, help='seconds to wait for a new primary')
    parser.add_argument('--after', type=float, default=3, help='seconds to go on after it, for a second one to show')
    parser.add_argument('--idle-seconds', type=float, default=60)
    parser.add_argument('--extra', default='{}', help="YAML laid over every node's configuration")
    parser.add_argument('--pgbin', default=None, help="directory of PostgreSQL's binaries (default: the newest)")
    parser.add_argument('--matriarch', default=f'{ROOT}/target/release/matriarch', help='its binary')
    parser.add_argument('--patroni', default=f'{os.path.dirname(sys.executable)}/patroni', help='its script')
    parser.add_argument('--json', metavar='FILE', help='write every run to this file too')
    return parser.parse_args()


def main():
    options = parse()
    # Not before --help has been answered: the system's python has neither.
    from cluster import Cluster, check_account, postgres_bin_dir
    from measure import FAULTS, idle, measure
    check_account()
    options.pgbin = options.pgbin or postgres_bin_dir()
    scenarios = options.scenario or [*FAULTS, 'idle']
    if unknown := set(scenarios) - {*FAULTS, 'idle'}:
        raise SystemExit(f'no such fault: {", ".join(sorted(unknown))}')
    if options.beside and scenarios != ['idle']:
        raise SystemExit('--beside is for --scenario idle alone: a fault of one cluster would disturb the other')
    results = []
    directory = tempfile.mkdtemp(prefix='matriarch-bench-')
    os.chmod(directory, 0o755)
    agents = list(dict.fromkeys(options.agent))
    for together in [agents] if options.beside else [[agent] for agent in agents]:
        clusters = {}
        for number, agent in enumerate(together):
            program = program_of(agent, options, directory)
            clusters[agent] = Cluster(options, program, f'{directory}/cluster-of-{agent}', number)
        try:
            for cluster in clusters.values():
                cluster.up()
            number = 0
            for scenario in scenarios:
                for _ in range(options.runs):
                    number += 1
                    measured = idle(clusters, options.idle_seconds) if scenario == 'idle' else \
                        {agent: measure(cluster, scenario, number, options) for agent, cluster in clusters.items()}
                    for agent, result in measured.items():
                        results.append({'agent': agent, **{k: round(v, 4) if isinstance(v, float) else v
                                                           for k, v in result.items()}})
                        print(json.dumps(results[-1]), flush=True)
        finally:
            for cluster in clusters.values():
                cluster.down()
    summary = summarise(results)
    print(table(summary, options))
    print(json.dumps(summary))
    if options.json:
        with open(options.json, 'w') as file:
            json.dump({'options': vars(options), 'summary': summary, 'runs': results}, file, indent=1)
    shutil.rmtree(directory)


def program_of(agent, options, directory):
    program = getattr(options, agent)
    # The account of the agents may not be able to look into the checkout.
    return shutil.copy(program, directory) + ' run' if agent == 'matriarch' else program


def idle_figures(runs):
    """Medians; of the shares of a core the least and the greatest too."""
    figures = {key: statistics.median(run[key] for run in runs) for key in ('leader_pss_mib', 'threads')}
    for key in ('leader_cpu_percent', 'replica_cpu_percent'):
        shares = [run[key] for run in runs]
        figures |= {key: round(statistics.median(shares), 4), f'{key}_min': min(shares), f'{key}_max': max(shares)}
    return {**figures, 'runs': len(runs)}


def summarise(results):
    """For each fault the medians of each agent, and how many times longer Patroni's outage is."""
    summary = {}
    for fault in dict.fromkeys(result['fault'] for result in results):
        row = summary[fault] = {}
        for agent in dict.fromkeys(result['agent'] for result in results):
            runs = [result for result in results if (result['fault'], result['agent']) == (fault, agent)]
            if runs and fault == 'idle':
                row[agent] = idle_figures(runs)
            elif runs:
                outages = [run['outage_s'] for run in runs]
                row[agent] = {'outage_median_s': round(statistics.median(outages), 3), 'outage_min_s': min(outages),
                              'outage_max_s': max(outages), 'overlap_max_s': max(run['overlap_s'] for run in runs),
                              'lost_max': max(run['lost'] for run in runs), 'runs': len(runs)}
        # Where two nodes acknowledged at once there is no outage to compare.
        if fault != 'idle' and len(row) == 2 and not any(figures['overlap_max_s'] for figures in row.values()):
            row['ratio'] = round(row['patroni']['outage_median_s'] / row['matriarch']['outage_median_s'], 1)
    return summary


def table(summary, options):
    lines = [f'ttl {options.ttl}, loop_wait {options.loop_wait}, retry_timeout {options.retry_timeout}, '
             f'{options.nodes} nodes, {options.store_members} etcd member(s)', '',
             f'{"fault":<14} {"agent":<10} {"outage s: median":>16} {"min":>7} {"max":>7} '
             f'{"overlap s":>10} {"lost":>6} {"ratio":>6}']
    for fault, row in summary.items():
        for agent in (name for name in row if name != 'ratio'):
            figures = row[agent]
            if fault == 'idle':
                shares = ', '.join(
                    f'{who} {figures[f"{key}_cpu_percent"]:.3f} % of a core '
                    f'({figures[f"{key}_cpu_percent_min"]:.3f} to {figures[f"{key}_cpu_percent_max"]:.3f})'
                    for who, key in (('leader', 'leader'), ('standby', 'replica')))
                lines.append(f'{fault:<14} {agent:<10} {figures["leader_pss_mib"]:.1f} MiB PSS, '
                             f'{figures["threads"]:.0f} threads, {shares}, {figures["runs"]} run(s)')
                continue
            ratio = row.get('ratio', '') if agent == 'patroni' else ''
            lines.append(f'{fault:<14} {agent:<10} {figures["outage_median_s"]:>16.3f} {figures["outage_min_s"]:>7.3f} '
                         f'{figures["outage_max_s"]:>7.3f} {figures["overlap_max_s"]:>10.3f} {figures["lost_max"]:>6} '
                         f'{ratio:>6}')
    return '\n'.join(['', *lines, ''])


if __name__ == '__main__':
    main()
