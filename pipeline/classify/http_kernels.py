"""HTTP/1 request heads and the framing of request bodies (RFC 9110, 9112).

    method SP target SP HTTP/1.x CRLF      name ":" value CRLF ...      CRLF

A head is whole when its empty line is there. A bare line feed ends a line too, empty lines before a
head are passed over (RFC 9112, 2.2), unknown methods are methods. What the body is, the head says:
`Content-Length`, or chunks, whose own framing is read so that no body can pass for a request; two
lengths that disagree leave it unknown. A folded Host is kept with its line end, and so is no name.
An `Upgrade` is noted: where the server takes it, what follows is of another protocol (RFC 9110,
7.8), and only that it is no request head tells so to who sees one direction.

Of the values only the places of Host, target and Referer are noted. Cookies are not even looked at.
"""

from __future__ import annotations

import numpy as np

from pipeline.classify.names_kernels import HOST_INVALID, HOST_NONE, clean_host
from pipeline.classify.tls_kernels import BAD, NEVER, NOT_YET, WHOLE
from pipeline.kernels.bytes import holds_letters, is_digit, lower, same_letters, same_text
from pipeline.kernels.compile import primitive, routine
from pipeline.model.words import Method

I64 = np.int64
METHOD_BYTES_MAX = 20
CHUNK_LINE_BYTES_MAX = 256
LENGTH_DIGITS_MAX = 15

# `body_length` without a length, and with one that cannot be believed.
NO_LENGTH, BAD_LENGTH = -1, -2
# `accepts`: no Accept header, one without text/html, one with.
NO_ACCEPT, OTHER_ACCEPT, HTML_ACCEPT = 0, 1, 2


def _word(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


HOST, ACCEPT, REFERER, PURPOSE = _word("host"), _word("accept"), _word("referer"), _word("purpose")
UPGRADE = _word("upgrade")
SEC_PURPOSE, X_MOZ = _word("sec-purpose"), _word("x-moz")
SEC_FETCH_DEST, X_REQUESTED_WITH = _word("sec-fetch-dest"), _word("x-requested-with")
CONTENT_LENGTH, TRANSFER_ENCODING = _word("content-length"), _word("transfer-encoding")
IDENTITY = _word("identity")
NOT_FOUND_OUT = -1  # what the first Host names
CHUNKED_WORD, TEXT_HTML, A_DOCUMENT = _word("chunked"), _word("text/html"), _word("document")
PREFETCH, PRERENDER, HTTP_1 = _word("prefetch"), _word("prerender"), _word(" http/1.")
METHODS = {m: _word(m.name.lower()) for m in Method if m not in (Method.NONE, Method.OTHER)}
GET, HEAD, POST, PUT = (METHODS[m] for m in (Method.GET, Method.HEAD, Method.POST, Method.PUT))
DELETE, OPTIONS = METHODS[Method.DELETE], METHODS[Method.OPTIONS]
CONNECT, PATCH = METHODS[Method.CONNECT], METHODS[Method.PATCH]
IS_GET, IS_CONNECT, IS_OTHER = int(Method.GET), int(Method.CONNECT), int(Method.OTHER)
IS_HEAD, IS_POST, IS_PUT = int(Method.HEAD), int(Method.POST), int(Method.PUT)
IS_DELETE, IS_OPTIONS, IS_PATCH = int(Method.DELETE), int(Method.OPTIONS), int(Method.PATCH)

# Endings of what a page loads, after the dot; searched for in this text, each between two spaces.
PARTS_OF_PAGES = _word(
    " js mjs css map json xml txt png jpg jpeg gif svg ico webp avif bmp woff woff2 ttf otf eot "
    "mp3 mp4 "
    "m4a m4s m4v webm ogg ts m3u8 mpd wasm zip gz apk exe msi bin dat pdf swf crl crt "
)
ENDING_BYTES_MAX = 5


@routine
def starts_head(data, start, stop):
    """Could a request head start here: capital letters and then a space, as far as seen?"""
    at = start
    while at < stop and (data[at] == 13 or data[at] == 10) and at < start + 4:
        at += 1
    if at == stop:
        return at > start
    first = at
    while at < stop:
        letter = data[at]
        if letter == 32:
            return at >= first + 3 and (at + 1 == stop or data[at + 1] >= 32)
        if not (65 <= letter <= 90 or letter == 45 or letter == 95):
            return False
        at += 1
        if at - first > METHOD_BYTES_MAX:
            return False
    return True


@primitive
def _line_feed(data, at, stop):
    """Where the next line feed is, or `stop`."""
    while at < stop and data[at] != 10:
        at += 1
    return at


@primitive
def _text_stop(data, at, line_feed):
    """Where the text of a line ends, without its carriage return."""
    if line_feed > at and data[line_feed - 1] == 13:
        return line_feed - 1
    return line_feed


@routine
def read_head(data, start, stop, head):
    """Read the request head that starts at `start`: WHOLE, NOT_YET or NEVER."""
    if not starts_head(data, start, stop):
        return NEVER
    head.host_at = head.host_stop = head.authority_at = head.authority_stop = 0
    head.referer_at = head.referer_stop = head.disagrees = head.document = 0
    head.chunked = head.accepts = head.not_document = head.upgrades = 0
    head.body_length = NO_LENGTH
    at = start
    while at < stop and (data[at] == 13 or data[at] == 10):
        at += 1
    line_feed = _line_feed(data, at, stop)
    if line_feed == stop:
        return NOT_YET
    if not _read_request_line(data, at, _text_stop(data, at, line_feed), head):
        return NEVER
    in_host = False
    while True:
        at = line_feed + 1
        line_feed = _line_feed(data, at, stop)
        if line_feed == stop:
            return NOT_YET
        text_stop = _text_stop(data, at, line_feed)
        if text_stop == at:
            break
        if data[at] == 32 or data[at] == 9:  # folded: belongs to the line above
            if in_host:
                head.host_stop = text_stop
            continue
        in_host = _read_field(data, at, text_stop, head)
    head.stop = line_feed + 1
    if head.method == IS_GET and head.not_document == 0 and head.accepts != OTHER_ACCEPT:
        accepts = head.accepts == HTML_ACCEPT
        head.document = accepts or not _is_part_of_page(data, head.target_at, head.target_stop)
    return WHOLE


@routine
def _read_request_line(data, at, stop, head):
    """Method, target and authority of a request line; False where it is none of HTTP/1."""
    if stop - at < 13 or not same_letters(data, stop - 9, stop - 1, HTTP_1):
        return False
    if not is_digit(I64(data[stop - 1])):
        return False
    space = at
    while data[space] != 32:
        space += 1
    head.method = _method(data, at, space)
    at, stop = space + 1, stop - 9
    while at < stop and data[at] == 32:
        at += 1
    while stop > at and data[stop - 1] == 32:
        stop -= 1
    if at >= stop:
        return False
    for i in range(at, stop):
        if data[i] < 32:
            return False
    head.target_at, head.target_stop = at, stop
    if head.method == IS_CONNECT:
        head.authority_at, head.authority_stop = at, stop
    else:
        _read_authority(data, at, stop, head)
    return True


@routine
def _method(data, start, stop):
    length = stop - start
    if length == 3:
        if same_letters(data, start, stop, GET):
            return IS_GET
        return IS_PUT if same_letters(data, start, stop, PUT) else IS_OTHER
    if length == 4:
        if same_letters(data, start, stop, POST):
            return IS_POST
        return IS_HEAD if same_letters(data, start, stop, HEAD) else IS_OTHER
    if same_letters(data, start, stop, DELETE):
        return IS_DELETE
    if same_letters(data, start, stop, OPTIONS):
        return IS_OPTIONS
    if same_letters(data, start, stop, CONNECT):
        return IS_CONNECT
    return IS_PATCH if same_letters(data, start, stop, PATCH) else IS_OTHER


@routine
def _read_authority(data, at, stop, head):
    """Note the authority of an absolute-form target (`http://user@host:port/...`), if it is one."""
    colon = at
    while colon < stop and 97 <= lower(I64(data[colon])) <= 122:
        colon += 1
    if colon == at or colon + 3 > stop:
        return
    if data[colon] != 58 or data[colon + 1] != 47 or data[colon + 2] != 47:
        return
    at = colon + 3
    end = at
    while end < stop and data[end] != 47 and data[end] != 63 and data[end] != 35:
        if data[end] == 64:
            at = end + 1
        end += 1
    head.authority_at, head.authority_stop = at, end


@routine
def _read_field(data, at, stop, head):
    """Note what a header field says, where it matters; was it the (first) Host?"""
    colon = at
    while colon < stop and data[colon] != 58:
        colon += 1
    if colon == stop:
        return False
    name_stop = colon
    while name_stop > at and data[name_stop - 1] <= 32:
        name_stop -= 1
    start = colon + 1
    while start < stop and (data[start] == 32 or data[start] == 9):
        start += 1
    while stop > start and (data[stop - 1] == 32 or data[stop - 1] == 9):
        stop -= 1
    length = name_stop - at
    if length == 4 and same_letters(data, at, name_stop, HOST):
        return _read_host(data, start, stop, head)
    if length == 6 and same_letters(data, at, name_stop, ACCEPT):
        if holds_letters(data, start, stop, TEXT_HTML):
            head.accepts = HTML_ACCEPT
        elif head.accepts == NO_ACCEPT:
            head.accepts = OTHER_ACCEPT
    elif length == 7 and same_letters(data, at, name_stop, REFERER):
        head.referer_at, head.referer_stop = start, stop
    elif length == 7 and same_letters(data, at, name_stop, UPGRADE):
        head.upgrades = 1
    elif length == 14 and same_letters(data, at, name_stop, CONTENT_LENGTH):
        _read_length(data, start, stop, head)
    elif length == 17 and same_letters(data, at, name_stop, TRANSFER_ENCODING):
        if holds_letters(data, start, stop, CHUNKED_WORD):
            head.chunked = 1
        elif not same_letters(data, start, stop, IDENTITY):  # is none (RFC 2616, 3.6)
            head.body_length = BAD_LENGTH
    elif _rules_out_document(data, at, name_stop, start, stop):
        head.not_document = 1
    return False


@routine
def _read_host(data, start, stop, head):
    """Note a Host: the first that names anything counts, unless a later one names another.

    What the first names is found out once, or many more would cost the square of their number.
    """
    if head.disagrees == 1:
        return False
    if head.host_at > 0 and head.host_kind == NOT_FOUND_OUT:
        head.host_kind, head.clean_at, head.clean_stop = clean_host(
            data, head.host_at, head.host_stop
        )
    if head.host_at == 0 or head.host_kind == HOST_NONE:
        head.host_at, head.host_stop = start, stop
        head.host_kind = NOT_FOUND_OUT
        return True
    other, at, ends = clean_host(data, start, stop)
    if other != HOST_NONE and not same_text(data, at, ends, head.clean_at, head.clean_stop):
        head.disagrees = 1
    return False


@routine
def choose_host(data, head):
    """The host of the head just read: the authority of an absolute target, which no Host changes
    (RFC 9112, 3.2.2), or else its Host. What CONNECT asks for is often an address whose name only
    its Host tells, so there it is the other way round, as where the authority is no host.

    What `clean_host` says of it, where it starts and stops, and whether the head names two.
    """
    named, named_start, named_stop = clean_host(data, head.host_at, head.host_stop)
    asked, asked_start, asked_stop = clean_host(data, head.authority_at, head.authority_stop)
    differ = head.disagrees == 1
    if named != HOST_NONE and asked != HOST_NONE:
        differ = differ or not same_text(data, named_start, named_stop, asked_start, asked_stop)
    other_way = head.method == IS_CONNECT or asked == HOST_INVALID
    if asked == HOST_NONE or (other_way and named != HOST_NONE):
        return named, named_start, named_stop, differ
    return asked, asked_start, asked_stop, differ


@routine
def _rules_out_document(data, at, name_stop, start, stop):
    """Does a header field say that this is no document somebody asked for?"""
    length = name_stop - at
    if length == 14 and same_letters(data, at, name_stop, SEC_FETCH_DEST):
        return not same_letters(data, start, stop, A_DOCUMENT)
    if length == 16 and same_letters(data, at, name_stop, X_REQUESTED_WITH):
        return True
    if (
        (length == 7 and same_letters(data, at, name_stop, PURPOSE))
        or (length == 11 and same_letters(data, at, name_stop, SEC_PURPOSE))
        or (length == 5 and same_letters(data, at, name_stop, X_MOZ))
    ):
        ahead = holds_letters(data, start, stop, PREFETCH)
        return ahead or holds_letters(data, start, stop, PRERENDER)
    return False


@routine
def _read_length(data, start, stop, head):
    """Note a Content-Length, or the same several times (RFC 9110, 8.6); no number, or another than
    before, cannot be believed.
    """
    at = start
    while True:
        comma = at
        while comma < stop and data[comma] != 44:
            comma += 1
        _note_length(data, at, comma, head)
        if comma == stop:
            return
        at = comma + 1


@routine
def _note_length(data, start, stop, head):
    """Note one length, with spaces around it."""
    while start < stop and (data[start] == 32 or data[start] == 9):
        start += 1
    while stop > start and (data[stop - 1] == 32 or data[stop - 1] == 9):
        stop -= 1
    value = I64(0)
    good = 0 < stop - start <= LENGTH_DIGITS_MAX
    for at in range(start, stop if good else start):
        if not is_digit(I64(data[at])):
            good = False
            break
        value = value * 10 + I64(data[at]) - 48
    if not good or (head.body_length != NO_LENGTH and head.body_length != value):
        value = I64(BAD_LENGTH)
    head.body_length = value


@routine
def _is_part_of_page(data, start, stop):
    """Does the target's path end like something that a page loads?"""
    end = start
    while end < stop and data[end] != 63 and data[end] != 35:
        end += 1
    dot = end
    while dot > start and end - dot <= ENDING_BYTES_MAX and data[dot - 1] != 46:
        if data[dot - 1] == 47:
            return False
        dot -= 1
    length = end - dot
    if length == 0 or dot == start or data[dot - 1] != 46:
        return False
    for at in range(1, len(PARTS_OF_PAGES) - length):
        if PARTS_OF_PAGES[at - 1] == 32 and PARTS_OF_PAGES[at + length] == 32:
            same = True
            for i in range(length):
                if lower(I64(data[dot + i])) != I64(PARTS_OF_PAGES[at + i]):
                    same = False
                    break
            if same:
                return True
    return False


@routine
def read_chunk_line(data, start, stop, head):
    """Read a chunk's size line (RFC 9112, 7.1): WHOLE, NOT_YET or BAD.

    `head.stop` gets where the line ends, `head.body_length` how long the chunk is.
    """
    line_feed = _line_feed(data, start, min(stop, start + CHUNK_LINE_BYTES_MAX))
    size = I64(0)
    digits = 0
    for at in range(start, line_feed):
        letter = lower(I64(data[at]))
        if is_digit(letter):
            size = size * 16 + letter - 48
        elif 97 <= letter <= 102:
            size = size * 16 + letter - 87
        elif digits > 0 and (letter == 59 or letter == 13 or letter == 32 or letter == 9):
            break
        else:
            return BAD
        digits += 1
        if digits > 7:  # a chunk of a quarter of a gigabyte
            return BAD
    if line_feed == start + CHUNK_LINE_BYTES_MAX or (line_feed < stop and digits == 0):
        return BAD
    if line_feed == stop:
        return NOT_YET
    head.stop = line_feed + 1
    head.body_length = size
    return WHOLE


@routine
def read_trailer_line(data, start, stop, head):
    """Read one line after the last chunk: WHOLE or NOT_YET; `head.body_length` is 0 for the empty
    one.
    """
    line_feed = _line_feed(data, start, stop)
    if line_feed == stop:
        return NOT_YET
    head.stop = line_feed + 1
    head.body_length = _text_stop(data, start, line_feed) - start
    return WHOLE
