# The compiled functions have the types of Python's.

from authmilter.octets.python import bare_line_ends as bare_line_ends
from authmilter.octets.python import edit_packet as edit_packet
from authmilter.octets.python import fields_size as fields_size
from authmilter.octets.python import index_fields as index_fields
from authmilter.octets.python import plain_tags as plain_tags
from authmilter.octets.python import read_packets as read_packets
from authmilter.octets.python import relaxed_body as relaxed_body
from authmilter.octets.python import relaxed_field as relaxed_field
from authmilter.octets.python import signed_fields as signed_fields
from authmilter.octets.python import unsigned_value as unsigned_value
