// One line of HTTP/1: start lines (RFC 9112, 3 and 4), header fields (5), chunk sizes (7.1). Each looks at no more than the first HTTP_CARRY bytes.
// What is rare (much white space, lists of lengths, folded lines) goes to the program `http_odd` by its id.

#define CRLF ('\r' | (u32)'\n' << 8)

static __always_inline void fail(struct http_direction *h, u32 cause) { V(h->cause) = cause; }

// Sequence number of the byte at b[at].
static __always_inline u32 sequence(struct http_scratch *s, u32 at) { return V(s->base) + V(s->nxt) - (V(s->end) - at); }

static __always_inline void status_line(struct http_scratch *s, struct http_direction *h, u32 line) {
  u8 *p = &s->b[line & HTTP_MASK];
  u32 a = p[9] - '0', b = p[10] - '0', c = p[11] - '0', interim = V(h->interim);
  if (p[8] != ' ' || a - 1 > 8 || b > 9 || c > 9 || V(h->role) == REQUEST || V(s->other_role) == RESPONSE) { fail(h, HTTP_COUNT_resync_syntax); return; }
  u32 seq = sequence(s, line), flags = V(h->flags);
  V(h->status) = a * 100 + b * 10 + c;
  V(h->minor) = p[7] - '0';
  V(h->role) = RESPONSE;
  V(h->flags) = interim ? flags | HTTP_FLAG_INTERIM : 0;
  V(h->seq) = seq;
  if (!interim) V(h->first) = seq;
}

// Code of the method in x, k bytes long.
static __always_inline u32 method_code(u64 x, u32 k) {
  u64 word = x << (64 - 8 * (k & 7)) >> (64 - 8 * (k & 7));
  if (k == 3 && word == W7('G', 'E', 'T', 0, 0, 0, 0)) return HTTP_METHOD_GET;
  if (k == 4 && word == W7('P', 'O', 'S', 'T', 0, 0, 0)) return HTTP_METHOD_POST;
  if (k == 4 && word == W7('H', 'E', 'A', 'D', 0, 0, 0)) return HTTP_METHOD_HEAD;
  if (k == 3 && word == W7('P', 'U', 'T', 0, 0, 0, 0)) return HTTP_METHOD_PUT;
  if (k == 6 && word == W7('D', 'E', 'L', 'E', 'T', 'E', 0)) return HTTP_METHOD_DELETE;
  if (k == 5 && word == W7('P', 'A', 'T', 'C', 'H', 0, 0)) return HTTP_METHOD_PATCH;
  if (k == 7 && word == W7('O', 'P', 'T', 'I', 'O', 'N', 'S')) return HTTP_METHOD_OPTIONS;
  if (k == 7 && word == W7('C', 'O', 'N', 'N', 'E', 'C', 'T')) return HTTP_METHOD_CONNECT;
  if (k == 5 && word == W7('T', 'R', 'A', 'C', 'E', 0, 0)) return HTTP_METHOD_TRACE;
  if (k == 5 && word == W7('Q', 'U', 'E', 'R', 'Y', 0, 0)) return HTTP_METHOD_QUERY;
  return HTTP_METHOD_OTHER;
}

// Marks the bytes that no token holds (RFC 9110, 5.6.2). Along the ASCII table, tokens and others take turns at these bytes.
#define FROM(n) (((x & ~HIGH) + (0x80 - (n)) * ONES) & HIGH)
static __always_inline u64 not_token(u64 x) {
  return (~(FROM('!') ^ FROM('"') ^ FROM('#') ^ FROM('(') ^ FROM('*') ^ FROM(',') ^ FROM('-') ^ FROM('/') ^ FROM('0') ^ FROM(':') ^ FROM('A') ^ FROM('[') ^
            FROM('^') ^ FROM('{') ^ FROM('|') ^ FROM('}') ^ FROM('~') ^ FROM(0x7f)) | x) & HIGH;
}

// Is a method that is not known a token of k bytes at least, and not the first line of HTTP/2 (RFC 9113, 3.4)?
static __always_inline u32 is_method(u8 *p, u32 k) {
  u64 x = load8(p), a = not_token(x), b = not_token(load8(p + 8)), c = not_token(load8(p + 16));
  u32 end = a ? first(a) : b ? 8 + first(b) : 16 + first(c | 1ULL << 63);
  return end == k && x != W8('P', 'R', 'I', ' ', '*', ' ', 'H', 'T');
}

static __always_inline void request_line(struct http_scratch *s, struct http_direction *h, u32 line, u32 eol, u32 cut) {
  struct http_record *r = &s->p.r;
  u8 *p = &s->b[line & HTTP_MASK];
  if (unlikely(V(s->p.wide))) { zero8((u8 *)&s->p + HTTP_BEFORE, (HTTP_BEHIND - HTTP_BEFORE) / 8); zero8((u8 *)&s->p + HTTP_END, (sizeof s->p - HTTP_END) / 8); }
  zero8(&s->p, HTTP_BEFORE / 8);
  zero8((u8 *)&s->p + HTTP_BEHIND, (HTTP_END - HTTP_NARROW - HTTP_BEHIND) / 8);
  u64 m = bytes_equal(load8(p), ' ');
  V(s->k) = 0;
  if (!m) { m = bytes_equal(load8(p + 8), ' '); V(s->k) = 8; }
  if (!m) { m = bytes_equal(load8(p + 16), ' '); V(s->k) = 16; }
  u32 k = V(s->k) + first(m | 1ULL << 63);                      // length of the method
  V(s->k) = k;
  if (!m || !k || V(h->role) == RESPONSE || V(s->other_role) == REQUEST) { fail(h, HTTP_COUNT_resync_syntax); return; }
  V(r->method) = method_code(load8(p), k);
  u32 code = V(r->method);
  k = V(s->k);
  if (!code && V(s->tentative) && cut) { fail(h, HTTP_COUNT_resync_syntax); return; }       // after a loss, only what cannot be chance
  V(r->method_len) = k;
  if (!code) {
    if (!is_method(p, k)) { fail(h, HTTP_COUNT_resync_syntax); return; }
  }
  k = V(s->k); line = V(s->start); eol = V(s->eol); cut = V(s->cut);
  V(s->n) = HTTP_CARRY;                                         // of a line that is cut, the end is looked at when it comes
  V(r->target_wire_len) = 65535;
  if (!cut) {
    u8 *q = &s->b[(eol - 9) & HTTP_MASK];
    u32 n = eol - 9 - (line + k + 1), minor = q[8] - '0';
    if (load8(q) != W8(' ', 'H', 'T', 'T', 'P', '/', '1', '.') || minor > 9 || (s32)n <= 0) { fail(h, HTTP_COUNT_resync_syntax); return; }
    V(r->minor) = minor;
    V(s->n) = n;
    V(r->target_wire_len) = n;
  }
  u32 room = HTTP_LINE - 1 - V(s->k), n = V(s->n);
  if (room > HTTP_TARGET) room = HTTP_TARGET;
  V(r->flags) = n > room ? HTTP_FLAG_TARGET_CUT : 0;
  V(r->target_len) = n > room ? room : n;
  V(s->to) = V(s->k) + 1 + V(r->target_len);
  if (V(s->exact) && (s32)(V(h->number) - V(s->other_number)) > 0) {
    V(h->pipelined) = 1;
    V(r->flags) |= HTTP_FLAG_PIPELINED;
  }
  if (V(s->same)) V(h->pipelined) = 1;                          // nothing was acknowledged since the request before
  V(s->same) = 1;
  if (V(h->after_loss) && (s32)(V(s->other_number) - V(h->known)) <= 0) V(h->pipelined) = 1;       // what was lost held a request, and it is not answered
  V(h->after_loss) = 0;
  V(r->request_ack) = V(h->ack);
  V(h->seq) = sequence(s, V(s->start));
  V(r->request_seq) = V(h->seq);
  V(s->p.alone) = V(h->alone) & !V(h->pipelined);
  V(h->alone) = 0;                                              // what follows in this segment is pipelined
  V(h->role) = REQUEST;
  V(r->request_start_ns) = V(h->start_ns);
  p = &s->b[V(s->start) & HTTP_MASK];
  copy8(r->line, p, HTTP_NARROW / 8);
  n = V(s->to);
  u32 whole = n & 2040;
  u64 last = load8(p + whole) & ~(~0ULL << 8 * (n & 7));
  if (unlikely(n > HTTP_NARROW)) {
    V(s->p.wide) = 1;
    copy8(r->line + HTTP_NARROW, p + HTTP_NARROW, (HTTP_LINE - HTTP_NARROW) / 8);
    store8(r->line + whole, last);
    zero8(r->line + whole + 8, (HTTP_LINE - HTTP_NARROW) / 8);              // what follows the target; this also writes into b, below all that is still needed
  } else {
    whole = V(s->to) & 120;
    store8(r->line + whole, last);
    zero8(r->line + whole + 8, HTTP_NARROW / 8);
  }
}

// Copies the value at b[from..to) to s->field of the request's record, which is zero, and its length to s->length. Words as they will be read again:
// one that was written in two parts keeps the reader waiting.
static __always_inline void keep(struct http_scratch *s) {
  u8 *q = &s->b[V(s->from) & HTTP_MASK], *base = (u8 *)&s->p, *to = base + (V(s->field) & 2047);
  u32 n = V(s->to) - V(s->from), room = V(s->id) == H_AGENT ? HTTP_AGENT : HTTP_TEXT;
  base[V(s->length) & 2047] = n > 255 ? 255 : n;
  V(s->n) = n > room ? room : n;
#pragma unroll
  for (u32 k = 0; k < HTTP_AGENT / 8; k++) {
    if (V(s->n) < 8 * (k + 1)) break;
    store8(to + 8 * k, load8(q + 8 * k));
  }
  n = V(s->n);
  u32 whole = n & 120;
  if (n & 7) store8(to + whole, load8(q + whole) & ~(~0ULL << 8 * (n & 7)));
}

// 16 or 8 lower-case hexadecimal digits as bytes; *bad gets marks. W3C Trace Context, 3.2.2.
static __always_inline u32 hex4(u8 *q, u64 *bad) {
  u64 x = load8(q);
  *bad |= not_hex(x) | (x & ~(x << 1) & 0x40 * ONES);           // upper case: bit 6 without bit 5
  return __builtin_bswap32(hex8(x));
}

static __always_inline void traceparent(struct http_scratch *s, struct http_direction *h) {
  struct http_record *r = &s->p.r;
  u32 from = V(s->from), n = V(s->to) - from, seen = V(h->seen);
  u8 *q = &s->b[from & HTTP_MASK];
  u64 bad = 0;
  V(h->seen) = seen | TRACEPARENT;
  V(r->traced) = 0;
  if (seen & TRACEPARENT || n < 55 || q[2] != '-' || q[35] != '-' || q[52] != '-') return;      // two of them are none
  u32 w0 = hex4(q + 3, &bad), w1 = hex4(q + 11, &bad), w2 = hex4(q + 19, &bad), w3 = hex4(q + 27, &bad);
  u32 p0 = hex4(q + 36, &bad), p1 = hex4(q + 44, &bad);
  store8(s->value, 0x3030303030303030ULL);
  s->value[0] = q[0]; s->value[1] = q[1]; s->value[2] = q[53]; s->value[3] = q[54];
  u32 ends = hex4(s->value, &bad);
  u32 version = ends & 255, flags = ends >> 8 & 255;
  if (bad || version == 255 || (version ? n > 55 && q[55] != '-' : n != 55) || !(w0 | w1 | w2 | w3) || !(p0 | p1)) return;
  u32 *t = (u32 *)r->trace_id, *u = (u32 *)r->parent_id;
  V(t[0]) = w0; V(t[1]) = w1; V(t[2]) = w2; V(t[3]) = w3; V(u[0]) = p0; V(u[1]) = p1;
  V(r->traceparent_version) = version;
  V(r->trace_flags) = flags;
  V(r->traced) = 1;
}

#define FIELD(name) (__builtin_offsetof(struct http_pending, r) + __builtin_offsetof(struct http_record, name))

// A text value that is not kept yet: the first of its name counts.
static __always_inline void text(struct http_scratch *s, struct http_direction *h) {
  u32 id = V(s->id);
  if (id == H_TRACEPARENT) {
    traceparent(s, h);
#ifdef HTTP_SLOT_TRACEPARENT
    id = H_SLOT + HTTP_SLOT_TRACEPARENT;
#else
    return;
#endif
  }
  V(s->field) = FIELD(host); V(s->length) = FIELD(host_len);
  if (id == H_AGENT) { V(s->field) = FIELD(agent); V(s->length) = FIELD(agent_len); }
  if (id == H_TRACESTATE) { V(s->p.wide) = 1; V(s->field) = FIELD(tracestate); V(s->length) = FIELD(tracestate_len); }
#if HTTP_SLOTS
  if (id >= H_SLOT) { V(s->field) = FIELD(slots) + (id - H_SLOT) * HTTP_TEXT; V(s->length) = FIELD(slot_len) + (id - H_SLOT); }
#endif
  u8 *base = (u8 *)&s->p;
  if (!base[V(s->length) & 2047]) keep(s);
}

static __always_inline void content_length(struct http_direction *h, u64 value) {
  u64 before = V(h->length);
  u32 seen = V(h->seen);
  if (seen & LENGTH && before != value) { V(h->seen) = seen | CONFLICT; return; }
  V(h->length) = value;
  V(h->seen) = seen | LENGTH;
}

// Which header that matters a line holds: its id, and the length of its name with the colon. White space before the colon is a trap for parsers that differ
// about it (RFC 9112, 5.1): nothing that follows can be trusted.
static __always_inline void recognise(struct http_scratch *s, struct http_direction *h, u8 *p, u32 role) {
  u64 x = load8(p) | LOWER, y = load8(p + 8) | LOWER, z = load8(p + 16) | LOWER;
  V(s->id) = H_NONE;
  V(s->k) = 0;
  if (x == W8('c', 'o', 'n', 't', 'e', 'n', 't', '-')) {
    if (y << 8 == W8(0, 'l', 'e', 'n', 'g', 't', 'h', ':')) { V(s->id) = H_LENGTH; V(s->k) = 15; }
    else if (y << 16 == W8(0, 0, 'l', 'e', 'n', 'g', 't', 'h') && !(not_space(load8(p + 14)) & 0x80)) V(h->seen) |= CONFLICT;
  } else if (x == W8('t', 'r', 'a', 'n', 's', 'f', 'e', 'r')) {
    if (y == W8('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') && (u16)z == ('g' | ':' << 8)) { V(s->id) = H_CODING; V(s->k) = 18; }
    else if (y == W8('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') && (u8)z == 'g' && !(not_space(load8(p + 17)) & 0x80)) V(h->seen) |= CONFLICT;
  }
  else if (role != REQUEST) return;
  else if (x << 24 == W8(0, 0, 0, 'h', 'o', 's', 't', ':')) { V(s->id) = H_HOST; V(s->k) = 5; }
  else if (x == W8('u', 's', 'e', 'r', '-', 'a', 'g', 'e')) { if (y << 40 == W8(0, 0, 0, 0, 0, 'n', 't', ':')) { V(s->id) = H_AGENT; V(s->k) = 11; } }
  else if (x == W8('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r')) { if (y << 32 == W8(0, 0, 0, 0, 'e', 'n', 't', ':')) { V(s->id) = H_TRACEPARENT; V(s->k) = 12; } }
  else if (x == W8('t', 'r', 'a', 'c', 'e', 's', 't', 'a')) { if (y << 40 == W8(0, 0, 0, 0, 0, 't', 'e', ':')) { V(s->id) = H_TRACESTATE; V(s->k) = 11; } }
#ifdef HTTP_SLOT_NAMES
  if (role != REQUEST || V(s->id)) return;
  HTTP_SLOT_NAMES
#endif
}

#ifndef HTTP_SLOT_BEGINS
#define HTTP_SLOT_BEGINS
#endif
// Is the header none that matters? A look at four bytes, for most headers are such.
static __always_inline u32 passes_over(struct http_scratch *s, struct http_direction *h, u32 line) {
  u32 x = load4(&s->b[line & HTTP_MASK]) | (u32)LOWER;
  if (V(h->seen) & SKIP || (x & 0xff) - 'a' > 25) return 0;
  if (x == W4('c', 'o', 'n', 't') || x == W4('h', 'o', 's', 't') || x == W4('u', 's', 'e', 'r') || x == W4('t', 'r', 'a', 'c') || x == W4('t', 'r', 'a', 'n')) return 0;
  HTTP_SLOT_BEGINS
  V(h->header) = H_NONE;
  return 1;
}

// The header of a line, its value in from..to. What is not plain stays in s->id, for `http_odd`.
static __always_inline void header(struct http_scratch *s, struct http_direction *h, u32 line, u32 eol) {
  u8 *p = &s->b[line & HTTP_MASK];
  recognise(s, h, p, V(h->role));
  u32 folded = *p == ' ' || *p == '\t';                         // obs-fold: goes on with the header before
  V(s->odd) = folded;
  if (folded) V(s->id) = V(h->header) & ~UNFINISHED;
  else V(h->header) = V(s->id);
  u32 id = V(s->id);
  if (!id) return;
  u32 from = line + V(s->k);
  u64 lead = 1;
  u16 begins = load2(&s->b[from & HTTP_MASK]);
  V(s->from) = from + 1;
  V(s->to) = eol;
  if (unlikely((u8)begins != ' ' || begins >> 8 <= ' ' || s->b[(eol - 1) & HTTP_MASK] <= ' ')) {    // not as everybody writes it
    lead = not_space(load8(&s->b[from & HTTP_MASK]));           // up to 8 bytes of white space on either side
    V(s->from) = from + first(lead | 1ULL << 63);
    u64 trail = not_space(load8(&s->b[(eol - 8) & HTTP_MASK]));
    V(s->to) = eol - first(__builtin_bswap64(trail) | 1ULL << 63);
    if (!lead || !trail) V(s->odd) = 1;
    // No length is not one, unless there are digits further behind, or in a folded line: `length_byte`.
    if (id == H_LENGTH && !folded && !V(s->cut) && (!lead || (s32)(V(s->to) - V(s->from)) <= 0) && !(V(h->seen) & CONFLICT)) {
      V(h->seen) |= CONFLICT;
      V(h->header) = H_LENGTH | UNFINISHED;
    }
  }
  from = V(s->from);
  u32 n = V(s->to) - from;
  if ((s32)n <= 0 && lead && !folded) { V(s->id) = 0; return; }
  if (V(s->odd)) { V(s->from) = line + V(s->k); V(s->to) = eol; n = eol - V(s->from); }
  if ((s32)n <= 0) { V(s->id) = 0; return; }
  if (id > H_CODING) {
    if (V(s->odd)) return;
    text(s, h);
    V(s->id) = 0;
    return;
  }
  u64 low = load8(&s->b[from & HTTP_MASK]), high = load8(&s->b[(from + 8) & HTTP_MASK]), bad = n > 16;
  if (V(s->cut)) {                                              // longer than what is looked at: a coding is judged by its end, later
    V(h->seen) |= id == H_CODING ? CODED : CONFLICT;
    V(s->id) = 0;
    return;
  }
  if (id == H_CODING) {
    u64 last = load8(&s->b[(V(s->to) - 8) & HTTP_MASK]), lower = last | LOWER, before = (last & 255) == ',' || !(not_space(last) & 0x80);
    if (V(s->odd) || n < 7 || lower >> 8 != W7('c', 'h', 'u', 'n', 'k', 'e', 'd') || (n > 7 && !before)) return;
    V(h->seen) = (V(h->seen) & ~CODED) | CHUNKED;
    V(s->id) = 0;
    return;
  }
  if (n <= 8) {
    u64 v = decimal8(low << 4 * (8 - n) << 4 * (8 - n) | '0' * ONES >> 4 * n >> 4 * n, &bad);
    if (bad || V(s->odd)) return;
    content_length(h, v);
    V(s->id) = 0;
    return;
  }
  store8(s->value, '0' * ONES); store8(s->value + 8, '0' * ONES);
  store8(s->value + 16, low); store8(s->value + 24, high);      // 16 bytes that end where the value does, with zeros before it
  u8 *t = s->value + (n & 31);
  u64 v = decimal8(load8(t), &bad) * 100000000 + decimal8(load8(t + 8), &bad);
  if (bad || V(s->odd)) return;
  content_length(h, v);
  V(s->id) = 0;
}

// The end of a line that was too long, at b[..eol): a start line must end as one, and the last coding decides.
static __always_inline void long_line(struct http_scratch *s, struct http_direction *h, u32 eol) {
  u8 *q = &s->b[(eol - 9) & HTTP_MASK];
  u64 low = load8(q), last = load8(q + 1) | LOWER;
  u32 seen = V(h->seen);
  if (seen & LONG_START) {
    u32 minor = q[8] - '0';
    V(s->n) = sequence(s, eol) - 9 - V(h->seq) - V(s->p.r.method_len) - 1;
    if (V(s->n) > 65535) V(s->n) = 65535;
    if (low != W8(' ', 'H', 'T', 'T', 'P', '/', '1', '.') || minor > 9) fail(h, HTTP_COUNT_resync_syntax);
    V(s->p.r.target_wire_len) = V(s->n);
    V(s->p.r.minor) = minor;
    V(h->seen) = seen & ~LONG_START;
    return;
  }
  u64 before = last & 255;
  if (V(h->header) == H_CODING && last >> 8 == W7('c', 'h', 'u', 'n', 'k', 'e', 'd') && (before == ' ' || before == ',' || before == ('\t' | ' ')))
    V(h->seen) = (seen & ~CODED) | CHUNKED;
}

// The line with a chunk's size has ended: its data are next. Not before, or what is left of the line would be taken for them.
static __always_inline void chunk_begins(struct http_scratch *s, struct direction *d) {
  struct http_direction *h = http_of(d);
  V(d->left) = V(h->length);
  V(h->body) += V(h->length);
  V(h->phase) = V(h->length) ? CHUNK_DATA : TRAILERS;
}

// Passes over chunks of plain form that lie whole in the window, up to HTTP_CHUNKS of them. 1: there may be more.
static __always_inline u32 small_chunks(struct http_scratch *s, struct http_direction *h) {
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_CHUNKS; i++) {
    u32 pos = V(s->pos);
    u64 x = load8(&s->b[pos & HTTP_MASK]);
    u32 digits = first(not_hex(x) | 1ULL << 63), n = hex8(first_digits(x, digits)), at = pos + digits + 2;
    if (digits - 1 > 5 || !n || (s32)(V(s->end) - at - n) < 2) return 0;
    if (load2(&s->b[(at - 2) & HTTP_MASK]) != CRLF || load2(&s->b[(at + n) & HTTP_MASK]) != CRLF) return 0;
    V(h->body) += n;
    V(s->pos) = V(s->line) = at + n + 2;
  }
  return 1;
}

// A size of 8 to 15 digits; how many it has in s->k.
static __always_inline void chunk_size_long(struct http_scratch *s, struct http_direction *h, u8 *p) {
  u64 x = load8(p), y = load8(p + 8), w = not_hex(y);
  u32 more = first(w | 1ULL << 63);
  V(s->k) = 8 + more;
  if (!w) { V(s->id) = H_CHUNK; return; }
  V(h->length) = hex8(x) << 4 * more | (more ? hex8(first_digits(y, more)) : 0);
}

// Size in hexadecimal; up to 15 digits here, more of them (zeros) in `http_odd`.
static __always_inline void chunk_size(struct http_scratch *s, struct direction *d, u32 line, u32 cut) {
  struct http_direction *h = http_of(d);
  u8 *p = &s->b[line & HTTP_MASK];
  u64 x = load8(p), m = not_hex(x);
  u32 digits = first(m | 1ULL << 63);
  if (!m) { chunk_size_long(s, h, p); digits = V(s->k); }       // 8 digits and more
  else V(h->length) = hex8(first_digits(x, digits));
  if (V(s->id)) return;
  u64 b = *(p + (digits & 15)) * ONES ^ W8(';', '\r', '\n', ' ', '\t', ';', ';', ';');      // what may follow: an extension, white space, the line's end
  if (!digits || !((b - ONES) & ~b & HIGH)) { fail(h, HTTP_COUNT_resync_syntax); return; }
  V(h->phase) = CHUNK_EXTENSION;
  if (!cut) chunk_begins(s, d);
}
