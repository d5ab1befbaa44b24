"""What a validator says of each text by a schema, as JSON: null if it takes it."""
import json
import sys

from jsonschema import Draft202012Validator

asked = json.load(sys.stdin)
Draft202012Validator.check_schema(asked['schema'])
validator = Draft202012Validator(asked['schema'])
print(json.dumps([next((error.message for error in validator.iter_errors(text)), None) for text in asked['texts']]))
