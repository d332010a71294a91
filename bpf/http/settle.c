// A final response was lost inside its head: its status is certain, and so is its request, as after any loss; its size and end are not.
static __always_inline u32 settle_head(struct http_scratch *s, struct http_direction *h, u32 here) {
  u32 status = V(h->status);
  if (status < 200 && status != 101) return 0;
  struct http_pending *p = pair(s, h);
  if (!p) return 0;
  if (answer(s, h, p)) V(s->verdict) = OPAQUE_UPGRADED;
  V(h->body) = V(s->d.left) = 0;
  V(s->ended_ns) = here ? V(s->now) : V(s->before);
  finish(s, &s->d, HTTP_FLAG_UNCERTAIN_END | HTTP_FLAG_UNCERTAIN_SIZE, p);
  return 1;
}

// Position is lost. What is certain of the message in hand is kept, then its number is given up, and the next certain start line is waited for.
int http_settle(struct __sk_buff *skb) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  if (!s) return 0;
  struct http_direction *h = http_of(&s->d);
  u32 phase = V(h->phase), role = V(h->role), cause = V(h->cause), more = 1;
  if (cause == HTTP_COUNT_resync_truncated || cause == HTTP_COUNT_resync_carry) {
    V(h->cause) = 0;
    http_unseen(&s->d);                                         // in chunks: go on to their end
    if (!V(h->cause)) {
      V(s->pos) = V(s->line) = V(s->end) = HTTP_CARRY;
      programs.call(skb, PROGRAM_http_stream);
      return 0;
    }
  }
  V(h->cause) = 0;
  if (V(s->tentative)) cause = 0;
  else if (cause == HTTP_COUNT_resync_syntax && !role && !(V(h->seen) & HTTP) && !V(h->losses)) {    // a connection that did not begin with HTTP
    u64 begins = load8(&s->b[V(s->start) & HTTP_MASK]);         // RFC 9113, 3.4
    V(s->verdict) = V(s->other_role) ? OPAQUE_DISTRUSTED : begins == W8('P', 'R', 'I', ' ', '*', ' ', 'H', 'T') ? OPAQUE_HTTP2 : OPAQUE_OTHER;
    V(h->phase) = STOPPED;
    programs.call(skb, PROGRAM_http_stream);
    return 0;
  }
  if (cause) http_count(s, cause);
  u32 certain = V(s->certain) && role == REQUEST;
  if (phase >= CHUNK_SIZE && phase < DONE) {
    V(s->ended_ns) = V(s->before);
    finish(s, &s->d, HTTP_FLAG_UNCERTAIN_END | (phase == FIXED ? 0 : HTTP_FLAG_UNCERTAIN_SIZE), 0);
    more = 0;
  } else if (phase == HEAD && role == RESPONSE && (cause == HTTP_COUNT_resync_gap || cause == HTTP_COUNT_resync_truncated || cause == HTTP_COUNT_resync_carry)) {
    more = !settle_head(s, h, cause == HTTP_COUNT_resync_truncated);
    if (V(s->verdict)) {                                        // an upgrade: nothing more is waited for
      programs.call(skb, PROGRAM_http_stream);
      return 0;
    }
  }
  u32 number = V(h->number), losses = V(h->losses), seen = V(h->seen);
  if (certain) V(h->lost_number) = number;
  if (certain && V(s->paired)) {
    V(h->known) = number;
    V(h->after_loss) = 1;
  }
  V(h->number) = number + more;
  V(h->floor) = number + more;
  V(h->losses) = losses + 1;
  V(h->seen) = seen & HTTP;
  V(h->phase) = RESYNC;
  V(h->line) = 0;
  V(h->interim) = 0;
  V(s->certain) = 0;
  V(s->d.left) = 0;
  V(s->pos) = V(s->line) = V(s->end) = HTTP_CARRY;
  if (V(s->retry) && cause == HTTP_COUNT_resync_gap) {
    V(h->phase) = START;                                        // what was lost lies before this segment, which may begin with a start line
    V(s->tentative) = 1;
    V(h->ack) = V(s->d.ack);
  } else V(s->nxt) = V(s->stop);
  V(s->retry) = 0;
  programs.call(skb, PROGRAM_http_stream);
  return 0;
}
