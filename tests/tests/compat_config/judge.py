"""What Patroni makes of a configuration, as JSON: PATH (or - for the environment alone)."""
import copy
import json
import sys

from patroni.config import Config

path = sys.argv[1] if sys.argv[1] != '-' else ''
config = Config(path, None)
local = config.local_configuration
config.set_dynamic_configuration(copy.deepcopy(local.get('bootstrap', {}).get('dcs', {})))
postgresql = config['postgresql']


def text(value):
    return {True: 'on', False: 'off'}[value] if isinstance(value, bool) else str(value)


print(json.dumps({
    'local': local,
    'scope': config['scope'],
    'name': config['name'],
    'namespace': config.get('namespace'),
    'restapi': {key: config['restapi'].get(key) for key in ('listen', 'connect_address', 'auth')},
    'timings': {key: config[key] for key in ('ttl', 'loop_wait', 'retry_timeout')},
    'tags': config.get('tags', {}),
    'data_dir': postgresql['data_dir'],
    'use_pg_rewind': postgresql.get('use_pg_rewind', False),
    'use_slots': postgresql['use_slots'],
    'pg_hba': postgresql.get('pg_hba'),
    'authentication': postgresql['authentication'],
    'parameters': {name.lower(): text(value) for name, value in postgresql['parameters'].items()},
}))
