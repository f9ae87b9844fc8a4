"""What can be wrong with a row, and why a row is dropped on purpose.

Both lists are append-only; a number is never reused. A `Fault` is something the input did wrong (or
something we cannot read yet); a `Skip` is a row we chose not to take further.
"""

from __future__ import annotations

from enum import IntEnum


class Fault(IntEnum):
    """Numbers that kernels write into a fault column; 0 is a good row."""

    NONE = 0
    FILE_NOT_RECOGNISED = 1
    FILE_TRUNCATED = 2  # ends inside a header or a packet
    RECORD_HEADER_BAD = 3  # a length that cannot be; the rest of the file is not read
    LINK_TYPE_UNKNOWN = 4
    PACKET_TRUNCATED = 5  # captured less than a header it announces
    ETHERTYPE_UNKNOWN = 6
    IP_HEADER_BAD = 7
    IP_LENGTH_BAD = 8
    TCP_HEADER_BAD = 9
    UDP_HEADER_BAD = 10
    FRAGMENT = 11  # an IP packet whose other fragments never came
    ENCAPSULATION_UNKNOWN = 12
    NESTING_TOO_DEEP = 13
    HELLO_BAD = 14
    HELLO_TOO_LONG = 15
    HELLO_INCOMPLETE = 16  # time, segments or the input ran out
    SEGMENTS_EXHAUSTED = 17  # no room to hold another segment
    FLOWS_EXHAUSTED = 18  # the oldest flow was evicted
    SNI_BAD = 19
    HOST_BAD = 20
    HEAD_TOO_LONG = 21
    HEAD_INCOMPLETE = 22
    HEAD_BAD = 23
    PAYLOAD_CUT = 24  # the snaplen cut the payload we needed
    OVERLAP_DISAGREES = 25
    ROW_MALFORMED = 26
    TIME_BAD = 27
    ADDRESS_BAD = 28
    STATE_UNKNOWN = 29
    LOGIN_MISSING = 30
    SECTION_UNSUPPORTED = 31  # a pcapng section of another major version
    LATE_FACT = 32  # a sign-in or basis change older than what it would change
    STREAM_GAP = 33  # bytes at the place of a hello or head never came
    COMPRESSION_BAD = 34  # gzip or zstd that contradicts itself; the rest is not read
    COMPRESSION_NESTED = 35  # compressed twice
    BLOCK_BAD = 36  # a pcapng block that contradicts itself; it alone is passed over
    INTERFACE_UNKNOWN = 37  # a packet of an interface that nothing describes
    TIME_MISSING = 38  # a packet without a time of its own; it gets that of the one before
    PROTOCOL_UNKNOWN = 39  # an IP protocol that we know nothing of
    QUIC_BAD = 40  # lengths of a QUIC packet or of a frame in it that do not add up
    QUIC_SEALED = 41  # an Initial that the client's keys do not open, as far as we know them
    FRAGMENT_OVERLAP = 42  # of a packet whose fragments contradict each other
    FRAGMENTS_EXHAUSTED = 43  # no room to keep another fragment
    HEADS_EXHAUSTED = 44  # more of HTTP/2 than may be opened for so few packets
    NAMES_EXHAUSTED = 45  # more names of a flow, or of all, than are remembered


class Skip(IntEnum):
    """Rows not taken further, by choice."""

    NOT_IP = 1
    NOT_TCP_OR_UDP = 2
    UDP = 3  # neither QUIC nor anything else that is read
    NO_PAYLOAD = 4
    OUTSIDE = 5  # bound, but not in the parse set
    UNBOUND = 6  # a subscriber's address nobody is bound to
    NOT_SUBSCRIBER = 7  # not the client's side
    FLOW_DONE = 8  # its name is known, or it will never have one
    QUIC_UNREAD = 9  # says nothing of the client's hello, or is of a version nobody knows
    HELD = 10  # kept for a hello or head that is not whole
    NO_NAME = 11  # a hello without a server name, a request without a host
    NAME_OF_NOBODY = 12  # matched no partner and no tracker: counted and forgotten
    TRACKER = 13  # remembered as a class and a time
    OUTSIDER_SIGN_IN = 14
    UNCHANGED = 15  # an interim sign-in that says nothing new
    NOT_OPENED = 16  # a session of a visit that is counted, not written
    NOT_A_CLIENT = 17  # bytes from the server
    OTHER_PROTOCOL = 18  # TCP payload that is neither a hello nor a request head
    PARTNER_NOT_LIVE = 19
    PASSED = 20  # bytes that nobody waits for: a request's body, or sent again
    FRAGMENT_HELD = 21  # kept until the rest of its IP packet comes
    NAME_HIDDEN = 22  # the name is one behind which others hide
    NAME_ANSWER = 23  # a DNS answer to somebody who may be read
    NAME_WEAK = 24  # a name from DNS answers only
    VISIT_AGAIN = 25  # of a visit that was decided before it opened: its packets came again
