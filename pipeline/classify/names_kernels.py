"""Host names as they stand in a Host header, a request target or a server name extension.

`clean_host` takes off what is not the name: white space, brackets of an IPv6 literal, a port,
trailing dots; and says what is left: nothing, a name (letters, digits, `-`, `_`; labels of 1 to 63,
253 in all), an address literal, or neither. The text stays where it is; letters become lower case
when they are copied out. Underscores are no host name characters (RFC 952) and occur in the wild.

With an encrypted client hello (RFC 9849) the name that can be read is a provider's `public_name`,
one for all of its customers. That a hello has the extension says nothing, as browsers send it
without meaning it (GREASE); so the names are listed, and whoever calls one of them is known to
call somebody unknown.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.bytes import is_digit, lower
from pipeline.kernels.compile import primitive, routine
from pipeline.kernels.hashing import mix64

U64 = np.uint64
I64 = np.int64
FNV_PRIME = U64(0x100000001B3)
NAME_BYTES_MAX, LABEL_BYTES_MAX = 253, 63

# The public names in use: Cloudflare's, and those of two test services.
OUTER_NAMES = np.frombuffer(
    b"cloudflare-ech.com\ncover.defo.ie\ndefo.ie\npublic.tls-ech.dev\ntls-ech.dev\n", np.uint8
)

# What `clean_host` says.
HOST_NONE, HOST_NAME, HOST_ADDRESS, HOST_INVALID = 0, 1, 2, 3


@primitive
def _is_space(letter):
    return letter == 32 or 9 <= letter <= 13


@routine
def clean_host(data, start, stop):
    """(what it is, where the cleaned text starts, where it stops) of `data[start:stop]`."""
    while start < stop and _is_space(I64(data[start])):
        start += 1
    while stop > start and _is_space(I64(data[stop - 1])):
        stop -= 1
    if start < stop and data[start] == 91:  # an opening bracket
        start += 1
        for at in range(start, stop):
            if data[at] == 93:
                stop = at
                break
    else:
        stop = _without_port(data, start, stop)
    while stop > start and data[stop - 1] == 46:
        stop -= 1
    if start == stop:
        return HOST_NONE, start, stop
    if _is_ipv4(data, start, stop) or _is_ipv6(data, start, stop):
        return HOST_ADDRESS, start, stop
    if _is_name(data, start, stop):
        return HOST_NAME, start, stop
    return HOST_INVALID, start, stop


@primitive
def _without_port(data, start, stop):
    """Where the text stops without a single colon and digits after it."""
    at = stop
    while at > start and is_digit(I64(data[at - 1])):
        at -= 1
    if at == start or data[at - 1] != 58:
        return stop
    for i in range(start, at - 1):
        if data[i] == 58:
            return stop
    return at - 1


@primitive
def _is_name(data, start, stop):
    """Is it made of labels of letters, digits, hyphens and underscores?"""
    if stop - start > NAME_BYTES_MAX:
        return False
    label = 0
    for at in range(start, stop):
        letter = lower(I64(data[at]))
        if letter == 46:
            if label == 0:
                return False
            label = 0
        elif is_digit(letter) or 97 <= letter <= 122 or letter == 45 or letter == 95:
            label += 1
            if label > LABEL_BYTES_MAX:
                return False
        else:
            return False
    return label > 0


@primitive
def _is_ipv4(data, start, stop):
    """Is it four decimal numbers up to 255 with dots between?"""
    numbers = 0
    digits = 0
    value = 0
    for at in range(start, stop):
        letter = I64(data[at])
        if is_digit(letter):
            value = value * 10 + letter - 48
            digits += 1
            if digits > 3 or value > 255:
                return False
        elif letter == 46 and digits > 0:
            numbers += 1
            digits = 0
            value = 0
        else:
            return False
    return numbers == 3 and digits > 0


@primitive
def _is_ipv6(data, start, stop):
    """Is it hexadecimal digits, dots and at least two colons? (Enough to tell it from a name.)"""
    colons = 0
    for at in range(start, stop):
        letter = lower(I64(data[at]))
        if letter == 58:
            colons += 1
        elif not (is_digit(letter) or 97 <= letter <= 102 or letter == 46):
            return False
    return colons >= 2 and stop - start <= 45


@routine
def name_hash(key0, key1, protocol, data, start, stop):
    """A keyed 64-bit hash of a name that a protocol gives, in lower case, never 0, the same within
    a process.
    """
    found = mix64(key0 + U64(protocol))
    for at in range(start, stop):
        found = (found ^ U64(lower(I64(data[at])))) * FNV_PRIME
    return mix64(found ^ key1) | U64(1)


@routine
def copy_lower(source, start, stop, target, at):
    """Copy `source[start:stop]` in lower case to `target[at:]`."""
    for i in range(stop - start):
        target[at + i] = lower(I64(source[start + i]))


@routine
def is_outer_name(data, start, stop):
    """Is a name, in lower case, one behind which others hide?"""
    at = start
    for i in range(len(OUTER_NAMES)):
        letter = OUTER_NAMES[i]
        if letter == 10:
            if at == stop:
                return True
            at = start
        elif at >= 0:
            at = at + 1 if at < stop and data[at] == letter else I64(-1)
    return False
