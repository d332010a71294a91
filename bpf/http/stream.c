// Goes on with a segment that takes more than one run, or was looked at by another program meanwhile.
int http_stream(struct __sk_buff *skb) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  if (!s) return 0;
  u32 next = go_on(skb, s);
  if (next) {
    programs.call(skb, next);
    fail(http_of(&s->d), HTTP_COUNT_resync_budget);             // the budget of tail calls is spent; the next segment settles it
  }
  struct flow *f = flows.lookup(&s->key);
  if (!f || f->id != s->m.flow) return 0;                       // evicted meanwhile
  struct direction *d = &f->d[s->direction & 1];
  __builtin_memcpy(d, &s->d, CARRIED);
  return leave_direction(skb, s, f, d);
}
