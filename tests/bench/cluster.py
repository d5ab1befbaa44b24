"""A three-node cluster in network namespaces, for any agent that reads Patroni's YAML."""
import glob
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psycopg
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
ACCOUNT = 'postgres'
PASSWORD = 'secret of the superuser'


def run(*words, check=True):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check and done.returncode:
        raise SystemExit(f'{" ".join(words)}: {done.stdout.strip()}')
    return done.stdout


def postgres_bin_dir():
    """The newest installed PostgreSQL."""
    found = glob.glob('/usr/lib/postgresql/*/bin/initdb')
    if found:
        return os.path.dirname(max(found, key=lambda path: int(path.split('/')[4])))
    initdb = shutil.which('initdb') or sys.exit('PostgreSQL is not installed')
    return os.path.dirname(initdb)


class Network:
    """Namespaces behind a bridge. The client is on the bridge and reaches every node whatever is cut between them. Two
    of different numbers can be there at once."""

    def __init__(self, names, number=0):
        self.bridge = f'bench{os.getpid()}{"ab"[number]}'[:15]
        self.prefix = f'10.{96 + 64 * number + os.getpid() // 256 % 64}.{os.getpid() % 256}'
        self.names = {name: f'm{os.getpid()}{"ab"[number]}{name}' for name in names}
        self.ip = {name: f'{self.prefix}.{5 + index}' for index, name in enumerate(names)}

    def up(self):
        run('ip', 'link', 'add', self.bridge, 'type', 'bridge')
        run('ip', 'addr', 'add', f'{self.prefix}.254/24', 'dev', self.bridge)
        run('ip', 'link', 'set', self.bridge, 'up')
        for name, space in self.names.items():
            run('ip', 'netns', 'add', space)
            run('ip', 'link', 'add', f'v{space}', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space)
            run('ip', 'link', 'set', f'v{space}', 'master', self.bridge, 'up')
            run('ip', '-n', space, 'addr', 'add', f'{self.ip[name]}/24', 'dev', 'eth0')
            run('ip', '-n', space, 'link', 'set', 'eth0', 'up')
            run('ip', '-n', space, 'link', 'set', 'lo', 'up')

    def down(self):
        for space in self.names.values():
            run('ip', 'netns', 'del', space, check=False)
            run('ip', 'link', 'del', f'v{space}', check=False)
        run('ip', 'link', 'del', self.bridge, check=False)

    def pids(self, name):
        return [int(pid) for pid in run('ip', 'netns', 'pids', self.names[name], check=False).split() if pid.isdigit()]

    def isolate(self, name, verb='add'):
        """Cuts a node off from every other one and from the store; `verb='del'` mends it."""
        for other in self.names:
            if other != name:
                route = 'route', verb, 'blackhole'
                run('ip', '-n', self.names[name], *route, f'{self.ip[other]}/32', check=False)
                run('ip', '-n', self.names[other], *route, f'{self.ip[name]}/32', check=False)

    def command(self, name, words):
        return ['ip', 'netns', 'exec', self.names[name], *words]


class Cluster:
    def __init__(self, options, agent, directory, number=0):
        self.options, self.agent, self.dir = options, agent, directory
        self.nodes = [f'n{index + 1}' for index in range(options.nodes)]
        self.stores = [f'e{index + 1}' for index in range(options.store_members)]
        self.network = Network(self.nodes + self.stores, number)
        self.store_processes = []
        self.reapers = {}

    def up(self):
        os.makedirs(self.dir)
        shutil.chown(self.dir, ACCOUNT, ACCOUNT)
        self.network.up()
        self.start_stores()
        for name in self.nodes:
            self.start(name)
            if name == self.nodes[0]:
                self.wait('a first leader', 120, self.leader)
        return self.ready()

    def down(self):
        for name in self.nodes:
            while pids := self.network.pids(name):
                for pid in pids:
                    kill(pid, signal.SIGKILL)
                time.sleep(0.05)
        for process in [*self.store_processes, *self.reapers.values()]:
            process.kill()
            process.wait()
        self.network.down()

    def start_stores(self):
        ip = self.network.ip
        cluster = ','.join(f'{name}=http://{ip[name]}:2380' for name in self.stores)
        for name in self.stores:
            client, peer = f'http://{ip[name]}:2379', f'http://{ip[name]}:2380'
            words = ['etcd', '--name', name, '--data-dir', f'{self.dir}/{name}', '--initial-cluster', cluster,
                     '--listen-client-urls', client, '--advertise-client-urls', client,
                     '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer]
            self.store_processes.append(self.spawn(self.network.command(name, words), f'{self.dir}/{name}.log'))

    def spawn(self, words, log):
        environment = {key: value for key, value in os.environ.items() if not key.startswith(('PATRONI', 'PG'))}
        environment.update(PATH=f'{self.options.pgbin}:{environment["PATH"]}', HOME=self.dir)
        with open(log, 'ab') as file:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment,
                                    cwd=self.dir)

    def config(self, name):
        """The same for every agent, but for addresses and paths."""
        ip, options = self.network.ip[name], self.options
        clients = f'{self.network.prefix}.0/24'
        config = {
            'scope': 'bench', 'name': name,
            'restapi': {'listen': f'{ip}:8008', 'connect_address': f'{ip}:8008'},
            'etcd3': {'hosts': [f'{self.network.ip[store]}:2379' for store in self.stores]},
            'bootstrap': {
                'dcs': {
                    'ttl': options.ttl, 'loop_wait': options.loop_wait, 'retry_timeout': options.retry_timeout,
                    'maximum_lag_on_failover': 1048576,
                    'postgresql': {
                        'use_pg_rewind': True, 'use_slots': True,
                        'parameters': {'max_connections': 100, 'wal_keep_size': '512MB', 'shared_buffers': '64MB'},
                    },
                },
                'initdb': [{'encoding': 'UTF8'}, 'data-checksums'],
            },
            'postgresql': {
                'listen': f'{ip}:5432', 'connect_address': f'{ip}:5432', 'data_dir': f'{self.dir}/{name}/data',
                'bin_dir': options.pgbin, 'pgpass': f'{self.dir}/{name}/pgpass',
                'pg_hba': ['local all all trust', f'host replication replicator {clients} md5',
                           f'host all all {clients} md5'],
                'basebackup': [{'checkpoint': 'fast'}],
                'authentication': {
                    'replication': {'username': 'replicator', 'password': 'secret of the replica'},
                    'superuser': {'username': 'postgres', 'password': PASSWORD},
                    'rewind': {'username': 'rewinder', 'password': 'secret of the rewinder'},
                },
                'parameters': {'unix_socket_directories': f'{self.dir}/{name}'},
            },
        }
        merge(config, yaml.safe_load(options.extra) or {})
        return config

    def start(self, name):
        directory = f'{self.dir}/{name}'
        os.makedirs(directory, exist_ok=True)
        shutil.chown(directory, ACCOUNT, ACCOUNT)
        with open(f'{directory}/agent.yml', 'w') as file:
            yaml.safe_dump(self.config(name), file, sort_keys=False)
        pidfile = f'{directory}/agent.pid'
        if os.path.exists(pidfile):
            os.unlink(pidfile)
        account = ['setpriv', f'--reuid={ACCOUNT}', f'--regid={ACCOUNT}', '--init-groups']
        words = [sys.executable, f'{HERE}/reaper.py', pidfile, *account, *self.agent.split(), f'{directory}/agent.yml']
        self.reapers[name] = self.spawn(self.network.command(name, words), f'{directory}/agent.log')
        self.wait(f'the agent of {name}', 10, lambda: os.path.exists(pidfile))

    def start_again(self, name):
        self.wait(f'the end of the old agent of {name}', 60, lambda: not alive(self.agent_pid(name)))
        self.start(name)

    def agent_pid(self, name):
        with open(f'{self.dir}/{name}/agent.pid') as file:
            return int(file.read())

    def postmaster_pid(self, name):
        with open(f'{self.dir}/{name}/data/postmaster.pid') as file:
            return int(file.readline())

    def api(self, name, path, body=None, timeout=2.0):
        """Status and text; 0 if there is no answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f'http://{self.network.ip[name]}:8008/{path}', data=data,
                                         headers={'Content-Type': 'application/json'})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def connect(self, name):
        return psycopg.connect(host=self.network.ip[name], user='postgres', password=PASSWORD, dbname='postgres',
                               connect_timeout=2, autocommit=True, sslmode='disable')

    def leader(self):
        return next((name for name in self.nodes if self.api(name, 'primary')[0] == 200), None)

    def ready(self, limit=180):
        """Waits until one node leads and every other one streams from it; the leader."""
        return self.wait('a whole cluster', limit, self.whole)

    def whole(self):
        leaders = [name for name in self.nodes if self.api(name, 'primary')[0] == 200]
        if len(leaders) != 1:
            return None
        try:
            with self.connect(leaders[0]) as client:
                query = "select count(*) from pg_stat_replication where state = 'streaming' and application_name ~ '^n'"
                return leaders[0] if client.execute(query).fetchone()[0] == len(self.nodes) - 1 else None
        except psycopg.Error:
            return None

    def wait(self, what, limit, condition):
        end = time.monotonic() + limit
        while not (value := condition()):
            if time.monotonic() > end:
                raise SystemExit(f'not within {limit} s: {what}; logs are in {self.dir}')
            time.sleep(0.05)
        return value


def alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def merge(under, over):
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            merge(under[key], value)
        else:
            under[key] = value


def check_account():
    try:
        pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise SystemExit(f'there is no account {ACCOUNT}: install PostgreSQL') from None
