// Some steps, until more bytes are needed: a function, which the verifier walks once however often it is called.
int http_steps(struct __sk_buff *unused) {
  u32 zero = 0;
  struct http_scratch *s = http_scratch.lookup(&zero);
  return s ? run(0, s, &s->d, HTTP_STEPS) : 0;
}

// Goes on with a segment that was not used up in the packet program, or was looked at by another one meanwhile.
int http_stream(struct __sk_buff *skb) {
  u32 zero = 0, next = PROGRAM_http_stream;
  struct http_scratch *s = http_scratch.lookup(&zero);
  if (!s) return 0;
#pragma clang loop unroll(disable)
  for (u32 i = 0; i < HTTP_CALLS; i++) {
    next = call_http_steps();
    if (next != PROGRAM_http_stream) break;
    u64 n = V(s->load);
    if (!n) continue;
    V(s->load) = 0;
    u32 from = V(s->nxt) - n;
    n = n - 1; barrier_var(n); n &= HTTP_WINDOW - 1; n = n + 1; barrier_var(n);
    if (bpf_skb_load_bytes(skb, from, s->b + HTTP_CARRY, n)) fail(http_of(&s->d), HTTP_COUNT_resync_truncated);
  }
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
