// HTTP as the owner of a connection: what `packet` asks of it. Everything else happens behind the tail calls.

// Where the beginning of a frame is read to: into the window, where a head that lies whole in it is parsed.
static __always_inline u8 *http_room(void) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  return s ? s->b + HTTP_CARRY : 0;
}
static __always_inline void http_flow(struct flow *f) { f->owner = PROGRAM_http_stream; }

// Position is lost before anything was seen, or because bytes will never be seen.
static __always_inline void http_joined(struct direction *d) {
  struct http_direction *h = http_of(d);
  h->phase = RESYNC;
  h->losses = h->floor = h->number = 1;
  http_count_once(HTTP_COUNT_resync_joined);
}
static __always_inline void http_unseen(struct direction *d) {
  struct http_direction *h = http_of(d);
  if (h->role == RESPONSE && h->phase >= CHUNK_SIZE && h->phase <= CHUNK_DATA && h->phase != FIXED && !h->cause) {
    h->body += EVER - d->left;                                  // the status is certain: wait for what looks like the last chunk
    d->left = EVER;
    h->phase = CHUNKS_LOST;
    h->line = 0;
    http_count_once(HTTP_COUNT_resync_gap);
    return;
  }
  if (h->phase != RESYNC) h->cause = HTTP_COUNT_resync_gap;
  if (h->phase == CHUNKS_LOST) h->body -= d->left;              // the room that an unknown size was given
  d->left = 0;
}

// The last bytes of a body, or of a chunk, were not seen.
static __always_inline void http_end_unseen(struct direction *d) {
  struct http_direction *h = http_of(d);
  if (h->phase != CHUNK_DATA) h->uncertain |= HTTP_FLAG_UNCERTAIN_END;
}

#define LAST_CHUNK W8('0', '\r', '\n', '\r', '\n', 0, 0, 0)

// Is it worth waiting for missing bytes?
static __always_inline u32 http_waits(struct direction *d) { return http_of(d)->phase != RESYNC; }

// Must it see bytes that it lets pass? The last chunk, or when the last byte came.
static __always_inline u32 http_peeks(struct direction *d) { u32 phase = http_of(d)->phase; return phase == CHUNKS_LOST || phase == UNTIL_CLOSE; }

static __always_inline int http_stop(struct counters *c, struct flow *f, u32 ifindex, u32 verdict) {
  struct tap *t = taps.lookup(&ifindex);
  u64 *n = !t ? 0 : verdict == OPAQUE_TLS ? &t->tls : verdict == OPAQUE_HTTP2 ? &t->http2 : &t->other;
  if (n) __sync_fetch_and_add(n, 1);
  c->n[verdict == OPAQUE_TLS ? COUNT_flows_tls : verdict == OPAQUE_HTTP2 ? COUNT_flows_http2 : COUNT_flows_other]++;
  f->verdict = verdict;
  return outcome(c, COUNT_opaque);
}

// TLS records (RFC 8446, 5.1) by type and version; anything else is `other`.
static __always_inline u32 http_kind(struct __sk_buff *skb, struct segment *p) {
  u8 b[3] = {};
  if (p->size < 3 || bpf_skb_load_bytes(skb, p->off, b, 3)) return OPAQUE_OTHER;
  return b[0] >= 20 && b[0] <= 23 && b[1] == 3 && b[2] <= 4 ? OPAQUE_TLS : OPAQUE_OTHER;
}

static __always_inline int http_end_of(struct __sk_buff *skb, struct flow *f, struct direction *d, struct direction *other, struct flow_key *k, struct segment *p) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  if (!s) return 0;
  if (!f->closer) f->closer = 1 + p->direction;
  __builtin_memcpy(&s->key, k, sizeof *k);
  s->m.flow = f->id;
  s->direction = p->direction;
  s->fin = p->flags;
  s->now = now_ns(skb);
  s->ifindex = p->ifindex;
  s->unseen = p->flags & TCP_ACK && (s32)(p->ack - other->next) > 0 ? p->ack - other->next : 0;
  s->skipped = (s32)(p->seq - d->next) > 0 ? p->seq - d->next : 0;
  s->verdict = s->entered_by_stream = 0;
  programs.call(skb, PROGRAM_http_end);
  return 0;
}

// A segment with new payload or a FIN, in order.
static __always_inline int http_segment(struct __sk_buff *skb, struct counters *c, struct flow *f, struct direction *d, struct direction *other,
                                        struct door *door, struct flow_key *k, struct segment *p) {
  u32 zero = 0, size = p->size, fin = p->flags & TCP_FIN, tentative = 0;
  struct http_direction *h = http_of(d), *o = http_of(other);
  u32 same = d->ack == p->ack && !(d->marks & FIRST);           // as the bytes before, which belong to another message if one begins here
  u32 alone = !same && !(d->marks & AFTER_GAP) && other->next == p->ack && !o->interim;
  d->marks &= ~(AFTER_GAP | FIRST);
  d->ack = p->ack;
  d->next += size + !!fin;
  if (fin) { d->marks |= ENDED; if (!f->closer) f->closer = 1 + p->direction; }
  if (unlikely(size == 1 && h->phase < FIXED && !fin)) {                  // a keep-alive probe may carry a byte of garbage (RFC 9293, 3.8.4); no line holds a NUL
    u8 garbage = 1;
    if (!bpf_skb_load_bytes(skb, p->off, &garbage, 1) && !garbage) {
      d->next--;
      leave(door);
      return outcome(c, COUNT_retransmitted);
    }
  }
  u64 now = now_ns(skb), before = h->last_ns;
  if (size) h->last_ns = now;
  if (h->phase == UNTIL_CLOSE && !fin && !h->cause) {
    d->left -= size;
    leave(door);
    return outcome(c, COUNT_passed);
  }
  if (unlikely(h->phase == CHUNKS_LOST)) {                                // the end of the last chunk shows, or the client has gone on
    u64 tail = 0;
    if (size >= 5 && bpf_skb_load_bytes(skb, p->off + size - 5, &tail, 5)) tail = 0;
    if (tail == LAST_CHUNK) {
      h->body -= d->left - size;
      d->left = size;
    } else if (!fin && (h->pipelined || (s32)(o->number - h->number) < 2)) {
      d->left -= size;
      leave(door);
      return outcome(c, COUNT_passed);
    } else if (!fin) {
      http_unseen(d);
      h->last_ns = before;
    }
  }
  u8 b = 0;
  if (unlikely(h->cause)) {                                     // a start line may follow what was lost
    if (size && bpf_skb_load_bytes(skb, p->off, &b, 1)) b = 0;
    h->alone = 0;
  } else if ((h->phase == START && !h->line) || h->phase == RESYNC) {   // must look like a start line before anything is spent on it
    if (!unlikely(!(h->seen & HTTP && h->phase == START))) b = size ? 'H' : 0;        // as it did before; a look costs 25 ns
    else if (size && bpf_skb_load_bytes(skb, p->off, &b, 1)) b = 0;
    if (unlikely(h->phase == RESYNC)) {
      tentative = 1;
      if (b < 'A' || b > 'Z') {
        u32 kind = f->joined && size && !(h->seen & HTTP) && !(o->seen & HTTP) ? http_kind(skb, p) : OPEN;
        leave(door);
        if (kind == OPAQUE_TLS || (kind && ++d->turns > JOINED_TURNS)) return http_stop(c, f, p->ifindex, kind);
        outcome(c, COUNT_skipped);
        return fin ? http_end_of(skb, f, d, other, k, p) : 0;
      }
    } else if (unlikely(!size)) {
      leave(door);
      outcome(c, COUNT_end);
      return http_end_of(skb, f, d, other, k, p);
    } else if (unlikely((b <= ' ' || b > '~') && b != '\r' && b != '\n')) {
      if (!(h->seen & HTTP)) { leave(door); return http_stop(c, f, p->ifindex, http_kind(skb, p)); }
      h->cause = HTTP_COUNT_resync_syntax;
    }
    if (!h->cause) {
      if (tentative) h->floor = h->number;
      h->phase = START;
      h->ack = p->ack;
      h->alone = alone;
    }
  }
  struct http_scratch *s = http_scratch.lookup(&zero);
  if (!s) return 0;
  c->n[COUNT_parsed]++;
  s->m.flow = s->pm.flow = f->id;
  s->m.direction = 0; s->pm.direction = 1 + p->direction; s->pm.number = 0;
  __builtin_memcpy(&s->key, k, sizeof *k);
  if (unlikely(!h->cause && (h->line || h->seen & SKIP || (h->phase == HEAD && h->role == REQUEST)))) {
    struct http_part *part = http_partial.lookup(&s->pm);
    if (part) {
      copy8(&s->p, &part->p, sizeof s->p / 8);
      copy8(s->b, part->line, HTTP_CARRY / 8);
    } else h->cause = HTTP_COUNT_resync_carry;
  }
  s->now = now; s->last_byte = size && !(h->uncertain && !d->left) ? now : before; s->before = before;
  s->line = HTTP_CARRY - h->line;
  s->pos = s->end = HTTP_CARRY;
  s->nxt = p->off; s->stop = p->off + size; s->there = p->length;
  s->base = p->seq - p->off;
  s->direction = p->direction; s->fin = fin; s->kept = s->skipped = s->verdict = s->id = s->early = s->ready = s->load = 0;
  s->carried = h->phase == START && h->line; s->retry = b >= 'A' && b <= 'Z'; s->tentative = tentative; s->same = same; s->leaving = p->leaving; s->ifindex = p->ifindex;
  s->other_number = o->number; s->other_losses = o->losses; s->other_floor = o->floor; s->other_lost = o->lost_number;
  s->other_role = o->role; s->other_pipelined = o->pipelined; s->certain = o->healed_other == h->losses;
  s->paired = s->certain && o->losses == o->healed;
  s->exact = s->paired && (s32)(p->ack - other->next) <= 0 && other->ahead == other->ahead_end;
  s->unseen = (s32)(p->ack - other->next) > 0 ? p->ack - other->next : 0;
  // The first window; `run` loads the others. Not by `refill`, whose ways out would give the verifier half as much work again.
  u64 n = size < HTTP_WINDOW ? size : HTTP_WINDOW;
  if (h->phase < FIXED && !h->cause && n && s->nxt + n <= s->there) {
    if (s->stop <= p->read && !h->line && !(h->seen & SKIP)) {    // it is there already, and goes on with nothing
      s->line = s->pos = HTTP_CARRY + p->off;
      s->end = s->pos + size;
      s->nxt = s->stop;
    } else {
      n = n - 1; barrier_var(n); n &= HTTP_WINDOW - 1; n = n + 1; barrier_var(n);
      if (!bpf_skb_load_bytes(skb, s->nxt, s->b + HTTP_CARRY, n)) { s->nxt += n; s->end += n; }
    }
  }
  d = &f->d[V(p->direction) & 1];                               // from memory: one state to the verifier, whichever it is
  u32 next = run(skb, s, d, HTTP_FIRST_STEPS);
  if (unlikely(next)) {
    __builtin_memcpy(&s->d, d, CARRIED);
    if (next == PROGRAM_http_stream) next = go_on(skb, s);
    if (next) programs.call(skb, next);
    __builtin_memcpy(d, &s->d, CARRIED);
  }
  return leave_direction(skb, s, f, d);
}
