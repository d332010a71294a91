// The missing segment came. What had come before it goes on from where it was kept; what was not kept has passed, and is a gap in what is parsed.
int http_ahead(struct __sk_buff *skb) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  struct counters *c = counters.lookup(&zero);
  if (!s || !c) return 0;
  struct direction *d = &s->d;
  s->retry = 0;
  if (d->marks & KEPT_AHEAD && (s32)(d->ahead_end - d->next) > 0) {
    s->kept = 1;
    s->slot = d->slot;
    s->same = 0;                                                // which acknowledgements came with these bytes was not kept
    http_of(d)->alone = 0;
    s->base = d->origin;
    s->nxt = d->next - d->origin;
    s->stop = s->there = d->ahead_end - d->origin;
    d->next = d->ahead_end;
    c->n[COUNT_holes_filled]++;
    programs.call(skb, PROGRAM_http_stream);
    return 0;
  }
  s32 gap = d->ahead_end - d->next;
  s->nxt = s->stop;
  if (gap > 0) {
    d->next = d->ahead_end;
    if (d->left >= gap) d->left -= gap;
    else {
      http_unseen(d);
      struct http_direction *h = http_of(d);
      if (h->phase == CHUNKS_LOST) {
        h->body -= d->left - gap;
        d->left = d->second == d->second_end && d->ahead_tail >> 24 == LAST_CHUNK ? 0 : EVER;
        h->body += d->left;
      }
    }
  }
  d->ahead = d->second; d->ahead_end = d->second_end;           // the next piece, behind another hole
  d->marks = d->marks & KEPT_SECOND ? d->marks | KEPT_AHEAD : d->marks & ~KEPT_AHEAD;
  d->second = d->second_end = 0;
  if (d->ahead == d->ahead_end) {
    s->slot = d->slot;
    struct held *kept = held.lookup(&s->slot);
    if (kept && owns(kept, s->m.flow, s->direction)) V(kept->flow) = 0;
  }
  if (d->ahead == d->ahead_end && d->marks & AHEAD_FIN) {
    d->marks = ENDED;
    d->next++;
    s->fin = TCP_FIN;
  }
  programs.call(skb, PROGRAM_http_stream);
  return 0;
}
