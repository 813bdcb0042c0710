# The compiled functions have the types of Python's.

from authmilter.octets.python import base64_octets as base64_octets
from authmilter.octets.python import body_piece as body_piece
from authmilter.octets.python import edit_packet as edit_packet
from authmilter.octets.python import fields_size as fields_size
from authmilter.octets.python import index_fields as index_fields
from authmilter.octets.python import line_ends as line_ends
from authmilter.octets.python import plain_tags as plain_tags
from authmilter.octets.python import read_packets as read_packets
from authmilter.octets.python import relaxed_field as relaxed_field
from authmilter.octets.python import signed_data as signed_data
from authmilter.octets.python import unsigned_value as unsigned_value
