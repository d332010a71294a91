// The missing segment came. What had come before it goes on from where it was kept; what was not kept has passed, and is a gap in what is parsed.
int http_ahead(struct __sk_buff *skb) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  struct counters *c = counters.lookup(&zero);
  if (!s || !c) return 0;
  struct direction *d = &s->d;
  s32 behind = d->next - d->ahead;
  if (behind < d->held) {
    s->kept = 1;
    s->same = 0;                                                // which acknowledgements came with these bytes was not kept
    http_of(d)->alone = 0;
    s->retry = 0;
    s->base = d->ahead;
    s->nxt = behind;
    s->stop = s->there = d->held;
    d->next = d->ahead + d->held;
    d->held = 0;
    c->n[COUNT_holes_filled]++;
  } else {
    s32 gap = d->ahead_end - d->next;
    s->nxt = s->stop;
    s->retry = 0;
    if (gap > 0) {
      d->next = d->ahead_end;
      if (d->left >= gap) d->left -= gap;
      else {
        http_unseen(d);
        struct http_direction *h = http_of(d);
        if (h->phase == CHUNKS_LOST) {
          h->body -= d->left - gap;
          d->left = d->ahead_tail >> 24 == LAST_CHUNK ? 0 : EVER;
          h->body += d->left;
        }
      }
    }
    d->ahead = d->ahead_end = d->held = 0;
    if (d->marks & AHEAD_FIN) {
      d->marks = ENDED;
      d->next++;
      s->fin = TCP_FIN;
    }
  }
  programs.call(skb, PROGRAM_http_stream);
  return 0;
}
