// An exact HTTP/1 stream parser. A stream is two operations: "next line" and "pass n bytes"; one loop does both, a turn of it is a step. It runs in the
// packet program: the first steps with the direction in its flow, further ones in a function, with the direction in the scratch. What is rare goes on in other
// programs and comes back to `http_stream`, which calls itself until the segment is used up. What is unfinished goes to `http_partial` and `flows`.

// By its number: where bcc may not read the kernel's symbols it takes an older helper instead, which needs CAP_SYS_ADMIN.
static long (*probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;

// The window is used up: keep the unfinished line in front of it and load what follows. 0: the segment is used up too. Without a packet the caller loads, as
// many bytes as s->load says.
static __always_inline int refill(struct __sk_buff *skb, struct http_scratch *s, struct http_direction *h, u32 end) {
  u32 line_held = end - V(s->line), skip = V(h->seen) & SKIP;   // of a line that is skipped, its end will be looked at
  if (skip) line_held = 0;
  if (unlikely((line_held || skip) && end != HTTP_CARRY)) copy8(s->b, &s->b[(end - HTTP_CARRY) & HTTP_MASK], HTTP_CARRY / 8);
  V(s->line) = HTTP_CARRY - line_held;
  V(h->line) = line_held;
  V(s->pos) = V(s->end) = HTTP_CARRY;
  u32 nxt = V(s->nxt);
  u64 n = V(s->stop) - nxt;
  s32 there = V(s->there) - nxt;
  if (!n) return 0;
  if (unlikely(there <= 0)) {                                             // a capture that left bytes out
    fail(h, HTTP_COUNT_resync_truncated);
    V(s->nxt) = V(s->stop);
    return 1;
  }
  if (n > there) n = there;
  if (n > HTTP_WINDOW) n = HTTP_WINDOW;
  n = n - 1; barrier_var(n); n &= HTTP_WINDOW - 1; n = n + 1; barrier_var(n);
  V(s->nxt) = nxt + n;
  V(s->end) = HTTP_CARRY + n;
  long failed = 0;
  if (unlikely(V(s->kept))) {
    struct held *x = held.lookup(&s->slot);
    failed = !x || probe_read_kernel(s->b + HTTP_CARRY, n, x->data + (nxt & (HELD_WINDOW - 1)));
    if (!x || !owns(x, s->m.flow, s->direction)) {       // looked at behind the bytes: who takes the slot says so before it writes
      V(s->nxt) = V(s->stop);
      fail(h, HTTP_COUNT_resync_gap);
      return 1;
    }
  } else if (skb) failed = bpf_skb_load_bytes(skb, nxt, s->b + HTTP_CARRY, n);
  else V(s->load) = n;
  if (unlikely(failed)) fail(h, HTTP_COUNT_resync_truncated);
  return 1;
}

// Pass over body bytes. 0: the segment ends inside the body.
static __always_inline int pass(struct http_scratch *s, struct direction *d, u32 phase) {
  struct http_direction *h = http_of(d);
  u32 pos = V(s->pos), end = V(s->end);
  u64 at = V(s->nxt) - (end - pos), there = V(s->stop) - at, n = V(d->left);
  if (n > there) n = there;
  V(d->left) -= n;
  pos += n;
  if (n > end - (pos - n)) { V(s->nxt) = at + n; pos = HTTP_CARRY; V(s->end) = HTTP_CARRY; }
  u32 left = V(d->left) != 0, next = phase == CHUNK_DATA ? CHUNK_CRLF : DONE;
  if (!left && phase == CHUNK_DATA && pos + 2 <= V(s->end) && s->b[pos & HTTP_MASK] == '\r' && s->b[(pos + 1) & HTTP_MASK] == '\n') {
    pos += 2;                                                   // saves a step
    next = CHUNK_SIZE;
  }
  V(s->pos) = V(s->line) = pos;
  V(h->line) = 0;
  if (left) return 0;
  V(h->phase) = next;
  return 1;
}

// What the start line of a final response says of its exchange. 1: the connection is no HTTP from here on.
static __always_inline u32 answer(struct http_scratch *s, struct http_direction *h, struct http_pending *p) {
  u32 status = V(h->status);
  p->r.status = status;
  p->r.response_seq = V(h->seq);
  p->r.response_start_ns = V(h->start_ns);
  p->flags = V(h->flags) | V(h->resynchronised) * HTTP_FLAG_RESYNCHRONISED;
  p->early = !V(p->req_done);
  V(s->k) = p->r.method;
  return status == 101 || (V(s->k) == HTTP_METHOD_CONNECT && status < 300);
}

// The open request of a response, else 0.
static __always_inline struct http_pending *head_end(struct http_scratch *s, struct direction *d) {
  struct http_direction *h = http_of(d);
  u32 seen = V(h->seen);
  V(s->ready) = 0;
  V(h->header) = H_NONE;
  V(s->next_phase) = seen & CHUNKED ? CHUNK_SIZE : UNTIL_CLOSE;
  V(s->next_left) = seen & CHUNKED ? 0 : EVER;
  if ((seen & (LENGTH | CHUNKED | CODED)) == LENGTH) {
    V(s->next_left) = V(h->length);
    V(s->next_phase) = V(s->next_left) ? FIXED : DONE;
  }
  V(s->n) = sequence(s, V(s->pos)) - V(h->seq);
  if (V(h->role) == REQUEST) {
    seen = V(h->seen);
    if (seen & CONFLICT || seen & CODED) {                      // a request whose end nobody can know (RFC 9112, 6.3)
      if (seen & CONFLICT) http_count(s, HTTP_COUNT_length_conflict);
      V(s->verdict) = OPAQUE_DISTRUSTED;
      V(h->phase) = STOPPED;
      return 0;
    }
    if (V(s->next_phase) == UNTIL_CLOSE) { V(s->next_phase) = DONE; V(s->next_left) = 0; }
    V(d->left) = V(h->body) = V(s->next_left);
    V(s->p.r.request_head) = V(s->n);
    V(h->phase) = V(s->next_phase) == DONE ? START : V(s->next_phase);
    open_request(s, h);
    return 0;
  }
  V(h->interim) = V(h->status) < 200 && V(h->status) != 101;
  if (V(h->interim)) { V(h->phase) = START; return 0; }
  V(s->from) = V(s->n);
  struct http_pending *p = pair(s, h);
  if (unlikely(!p)) {                                           // was it a HEAD? so where the response ends is not known either
    http_count(s, HTTP_COUNT_unpaired);
    fail(h, HTTP_COUNT_resync_unpaired);
    return 0;
  }
  u32 upgraded = answer(s, h, p), status = V(h->status);
  p->r.response_head = V(s->from);
  u32 bodiless = status == 204 || status == 304 || V(s->k) == HTTP_METHOD_HEAD;
  if (upgraded) { bodiless = 1; V(s->verdict) = OPAQUE_UPGRADED; }
  if (unlikely(!bodiless && V(h->seen) & CONFLICT)) {                     // its status is certain, nothing that follows is
    bodiless = 1;
    http_count(s, HTTP_COUNT_length_conflict);
    V(s->verdict) = OPAQUE_DISTRUSTED;
    p->flags |= HTTP_FLAG_UNCERTAIN_END | HTTP_FLAG_UNCERTAIN_SIZE;
  }
  if (bodiless) { V(s->next_phase) = DONE; V(s->next_left) = 0; }
  V(d->left) = V(h->body) = V(s->next_left);
  V(h->phase) = V(s->next_phase);
  return p;
}

// When nothing but a plain Content-Length follows, the head ends in the same step, so that a frame may hold many small answers.
static __always_inline void only_length(struct http_scratch *s, struct http_direction *h) {
  u32 at = V(s->pos);
  u8 *p = &s->b[at & HTTP_MASK];
  if ((load8(p) | LOWER) != W8('c', 'o', 'n', 't', 'e', 'n', 't', '-') || (load8(p + 8) | LOWER >> 16) != W8('l', 'e', 'n', 'g', 't', 'h', ':', ' ')) return;
  u64 x = load8(p + 16), none = not_digit(x), bad = 0;
  u32 n = first(none | 1ULL << 63), after = at + 16 + n + 4;
  if (!none || !n || after > V(s->end) || load4(p + 16 + n) != (CRLF | CRLF << 16)) return;
  content_length(h, decimal8(first_digits(x, n), &bad));
  V(s->pos) = V(s->line) = after;
  V(s->ready) = 1;
}

// The line at b[start..eol) of a head, of chunks or of trailers.
static __always_inline void line_read(struct http_scratch *s, struct direction *d, u32 phase) {
  struct http_direction *h = http_of(d);
  u32 line = V(s->start), eol = V(s->eol);                      // from here on there is one state, however the end was found
  if (eol <= line) {                                            // an empty line
    if (phase == HEAD) V(s->ready) = 1;
    else if (phase == TRAILERS) V(h->phase) = DONE;
    else if (phase == CHUNK_CRLF) V(h->phase) = CHUNK_SIZE;
    else if (phase != START) fail(h, HTTP_COUNT_resync_syntax);
    V(s->carried) = 0;
    return;
  }
  if (phase == HEAD) { header(s, h, line, eol); return; }
  if (phase == CHUNK_SIZE) { chunk_size(s, d, line, V(s->cut)); return; }
  if (phase == CHUNK_CRLF) fail(h, HTTP_COUNT_resync_syntax);
  if (phase != START) return;
  u32 cut = V(s->cut), seen = V(h->seen);
  if (!V(s->carried)) V(h->start_ns) = V(s->now);
  V(h->seen) = (seen & (SKIP | HTTP)) | (cut ? LONG_START : 0);
  V(h->length) = 0;
  V(h->header) = H_NONE;
  u64 x = load8(&s->b[line & HTTP_MASK]);
  if (x << 8 == W8(0, 'H', 'T', 'T', 'P', '/', '1', '.')) { status_line(s, h, line); V(h->seen) &= ~LONG_START; }
  else request_line(s, h, line, eol, cut);
  V(s->carried) = 0;
  if (V(h->cause)) return;
  V(s->tentative) = 0;
  V(h->seen) |= HTTP;
  V(h->phase) = HEAD;
}

// Parses what is left of the segment, in at most `steps` steps. 0: it is used up, and what is unfinished is kept. Else the program that goes on, with
// the direction in the scratch.
static __always_inline u32 run(struct __sk_buff *skb, struct http_scratch *s, struct direction *d, u32 steps) {
  struct http_direction *h = http_of(d);
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < steps; i++) {
    if (unlikely(V(s->early))) return PROGRAM_http_early;
    if (unlikely(V(h->cause))) return PROGRAM_http_settle;
    u32 phase = V(h->phase), pos = V(s->pos), end = V(s->end), line, nl, cut = 0;
    struct http_pending *p = 0;
    if (phase >= FIXED) {
body:
      phase = V(h->phase);
      V(s->next_phase) = phase;
      if (phase > DONE) goto out;                               // RESYNC, STOPPED
      if (phase != DONE && !pass(s, d, phase)) {
        if (V(s->next_phase) != UNTIL_CLOSE || !V(s->fin)) goto out;
        V(h->body) -= V(d->left);
        V(d->left) = 0;
        V(h->phase) = DONE;
      }
      if (V(h->phase) == DONE) {
        V(s->ended_ns) = V(s->last_byte);
        u32 lost = V(s->next_phase) == CHUNKS_LOST;
        V(s->next_phase) = 0;
        V(s->last_byte) = V(s->now);
        finish(s, d, lost ? HTTP_FLAG_UNCERTAIN_END | HTTP_FLAG_UNCERTAIN_SIZE : 0, p);
        if (V(s->k) & HTTP_FLAG_UNCERTAIN_SIZE) fail(h, HTTP_COUNT_resync_gap);
        goto ended;
      }
      continue;
    }
    line = V(s->line);
    if (phase == CHUNK_SIZE && pos == line) {
      if (small_chunks(s, h)) continue;
      pos = line = V(s->pos);
    }
    if (pos >= end) {
      if (end - line <= HTTP_CARRY || V(h->seen) & SKIP) { if (!refill(skb, s, h, end)) goto out; if (!skb && V(s->load)) break; continue; }
      nl = end; cut = 1;                                        // longer than what is looked at: judge it by its beginning
    } else {
#pragma clang loop unroll(disable)
      for (u32 w = 0; w < HTTP_WORDS; w++) {                    // reads up to 32 * HTTP_WORDS bytes past the end; what is found there is dropped
        u8 *q = &s->b[pos & HTTP_MASK];
        u64 m = raw_equal(load8(q), '\n'), m1 = raw_equal(load8(q + 8), '\n'), m2 = raw_equal(load8(q + 16), '\n'), m3 = raw_equal(load8(q + 24), '\n');
        if ((m | m1 | m2 | m3) & HIGH) {
          if (!((m | m1) & HIGH)) { m = m2; m1 = m3; pos += 16; }
          if (!(m & HIGH)) { m = m1; pos += 8; }
          V(s->nl) = pos + first(m & HIGH);
          goto found;
        }
        pos += 32;
      }
      V(s->pos) = pos > end ? end : pos;
      continue;
found:
      nl = V(s->nl);
      if (nl >= end) { V(s->pos) = end; continue; }
      if (phase == HEAD && passes_over(s, h, line)) {
        V(s->line) = V(s->pos) = nl + 1;
        if (s->b[(nl + 1) & HTTP_MASK] > '\r') continue;
        goto head;
      }
    }
    V(s->line) = V(s->pos) = cut ? end : nl + 1;
    u32 seen = V(h->seen);
    if (unlikely(cut || seen & SKIP)) V(h->seen) = cut ? seen | SKIP : seen & ~SKIP;
    V(s->start) = line;
    V(s->eol) = nl - (s->b[(nl - 1) & HTTP_MASK] == '\r');
    V(s->cut) = cut;
    if (unlikely(seen & SKIP)) {
      if (cut) continue;
      if (phase == CHUNK_EXTENSION) chunk_begins(s, d);
      if (phase == HEAD) long_line(s, h, V(s->eol));
      continue;
    }
    line_read(s, d, phase);
    if (unlikely(V(s->id))) return PROGRAM_http_odd;
    if (unlikely(V(h->cause))) continue;
head:
    if (V(h->phase) == HEAD && !V(s->ready) && V(s->pos) + 2 <= V(s->end)) {     // the empty line behind it, in the same step
      u32 at = V(s->pos);
      u16 two = load2(&s->b[at & HTTP_MASK]);
      if (two == CRLF || (u8)two == '\n') {
        V(s->pos) = V(s->line) = at + (two == CRLF ? 2 : 1);
        V(s->ready) = 1;
      } else if ((two | 0x2020) == ('c' | 'o' << 8)) only_length(s, h);
    }
    if (V(s->ready)) p = head_end(s, d);
    phase = V(h->phase);
    if (phase >= FIXED && !V(h->cause)) goto body;              // in the same step: one step per chunk
ended:
    if (V(h->phase) == START && V(s->pos) == V(s->end) && V(s->nxt) == V(s->stop) && !V(s->early) && !V(h->cause)) {
      V(h->line) = 0;
      goto out;                                                 // as a rule the message ends with the segment
    }
  }
  return PROGRAM_http_stream;
out:;
  u32 phase = V(h->phase), line = V(h->line);
  if (phase >= FIXED) V(h->line) = line = 0;
  if (unlikely(d->ahead != d->ahead_end) && (s32)(d->next - d->ahead) >= 0) return PROGRAM_http_ahead;
  if (phase == START && line && !V(s->carried)) V(h->start_ns) = V(s->now);
  if (unlikely(line || V(h->seen) & SKIP || (phase == HEAD && V(h->role) == REQUEST))) {
    struct http_part *part = http_partial.lookup(&s->pm);       // once a flow has needed an entry it keeps it: cheaper than a new one each time
    if (part) copy8(part, s, sizeof *part / 8);
    else http_partial.update(&s->pm, (struct http_part *)s);
  }
  return 0;
}

// Some steps with the direction in the scratch, until more bytes are needed: a function, which the verifier walks once however often it is called.
int http_steps(struct __sk_buff *unused) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  return s ? run(0, s, &s->d, HTTP_STEPS) : 0;
}

// `run` with the direction in the scratch, as many steps as a run takes.
static __always_inline u32 go_on(struct __sk_buff *skb, struct http_scratch *s) {
  u32 next = PROGRAM_http_stream;
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_CALLS && next == PROGRAM_http_stream; i++) {
    next = call_http_steps();
    u64 n = V(s->load);
    if (!n) continue;
    V(s->load) = 0;
    u32 from = V(s->nxt) - n;
    n = n - 1; barrier_var(n); n &= HTTP_WINDOW - 1; n = n + 1; barrier_var(n);
    if (bpf_skb_load_bytes(skb, from, s->b + HTTP_CARRY, n)) fail(http_of(&s->d), HTTP_COUNT_resync_truncated);
  }
  return next;
}

// The segment is dealt with: others may enter the direction, and what its end means for the connection is seen to.
static __always_inline int leave_direction(struct __sk_buff *skb, struct http_scratch *s, struct flow *f, struct direction *d) {
  leave(&d->door);
  if (unlikely(V(s->fin) || V(s->verdict) || (!f->known && http_of(d)->seen & HTTP))) { s->entered_by_stream = 1; programs.call(skb, PROGRAM_http_end); }
  return 0;
}
